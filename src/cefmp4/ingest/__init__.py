"""From a growing file to a proven object."""
