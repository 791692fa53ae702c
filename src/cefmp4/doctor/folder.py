"""The watched folder and what the kernel allows us there. Nothing is written into it."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cefmp4.config.ingest import WatchMode
from cefmp4.config.settings import Settings
from cefmp4.log import printable
from cefmp4.model.diagnosis import Diagnosis, fail, ok, warn
from cefmp4.recording import mounts
from cefmp4.watch.scan import ScanResult, scan
from cefmp4.watch.selection import Selection
from cefmp4.watch.walk import BEYOND, LeftOut
from cefmp4.watch.watcher import choose_mode

_INOTIFY = Path("/proc/sys/fs/inotify")
_COUNT_SECONDS = 5.0  # a tree that takes longer is judged by what was seen
_LOW_SPACE_BYTES = 1024**3
_ENOUGH_FILES = 4096
_MIN_QUEUE = 16384
_MIN_INSTANCES = 16


def examine_folder(settings: Settings) -> list[Diagnosis]:
    """Blocks for some seconds on a large tree: run it in a thread."""
    root = settings.watch_dir
    problem = _unusable(root)
    if problem is not None:
        return [problem, examine_open_files()]
    return [
        *_examine_tree(root, settings),
        *_examine_after_upload(root, settings.after_upload),
        examine_open_files(),
        _state_space(settings.state_dir, settings.work_reserve_bytes),
        _space("disk of the watched folder", root),
    ]


def _unusable(root: Path) -> Diagnosis | None:
    subject, shown = "watched folder", printable(str(root))
    if not root.is_dir():
        return fail(subject, f"{shown} is no folder", "create it, mount it, or set WATCH_DIR")
    if not os.access(root, os.R_OK | os.X_OK):
        advice = f"let user {os.getuid()} read and enter it"
        return fail(subject, f"{shown} cannot be read", advice)
    return None


def _examine_tree(root: Path, settings: Settings) -> list[Diagnosis]:
    mode = settings.watch_mode
    fs_type = mounts.fs_type_of_path(root)
    chosen = choose_mode(root, mode)
    tree = _look(root, settings)
    found = [_judge_file_system(fs_type, mode, chosen), *_judge_left_out(tree.left_out)]
    if tree.unreadable:
        detail = f"{len(tree.unreadable)} folders in it cannot be read"
        advice = f"let user {os.getuid()} read and enter them"
        found.append(warn("watched folder", detail, advice))
    if chosen is WatchMode.EVENTS and _INOTIFY.is_dir():
        found += judge_inotify(_inotify_limits(), len(tree.folders))
    some_file = next((str(root / relpath) for relpath in tree.entries), None)
    return [*found, _try_lease(some_file)]


def _judge_file_system(fs_type: str, mode: WatchMode, chosen: WatchMode) -> Diagnosis:
    subject, detail = "watched folder", f"{fs_type or 'unknown file system'}, {chosen}"
    if mounts.is_remote(fs_type) and mode is WatchMode.EVENTS:
        advice = "set WATCH_MODE=polling (or auto): changes made on other hosts send no events"
        return warn(subject, detail, advice)
    if fs_type == "overlay":
        return warn(subject, detail, "mount a volume there: it goes with the container")
    return ok(subject, detail)


def _look(root: Path, settings: Settings) -> ScanResult:
    """As the service looks at it."""
    deadline = time.monotonic() + _COUNT_SECONDS
    return scan(
        str(root.absolute()),
        Selection(settings.watch_filter_globs),
        lambda: time.monotonic() > deadline,
        most_folders=settings.watch_max_folders,
    )


def _judge_left_out(left_out: LeftOut) -> Iterator[Diagnosis]:
    for limit, count in left_out.counts.items():
        detail, advice = BEYOND[limit]
        first = printable(left_out.examples[limit])
        yield warn("watched folder", f"{detail}: {count}, as {first}", advice)


def _inotify_limits() -> dict[str, int]:
    limits = {}
    for path in _INOTIFY.iterdir():
        with suppress(OSError, ValueError):
            limits[path.name] = int(path.read_text())
    return limits


def judge_inotify(limits: dict[str, int], folders: int) -> list[Diagnosis]:
    found = []
    watches = limits.get("max_user_watches")
    if watches is not None and folders >= watches:
        detail = f"{folders} folders, but only {watches} watches are allowed"
        found.append(fail("inotify", detail, f"sysctl fs.inotify.max_user_watches={4 * folders}"))
    elif watches is not None and folders * 2 > watches:
        detail = f"{folders} folders, {watches} watches allowed for all programs of this user"
        found.append(warn("inotify", detail, f"sysctl fs.inotify.max_user_watches={4 * folders}"))
    queue = limits.get("max_queued_events", _MIN_QUEUE)
    if queue < _MIN_QUEUE:
        advice = f"sysctl fs.inotify.max_queued_events={_MIN_QUEUE}: bursts wait for the next look"
        found.append(warn("inotify", f"only {queue} events may wait", advice))
    instances = limits.get("max_user_instances", _MIN_INSTANCES)
    if instances < _MIN_INSTANCES:
        advice = "sysctl fs.inotify.max_user_instances=128"
        found.append(warn("inotify", f"only {instances} observers for each user", advice))
    return found or [ok("inotify", f"{folders} folders, {watches or 'unknown'} watches allowed")]


def _try_lease(path: str | None) -> Diagnosis:
    """Leases tell within microseconds whether a writer still has a file open."""
    subject = "read leases"
    if path is None:
        return ok(subject, "there is no file yet to try one on")
    slow = "without them a finished file is noticed by quiet time alone"
    try:
        error = _lease_error(path)
    except OSError as problem:
        return warn(subject, f"a file cannot be opened: {problem.strerror}", "check its mode")
    if error in (0, errno.EAGAIN):  # EAGAIN: somebody is writing it, which is an answer too
        return ok(subject, "work")
    if error in (errno.EACCES, errno.EPERM):
        owner = os.stat(path).st_uid
        advice = f"run as user {owner}, who owns the files, or with CAP_LEASE: {slow}"
        return warn(subject, f"user {os.getuid()} may not take them", advice)
    return warn(subject, "this file system has none", f"nothing to be done: {slow}")


def _lease_error(path: str) -> int:
    if not hasattr(fcntl, "F_SETLEASE"):
        return errno.EINVAL
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # A writer that comes in this moment would make the kernel send SIGIO, which ends a process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno or errno.EINVAL
    finally:
        os.close(fd)
    return 0


def _examine_after_upload(root: Path, action: str) -> list[Diagnosis]:
    if action == "keep":
        return []
    places = [root] if action == "delete" else [root, Path(action.removeprefix("move:"))]
    for place in places:
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            advice = f"create it and let user {os.getuid()} write to it, or set AFTER_UPLOAD=keep"
            return [fail("AFTER_UPLOAD", f"{printable(str(place))} cannot be written", advice)]
    return [ok("AFTER_UPLOAD", action)]


def examine_open_files() -> Diagnosis:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _ENOUGH_FILES:
        advice = f"raise it to {_ENOUGH_FILES}: each growing file and each connection takes one"
        return warn("open files", f"at most {hard}", advice)
    return ok("open files", f"at most {'any number' if hard < 0 else hard}")


def _state_space(folder: Path, reserve_bytes: int) -> Diagnosis:
    """In a container it is a small /tmp: without embedded servers only jobs need room there."""
    subject = "disk of the state folder"
    if any((folder / server).exists() for server in ("redis", "s3")):
        return _space(subject, folder)
    advice = "free some: no job begins with less than WORK_RESERVE_BYTES"
    return _space(subject, folder, needed_bytes=reserve_bytes, advice=advice)


def _space(
    subject: str,
    path: Path,
    *,
    needed_bytes: int = _LOW_SPACE_BYTES,
    advice: str = "free some: recorders lose data on a full disk",
) -> Diagnosis:
    existing = next(
        place for place in (path.absolute(), *path.absolute().parents) if place.exists()
    )
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1024**3:.1f} GiB free"
    if free < needed_bytes:
        return warn(subject, detail, advice)
    return ok(subject, detail)
