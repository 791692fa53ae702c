"""Which stream an operator means, by the command line or over HTTP, and what may be done to it."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cefmp4.errors import LeaseLostError, RefusedError, UnknownStreamError
from cefmp4.ingest.folder import names_of
from cefmp4.model.stream import Stream
from cefmp4.model.view import StreamView, view_of_record
from cefmp4.ports.checkpoints import CheckpointStore


async def find_stream(checkpoints: CheckpointStore, stream_id: str) -> Stream:
    stream = await checkpoints.load_stream(stream_id)
    if stream is None:
        raise UnknownStreamError(f"there is no stream {stream_id!a}")
    return stream


@dataclass(frozen=True, slots=True)
class Finder:
    """Knows streams by the paths of their files, in the watched folder and under every name that it
    may have in records. `named`: WATCH_DIR_ID."""

    checkpoints: CheckpointStore
    watch_dir: Path
    named: str = ""

    async def find(self, what: str) -> Stream | None:
        """By its id, or the newest of a path, whose file may be gone since."""
        if what.isascii() and (stream := await self.checkpoints.load_stream(what)):
            return stream
        folders = await self._folders()
        relpaths = await asyncio.to_thread(_relpaths, what, self.watch_dir)
        for relpath in relpaths:
            if found := await self._latest(folders, relpath):
                return found[0]
        return None if await self._is_there() else await self._anywhere(relpaths)

    async def get(self, what: str) -> Stream:
        stream = await self.find(what)
        if stream is None:
            raise UnknownStreamError(f"there is no stream {what!a}, nor one of such a path")
        return stream

    async def history(self, relpath: str, limit: int) -> list[Stream]:
        """All that is known of a path, newest first: each generation before the latest, too."""
        found: dict[str, Stream] = {}
        for latest in await self._latest(await self._folders(), relpath):
            stream: Stream | None = latest
            while stream is not None and stream.id not in found and len(found) < limit:
                found[stream.id] = stream
                before = stream.previous_id
                stream = await self.checkpoints.load_stream(before) if before else None
        return sorted(found.values(), key=lambda stream: stream.started_at, reverse=True)

    async def _is_there(self) -> bool:
        return bool(self.named) or await asyncio.to_thread(self.watch_dir.is_dir)

    async def _anywhere(self, relpaths: Sequence[str]) -> Stream | None:
        """For a host that does not have the folder. Raises RefusedError where it could be one of
        several folders."""
        streams = await self.checkpoints.load_streams()
        found = [stream for stream in streams if stream.relpath in relpaths]
        if len({stream.folder for stream in found}) > 1:
            raise RefusedError("several folders have a file of that path", hint="give the id")
        return max(found, key=lambda stream: stream.updated_at, default=None)

    async def _folders(self) -> list[str]:
        return await asyncio.to_thread(names_of, str(self.watch_dir.resolve()), self.named)

    async def _latest(self, folders: Sequence[str], relpath: str) -> list[Stream]:
        """One of each folder, newest first."""
        found = [await self.checkpoints.load_stream_at(name, relpath) for name in folders]
        streams = {stream.id: stream for stream in found if stream is not None}
        return sorted(streams.values(), key=lambda stream: stream.updated_at, reverse=True)


def _relpaths(what: str, watch_dir: Path) -> list[str]:
    """What a path may mean: from where we are, else from the watched folder. Blocking."""
    top, found = os.path.realpath(watch_dir), []
    for start in (os.curdir, top):
        folder, name = os.path.split(os.path.normpath(os.path.join(start, what)))
        # Of a name that is a link, the link: that is what is watched.
        path = os.path.join(os.path.realpath(folder), name)
        if path.startswith(f"{top}/"):
            found.append(os.path.relpath(path, top))
    return found


async def find_view(checkpoints: CheckpointStore, stream_id: str) -> StreamView | None:
    stream = await checkpoints.load_stream(stream_id)
    return view_of_record(stream) if stream else None


async def retry_stream(checkpoints: CheckpointStore, stream_id: str) -> None:
    """The failed stream is forgotten, and every instance told: its file counts as new."""
    stream = await find_stream(checkpoints, stream_id)
    if not stream.has_failed:
        raise RefusedError(
            f"stream {stream_id} is {stream.state}: only a failed one can be retried"
        )
    await _forget(checkpoints, stream)
    await checkpoints.request("retry", stream_id)


async def forget_stream(checkpoints: CheckpointStore, stream_id: str) -> None:
    await _forget(checkpoints, await find_stream(checkpoints, stream_id))
    await checkpoints.request("forget", stream_id)


async def _forget(checkpoints: CheckpointStore, stream: Stream) -> None:
    try:
        await checkpoints.forget(stream)
    except LeaseLostError:
        raise RefusedError(
            f"stream {stream.id} is being worked on by a running instance",
            hint="stop that instance, or wait until the stream has ended",
        ) from None
