"""Modules that need what only an extra of the package brings: loaded when they are chosen."""

import asyncio
import importlib
from collections.abc import Mapping
from types import ModuleType

from cefmp4.config.backends import backend_of
from cefmp4.errors import SettingsError

EXTRAS = {"psycopg": "postgres", "psycopg_pool": "postgres", "surrealdb": "surrealdb"}


async def load(adapters: Mapping[str, str], group: str, name: str, setting: str) -> ModuleType:
    """Of one of ours or of another package; off the loop: some take long. `setting`: who chose
    it."""
    backend = None if name in adapters else backend_of(group, name)
    module = backend.module if backend else adapters[name]
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
