"""SurrealDB: the only place that knows its client and its errors."""
