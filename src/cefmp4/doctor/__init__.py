"""What `cefmp4 doctor` looks at, one file per thing that can be wrong."""
