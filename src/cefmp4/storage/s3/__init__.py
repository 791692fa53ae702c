"""The S3 store: the only place that knows its clients and its errors."""
