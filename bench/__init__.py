"""Measures the service beside other tools on the same servers: `python -m bench`."""
