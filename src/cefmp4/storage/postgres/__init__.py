"""Postgres: the connection, and the tables that are ours."""

import importlib

from cefmp4.errors import SettingsError


def check_installed() -> None:
    """Call it before anything of this room is imported."""
    for package in ("psycopg", "psycopg_pool"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise SettingsError(
                "DATABASE_URL=***: the driver of Postgres is not installed",
                hint="pip install 'cefmp4[postgres]'",
            ) from None
