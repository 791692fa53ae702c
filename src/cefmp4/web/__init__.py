"""Metrics, health, API and page, all on one port."""
