"""Who holds a lease: a name that another process of the same machine can check against the living.

A restarted service therefore goes on at once where its predecessor was killed, without waiting for
the leases to run out. Where nothing can be proven, the holder counts as alive."""

import os
from pathlib import Path

_FIELDS = 5  # host | boot id | pid namespace | pid | start time of the process


def owner_id(host: str, pid: int | None = None) -> str:
    pid = os.getpid() if pid is None else pid
    _, started = _stat(pid)
    return f"{host}|{_boot_id()}|{_pid_namespace()}|{pid}|{started}"


def host_of(owner: str) -> str:
    return owner.rsplit("|", _FIELDS - 1)[0]


def is_dead(owner: str) -> bool:
    """True only where it is certain: same boot, same pid namespace, and no such process."""
    fields = owner.rsplit("|", _FIELDS - 1)
    if len(fields) != _FIELDS or not fields[3].isdecimal() or not fields[4]:
        return False
    _, boot_id, namespace, pid, started = fields
    if not boot_id or not namespace or (boot_id, namespace) != (_boot_id(), _pid_namespace()):
        return False
    return not _is_running(int(pid), started)


def _is_running(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)  # /proc may hide other users' processes; this does not
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # the latter for a number that no process has
        pass
    state, now_started = _stat(pid)
    if not now_started:
        return True
    return now_started == started and state not in {"Z", "X"}


def _stat(pid: int) -> tuple[str, str]:
    """The state and the start time; the name before them may hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
