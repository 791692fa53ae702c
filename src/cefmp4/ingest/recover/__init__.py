"""After a restart, or where Redis has lost its memory: what was begun is found again."""
