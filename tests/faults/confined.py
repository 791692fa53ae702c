"""Starts the service with less than root has: `python -m tests.faults.confined WAY ingest`.

`plain-user`: file modes bind it. `few-watches`: the kernel gives it hardly any inotify watches.
With `check` for a command it only tells by its exit code whether this machine can do that."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

PR_CAPBSET_DROP = 24
CLONE_NEWUSER = 0x10000000
OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
WATCHES = 4
CANNOT = 3

libc = ctypes.CDLL(None, use_errno=True)


def plain_user() -> None:
    """The user stays the same, so that its files, and the interpreter, stay within its reach; what
    lets root ignore file modes is gone with the next exec."""
    if os.geteuid() == 0:
        for capability in OVERRIDES:
            _must(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))


def few_watches() -> None:
    """In a user namespace of its own, whose limits bind nobody else."""
    user, group = os.geteuid(), os.getegid()
    _must(libc.unshare(CLONE_NEWUSER))
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")
    Path("/proc/sys/user/max_inotify_watches").write_text(str(WATCHES))


def _must(code: int) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


WAYS: dict[str, Callable[[], None]] = {"plain-user": plain_user, "few-watches": few_watches}


def main() -> None:
    way, *command = sys.argv[1:]
    try:
        WAYS[way]()
    except OSError as error:
        sys.stderr.write(f"{way} cannot be had here: {error}\n")
        sys.exit(CANNOT)
    if command == ["check"]:
        sys.exit(0)
    warnings = ("-W", "default::ResourceWarning")
    os.execv(sys.executable, [sys.executable, *warnings, "-m", "cefmp4", *command])


if __name__ == "__main__":
    main()
