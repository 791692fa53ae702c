"""Modules that need what only an extra of the package brings: loaded when they are chosen."""

import asyncio
import importlib
from types import ModuleType

from cefmp4.errors import SettingsError

EXTRAS = {"psycopg": "postgres", "psycopg_pool": "postgres", "surrealdb": "surrealdb"}


async def load(module: str, setting: str) -> ModuleType:
    """Off the loop: some take long. `setting`: who chose it."""
    try:
        return await asyncio.to_thread(importlib.import_module, module)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise SettingsError(
            f"{setting} needs the package {error.name}, which is not installed",
            hint=f"pip install 'cefmp4[{extra}]'",
        ) from None
