"""Ties a server process to the process that started it, so that no kill leaves a server behind."""

import asyncio
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """From here on the kernel kills this process when `parent_pid` ends, however it ends.

    It survives an exec. SIGKILL is safe for both servers (their data is made for it) and cannot be
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
