"""`cefmp4 ingest`: the watch-and-upload service."""

import argparse

from cefmp4.app import ingest
from cefmp4.config import Settings
from cefmp4.stopping import until_signal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is a setting."""


async def run(args: argparse.Namespace, settings: Settings) -> int:
    async with until_signal(settings.shutdown_timeout_seconds) as stop:
        await ingest(settings, stop=stop)
    return 0
