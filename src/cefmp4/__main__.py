"""Where every command begins: signals are heard before anything is loaded, which takes a while."""

import sys
from collections.abc import Sequence

from cefmp4.app import signals

SERVICES = {"up", "ingest", "worker"}  # they run until they are told to stop


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


if __name__ == "__main__":
    sys.exit(main())
