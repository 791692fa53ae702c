"""One file on the disk: opened, looked at, read, recognised. Nothing else opens recordings."""
