"""From the disk to events: what changed in the watched folder, and whether a writer is at work."""
