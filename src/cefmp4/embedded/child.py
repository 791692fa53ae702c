"""What a server does in a process of its own before it serves: it ties itself to the process that
started it, so that no kill leaves it behind, and reads its keys, which no argument may show."""

import asyncio
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

CREDENTIALS = "credentials.json"  # in the state folder, for its user alone
_PR_SET_PDEATHSIG = 1


def begin() -> tuple[dict[str, Any], dict[str, str]]:
    """What `ServerProcess` has given us, and the keys."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    die_with_parent(given["parent"])
    return given, json.loads(Path(given["credentials"]).read_text())


def die_with_parent(parent_pid: int) -> None:
    """From here on the kernel kills this process when `parent_pid` ends, however it ends.

    It survives an exec. SIGKILL is safe for our servers (their data is made for it) and cannot be
    ignored by a server that hangs. The kernel watches the thread that started us, so the starter
    must do that from a thread which lives as long as it does: its main thread."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:  # it ended before we asked
        sys.exit(0)


async def until_ended(pid: int) -> None:
    """On Linux alone."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def keep_text(path: Path, text: str) -> None:
    """A small file that is needed at each start, also at one on a full disk: written only where it
    says something else, because opening it to write would empty it first."""
    try:
        if path.read_text() == text:
            return
    except (FileNotFoundError, UnicodeDecodeError):
        pass  # made anew
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)
