"""Where every command begins: signals are heard before anything is loaded, which takes a while.
And where it ends."""

import atexit
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from cefmp4.app import signals

SERVICES = {"up", "ingest", "worker"}  # they run until they are told to stop
EXIT_UNWRITTEN = 120  # as Python says it of output that did not get out


def command() -> NoReturn:
    """A whole process."""
    codes = list[int]()
    atexit.register(partial(_leave, codes))  # what is registered first is done last
    codes.append(main())
    sys.exit(codes[0])


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not SERVICES.intersection(words[:1]):
        return _run(words, is_service=False)
    signals.hear()
    try:
        return _run(words, is_service=True)
    finally:
        signals.hear_no_more()


def _run(words: list[str], *, is_service: bool) -> int:
    from cefmp4.commands.command_line import run

    return run(words, is_service=is_service)


def _leave(codes: list[int]) -> None:
    """The clients of Temporal and SurrealDB have threads that are not Python's. What one of them
    has to say while the interpreter takes itself apart, to a request that was cancelled, say,
    hangs the process, or aborts it. So it is gone before that."""
    if not codes:
        return  # it ends with a traceback, or had nothing to run
    code = codes[0]
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        pass
    except OSError as error:
        os.write(2, f"error: output was lost: {error.strerror}\n".encode())
        code = code or EXIT_UNWRITTEN
    os._exit(code)


if __name__ == "__main__":
    command()
