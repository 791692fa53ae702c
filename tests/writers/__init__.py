"""Recorders, copiers and editors that write a file the way real programs do, each a process of its
own: `python -m tests.writers NAME OUTPUT SECONDS SPEED`."""
