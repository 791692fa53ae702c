"""Takes over what was recorded of this very folder under another name, or by a version that knew no
names. Whose file is not here is somebody else's and stays as it is."""

import asyncio
from functools import partial

import structlog

from cefmp4.ingest.claims import Claims
from cefmp4.model.folder import WatchedFolder
from cefmp4.model.stream import Stream
from cefmp4.ports.checkpoints import CheckpointStore
from cefmp4.recording.beneath import look_up
from cefmp4.retry import patiently

log = structlog.get_logger()


async def take_over(
    root: str, folder: WatchedFolder, checkpoints: CheckpointStore, claims: Claims
) -> list[Stream]:
    taken: list[Stream] = []
    left = 0
    for former in sorted({"", *folder.others} - {folder.id}):
        load = partial(checkpoints.load_streams, former)
        streams = await patiently(load, what="loading of checkpoints")
        here = await asyncio.to_thread(_those_here, root, streams)
        final = [stream for stream in here if stream.is_final]
        adopt = partial(checkpoints.adopt, folder.id, final)
        taken += await patiently(adopt, what="checkpoint")
        for stream in here:
            if stream.is_final:
                continue  # else perhaps leased by the dead, which claiming sees through
            if written := await claims.write(stream.in_folder(folder.id)):
                taken.append(written)
        left += len(streams)
    if left:
        log.info(
            "records of other names",
            folder_id=folder.id,
            taken_over=len(taken),
            left_alone=left - len(taken),
        )
    return taken


def _those_here(root: str, streams: list[Stream]) -> list[Stream]:
    return [stream for stream in streams if _is_here(root, stream)]


def _is_here(root: str, stream: Stream) -> bool:
    """A file that was being recorded may have grown since."""
    try:
        facts = look_up(root, stream.relpath)
    except (OSError, ValueError):
        return False
    stamp = stream.stamp
    if stamp is None or facts.st_ino != stamp.inode:
        return False
    if stream.is_final:
        return (facts.st_size, facts.st_mtime_ns) == (stamp.size, stamp.mtime_ns)
    return facts.st_size >= stamp.size
