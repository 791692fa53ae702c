"""Which folder is watched, and whether it is there: an empty mount point, or another disk, must
never look like a folder whose files were deleted."""

import asyncio
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from time import monotonic

import structlog

from cefmp4 import metrics
from cefmp4.errors import CefError, SettingsError
from cefmp4.model.folder import WatchedFolder
from cefmp4.model.stream import Stream
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.recording.beneath import look_up
from cefmp4.retry import patiently
from cefmp4.watch.folder_marks import FolderLook, leave_mark, look_at, place_of

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
SAY_AGAIN_S = 600.0
MAX_MOUNTS = 1000
HINT = "mount it; if it is meant to be empty, put any file into it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What was last seen at this path of this host. `mounts` are the folders in it where other file
    systems were mounted."""

    id: str
    mark: str = ""
    print: str = ""
    mounts: tuple[str, ...] = ()

    def is_of(self, look: FolderLook) -> bool:
        return self.mark in look.marks or self.print == look.print


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFolder:
    """`place` changes when it is unmounted or replaced."""

    folder: WatchedFolder
    place: tuple[int, int]
    mounts: frozenset[str]


@dataclass(slots=True, kw_only=True)
class FolderFinder:
    """`named`: WATCH_DIR_ID. `waiting_for` says why nothing can be done now."""

    root: str
    named: str
    host: str
    checkpoints: CheckpointStore
    waiting_for: str = field(default="", init=False)
    _said_at: float = field(default=float("-inf"), init=False)
    _memory: Memory | None = field(default=None, init=False)

    @property
    def _name(self) -> str:
        return f"folder:{self.host}:{self.root}"

    async def find(self) -> FoundFolder:
        """Waits until it is there. A path at which nothing was ever watched is an error instead."""
        memory = await self._recall()
        while True:
            look, problem = await asyncio.to_thread(_try_to_look, self.root)
            if look is not None:
                problem = await self._doubt(look, memory)
                if not problem:
                    return await self._settle(look, memory)
            elif memory is None:
                raise SettingsError(f"WATCH_DIR={self.root}: {problem}")
            await self._tell_of(problem)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _tell_of(self, problem: str) -> None:
        self.waiting_for = f"waiting for the watched folder: {self.root} {problem}"
        metrics.watch_folder_up.set(0)
        now = monotonic()
        if now - self._said_at >= SAY_AGAIN_S:
            self._said_at = now
            log.error(self.waiting_for, hint=HINT)
        try:
            await self.checkpoints.publish_views([], note=self.waiting_for)
        except CefError as error:
            log.debug("progress failed", reason=str(error))

    async def _doubt(self, look: FolderLook, memory: Memory | None) -> str:
        """Empty where it is what it was, or surely something else."""
        if memory is None or memory.is_of(look) or not look.is_bare:
            return ""
        known = len(await self._streams_of(memory.id))
        return f"is empty or not mounted, {known} recordings are known in it" if known else ""

    async def _settle(self, look: FolderLook, memory: Memory | None) -> FoundFolder:
        if self.waiting_for:
            log.info("the watched folder is back", folder=self.root)
        self.waiting_for, self._said_at = "", float("-inf")
        metrics.watch_folder_up.set(1)
        known = memory if memory is not None and await self._is_known(look, memory) else None
        former = known.id if known else ""
        wanted = (known.mark or known.id) if known else secrets.token_hex(8)
        mark = next(iter(look.marks), "") or await asyncio.to_thread(_mark, self.root, wanted)
        folder_id = self.named or mark or former or look.print
        others = frozenset({*look.marks, mark, former, look.print}) - {"", folder_id}
        folder = WatchedFolder(id=folder_id, others=others)
        self._tell(folder, mark, look, memory)
        mounts = known.mounts if known else ()
        mounts = await asyncio.to_thread(_still_expected, self.root, mounts)
        await self._remember(Memory(id=folder_id, mark=mark, print=look.print, mounts=mounts))
        return FoundFolder(folder=folder, place=look.place, mounts=frozenset(mounts))

    def _tell(
        self, folder: WatchedFolder, mark: str, look: FolderLook, memory: Memory | None
    ) -> None:
        if memory is not None and not folder.is_called(memory.id):
            log.warning(
                "another folder is watched here than before; what is known of that one stays",
                folder=self.root,
                folder_id=folder.id,
                former=memory.id,
            )
        if not (self.named or mark):
            say = log.info if look.is_print_safe else log.warning
            say(
                "the watched folder cannot be marked: it is known by what its file system tells",
                folder=self.root,
                folder_id=folder.id,
                hint="set WATCH_DIR_ID to a name that no other folder has",
            )

    async def remember_mounts(self, mounts: Iterable[str]) -> None:
        memory = self._memory
        known = tuple(sorted(mounts))[:MAX_MOUNTS]
        if memory is not None and known != memory.mounts:
            await self._remember(replace(memory, mounts=known))

    async def remember_again(self) -> None:
        """For a Redis that has lost its memory."""
        if self._memory is not None:
            await self._remember(self._memory)

    async def _remember(self, memory: Memory) -> None:
        text = json.dumps(asdict(memory))
        await patiently(lambda: self.checkpoints.remember(self._name, text), what="checkpoint")
        self._memory = memory

    async def _recall(self) -> Memory | None:
        text = await patiently(lambda: self.checkpoints.recall(self._name), what="stream lookup")
        try:
            return _memory_of(json.loads(text)) if text else None
        except (ValueError, TypeError, KeyError):
            return None

    async def _streams_of(self, folder_id: str) -> list[Stream]:
        return await patiently(
            lambda: self.checkpoints.load_streams(folder_id), what="loading of checkpoints"
        )

    async def _is_known(self, look: FolderLook, memory: Memory) -> bool:
        """Where a mark was lost, on the way to another disk perhaps, its files still tell."""
        if memory.is_of(look) or look.marks:
            return memory.is_of(look)
        streams = await self._streams_of(memory.id)
        return await asyncio.to_thread(_any_is_in, self.root, streams)

    async def is_away(self, found: FoundFolder) -> bool:
        return await asyncio.to_thread(place_of, self.root) != found.place


def names_of(root: str, named: str) -> list[str]:
    """What this folder may be called in records, the present name last; nothing is written.
    Blocking."""
    look, _ = _try_to_look(root)
    known = ["", look.print, *reversed(look.marks)] if look else [""]
    return [*known, named] if named else known


def _memory_of(fields: dict[str, object]) -> Memory:
    mounts = fields.get("mounts", ())
    if not isinstance(mounts, list | tuple):
        raise TypeError("not a list")
    id_, mark, print_ = (str(fields.get(name, "")) for name in ("id", "mark", "print"))
    return Memory(id=id_, mark=mark, print=print_, mounts=tuple(map(str, mounts)))


def _still_expected(root: str, mounts: tuple[str, ...]) -> tuple[str, ...]:
    """Without those that are plain folders with something in them now."""
    return tuple(mount for mount in mounts if not _is_plain_folder(f"{root}/{mount}"))


def _is_plain_folder(path: str) -> bool:
    try:
        return not os.path.ismount(path) and bool(os.listdir(path))
    except OSError:
        return False


def _try_to_look(root: str) -> tuple[FolderLook | None, str]:
    try:
        return look_at(root), ""
    except FileNotFoundError:
        return None, "does not exist; create or mount it"
    except NotADirectoryError:
        return None, "is not a folder"
    except PermissionError:
        return None, "may not be read by this user"
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"


def _mark(root: str, wanted: str) -> str:
    try:
        return leave_mark(root, wanted)
    except OSError:
        return ""  # it went just now, which will be seen


def _any_is_in(root: str, streams: list[Stream]) -> bool:
    for stream in streams:
        try:
            facts = look_up(root, stream.relpath)
        except (OSError, ValueError):
            continue
        stamp = stream.stamp
        if stamp and (facts.st_size, facts.st_mtime_ns) == (stamp.size, stamp.mtime_ns):
            return True
    return False
