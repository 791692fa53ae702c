"""`cefmp4 ingest`: the watch-and-upload service."""

import argparse

from cefmp4.app.ingest import ingest
from cefmp4.app.lifetime import stop_of_signals
from cefmp4.config.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is a setting."""


async def run(args: argparse.Namespace, settings: Settings) -> int:
    await ingest(settings, stop=stop_of_signals(settings.shutdown_timeout_seconds))
    return 0
