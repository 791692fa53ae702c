"""`cefmp4 ingest`: the watch-and-upload service."""

import argparse

from cefmp4.app import ingest, until_signal
from cefmp4.config import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is a setting."""


async def run(args: argparse.Namespace, settings: Settings) -> int:
    async with until_signal() as stop:
        await ingest(settings, stop=stop)
    return 0
