"""The checkpoints in Redis: the only place that knows its client and its errors."""
