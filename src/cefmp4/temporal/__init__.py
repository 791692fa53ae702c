"""The engine of jobs: the only place that knows Temporal."""
