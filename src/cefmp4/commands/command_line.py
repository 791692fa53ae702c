"""The command line: arguments, settings, logging, one command, one exit code."""

import argparse
import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from cefmp4 import __version__
from cefmp4.config.general import AppEnv
from cefmp4.config.reading import is_production, load_settings
from cefmp4.config.settings import Settings
from cefmp4.errors import AccessDeniedError, CefError, ServerUnreachableError, SettingsError
from cefmp4.log import configure_logging, redact

if TYPE_CHECKING:  # loaded where it is needed
    from cefmp4.embedded.state import Connection

EXIT_OK, EXIT_NOT_SO, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3

COMMANDS = {
    "up": "everything on one machine, with embedded servers where none are configured",
    "ingest": "watch the folder and upload",
    "status": "how far each stream is",
    "streams": "list, show, retry or forget streams",
    "verify": "compare objects with local files, part by part",
    "download": "fetch objects, or all below a prefix, to local files",
    "upload": "send local files, or all below a folder, to the bucket",
    "worker": "take jobs",
    "jobs": "list, show, retry, cancel, submit or backfill jobs",
    "doctor": "check settings, servers, rights and programs",
    "licences": "what this installation consists of, and under which licences",
}

STARTERS = {"up", "ingest"}  # the others look at what runs, or join it


def _running_servers(command: str, settings: Settings) -> "Connection | None":
    """A `cefmp4 up` that runs here tells where its servers are, to who needs them."""
    has_temporal = settings.temporal_address is not None or not settings.has_jobs
    has_all = None not in (settings.redis_address, settings.s3_endpoint_url) and has_temporal
    if command in STARTERS or has_all:
        return None
    from cefmp4.embedded.state import load_connection

    return load_connection(settings.state_dir)


def _parser(command: str | None) -> argparse.ArgumentParser:
    """Only the command that will run is imported: a start must not pay for the others."""
    parser = argparse.ArgumentParser(
        prog="cefmp4", description="Uploads recordings to S3 while they grow, and proves them."
    )
    parser.add_argument("--version", action="version", version=f"cefmp4 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in COMMANDS.items():
        command_parser = commands.add_parser(name, help=about, description=about)
        if name == command:
            _module(name).add_arguments(command_parser)
    return parser


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a number."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = most + 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!a}: allowed are {least} to {most}")
        return number

    return read


class Command(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    async def run(self, args: argparse.Namespace, settings: Settings) -> int: ...


def _module(command: str) -> Command:
    return cast(Command, importlib.import_module(f"cefmp4.commands.{command}"))


def run(words: Sequence[str], *, is_service: bool) -> int:
    """What a service writes to standard error is a log."""
    command = next((word for word in words if word in COMMANDS), None)
    arguments = _parser(command).parse_args(words)
    settings: Settings | None = None
    say = _log_line if is_service and is_production() else _write_line
    try:
        if say is _log_line:  # already for what is wrong with the settings
            configure_logging(level="INFO", json_lines=True)
        settings, warnings = load_settings()
        configure_logging(
            level=settings.log_level, json_lines=settings.app_env is AppEnv.PRODUCTION
        )
        servers = _running_servers(arguments.command, settings)
        for warning in warnings:
            say(logging.WARNING, warning)
        if servers is None:
            return asyncio.run(_run(arguments, settings))
        return asyncio.run(_run_beside(servers, arguments, servers.completing(settings)))
    except CefError as error:
        say(logging.ERROR, settings.as_spelled(str(error)) if settings else str(error))
        return _exit_code_of(error)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return 130
    finally:
        _forget_full_log()


async def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    return await _module(arguments.command).run(arguments, settings)


async def _run_beside(
    servers: "Connection", arguments: argparse.Namespace, settings: Settings
) -> int:
    """It ends with the `up` whose servers it uses: their port is anybody's then."""
    from cefmp4.embedded.state import until_gone

    command = asyncio.create_task(_run(arguments, settings), name=arguments.command)
    gone = asyncio.create_task(until_gone(servers), name="until up ends")
    try:
        await asyncio.wait({command, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not command.done():
            raise ServerUnreachableError("`cefmp4 up` has ended, and its servers with it")
        return await command
    finally:
        for task in (command, gone):
            task.cancel()
        await asyncio.gather(command, gone, return_exceptions=True)


def _forget_full_log() -> None:
    """A log that cannot be written any more is no failure of what ran; without this the
    interpreter's last flush would make it exit code 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _exit_code_of(error: CefError) -> int:
    if isinstance(error, SettingsError | AccessDeniedError):  # the password is a setting, too
        return EXIT_USAGE
    return EXIT_UNREACHABLE if isinstance(error, ServerUnreachableError) else EXIT_NOT_SO


def _write_line(level: int, text: str) -> None:
    sys.stderr.write(f"{logging.getLevelName(level).lower()}: {redact(text)}\n")


def _log_line(level: int, text: str) -> None:
    structlog.get_logger("cefmp4").log(level, text)
