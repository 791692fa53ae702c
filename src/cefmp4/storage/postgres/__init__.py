"""Postgres: the connection, and the tables that are ours."""
