"""Whether a file that we are about to believe can be changed by another user of this machine: by
its owner or mode, or because a folder or link on the way to it can be swapped."""

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from cefmp4.errors import SettingsError
from cefmp4.log import printable

_MAX_LINKS = 40  # as the kernel
_ROOT = 0
_ACL = "system.posix_acl_access"
_UID_MAP = Path("/proc/self/uid_map")


def check_trusted(path: Path, name: str, *, also_parents: bool = True) -> None:
    """Raises SettingsError with the command that helps. What is not there is no danger."""
    steps = list(_steps(path.absolute()))
    last = len(steps) - 1
    for number, (step, facts) in enumerate(steps):
        if number == last or also_parents:
            _check(step, facts, name, is_parent=number < last)


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What the kernel meets on the way, links included, as far as there is something."""
    place, ahead, links = Path("/"), list(path.parts[1:]), 0
    try:
        yield place, os.lstat(place)
        while ahead:
            step = place / ahead.pop(0)
            facts = os.lstat(step)
            yield step, facts
            if not stat.S_ISLNK(facts.st_mode):
                place = Path(os.path.normpath(step))
                continue
            links += 1
            if links > _MAX_LINKS:
                return
            target = step.readlink()
            place = Path("/") if target.is_absolute() else place
            ahead[:0] = target.parts[1:] if target.is_absolute() else target.parts
    except OSError:
        return


def _check(step: Path, facts: os.stat_result, name: str, *, is_parent: bool) -> None:
    us, owner, where = os.geteuid(), facts.st_uid, shlex.quote(printable(str(step)))
    is_link = stat.S_ISLNK(facts.st_mode)
    if owner not in (_ROOT, us) and not (is_parent and _is_nobody_here(owner)):
        command = f"chown {'-h ' if is_link else ''}{_user(us)} {where}"
        help_ = f"{command}, or run this as that user"
        if is_parent and not is_link:  # the home of somebody, perhaps
            help_ = "run this as that user, or in a folder of your own"
        raise _distrust(name, step, f"belongs to the user {_user(owner)}", help_)
    # In a sticky folder nobody but its owner can move the file of another away.
    if is_link or (is_parent and facts.st_mode & stat.S_ISVTX):
        return
    if facts.st_mode & stat.S_IWOTH:
        raise _distrust(name, step, "can be changed by every user", f"chmod o-w {where}")
    if facts.st_mode & stat.S_IWGRP and not _is_private(step, facts.st_gid):
        group = _name_of_group(facts.st_gid) or facts.st_gid
        raise _distrust(name, step, f"can be changed by the group {group}", f"chmod g-w {where}")


def _distrust(name: str, step: Path, why: str, help_: str) -> SettingsError:
    return SettingsError(f"{name} is not trusted: {printable(str(step))} {why}", hint=help_)


def _is_private(step: Path, gid: int) -> bool:
    """Many systems give each user a group of the same name, and let it write to what is theirs."""
    if _has_list_of_users(step):
        return False  # the mode of the group is then the most that anybody on the list may do
    user, group = _name_of_user(os.geteuid()), _name_of_group(gid)
    if group is None:
        return user is None and gid == os.geteuid()
    return group in ("root", user) and set(grp.getgrgid(gid).gr_mem) <= {"root", user}


def _has_list_of_users(step: Path) -> bool:
    try:
        return bool(os.getxattr(step, _ACL))
    except (OSError, AttributeError):  # there is none, or no such thing on this system
        return False


def _is_nobody_here(uid: int) -> bool:
    """In a sandbox (a user namespace) root of the machine outside has no number of its own."""
    try:
        nobody = int(Path("/proc/sys/kernel/overflowuid").read_text())
        ranges = [tuple(map(int, line.split())) for line in _UID_MAP.read_text().splitlines()]
    except (OSError, ValueError):
        return False
    return uid == nobody and not any(first <= uid < first + count for first, _, count in ranges)


def _user(uid: int) -> str:
    return _name_of_user(uid) or str(uid)


def _name_of_user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _name_of_group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None
