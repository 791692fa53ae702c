"""Short ways to records for the tests of checkpoint stores."""

from typing import Any

from cefmp4.model.part import Part
from cefmp4.model.stream import Stream
from cefmp4.ports.checkpoints import CheckpointStore, Lease

A, B = "host-a|a|x|1|1", "host-b|b|x|1|1"


def stream(stream_id: str = "s1", path: str = "a.mp4", **fields: Any) -> Stream:
    return Stream(id=stream_id, relpath=path, part_base=10 << 20, **fields)


def part(number: int, size: int = 10) -> Part:
    etag = f'"{number:x}:"'
    return Part(number=number, size=size, crc64=2**64 - number, etag=etag, uploaded_at=1.25)


async def claimed(store: CheckpointStore, new: Stream, owner: str = A) -> Lease:
    lease = await store.claim(new, owner)
    assert lease is not None
    return lease
