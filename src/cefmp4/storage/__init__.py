"""Adapters: the S3 store and the Redis checkpoints."""
