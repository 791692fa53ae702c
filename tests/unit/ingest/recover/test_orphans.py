"""Open uploads that no stream claims: found, and aborted when surely ours and old."""

import os
from pathlib import Path

from tests.support.checkpoint_records import claimed, stream
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.fake_store import FakeObjectStore

from cefmp4 import metrics
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.model.object import FileRange
from cefmp4.model.part import Part
from cefmp4.model.stream import Stream
from cefmp4.recording.digests import crc_of

NOW = 1_000_000.0
GRACE_S = 3600.0
ID = "20260101T000000Z-0000aaaa"


class Sweeping:
    def __init__(self) -> None:
        self.now = NOW
        self.store = FakeObjectStore(clock=lambda: self.now)
        self.checkpoints = FakeCheckpointStore()
        self.sweeper = OrphanSweeper(
            store=self.store, checkpoints=self.checkpoints, prefix="", grace_s=GRACE_S
        )

    async def upload(self, key: str) -> str:
        return await self.store.begin_upload(key, content_type="", metadata={})

    async def claim(self, one: Stream) -> None:
        await self.checkpoints.save(one, await claimed(self.checkpoints, one))

    async def keys(self) -> list[str]:
        return sorted(upload.key for upload in await self.sweeper.find())


async def test_what_a_stream_claims_is_none() -> None:
    sweeping = Sweeping()
    upload_id = await sweeping.upload("r.mp4")
    assert await sweeping.keys() == ["r.mp4"]
    await sweeping.claim(stream(key="r.mp4", upload_id=upload_id))
    assert await sweeping.keys() == []


async def test_a_second_upload_to_a_stream_s_key_is_one() -> None:
    sweeping = Sweeping()
    await sweeping.claim(stream(key="r.mp4", upload_id=await sweeping.upload("r.mp4")))
    await sweeping.upload("r.mp4")
    assert await sweeping.keys() == ["r.mp4"]


async def test_a_stream_of_an_older_version_claims_by_its_id() -> None:
    """It reserved no key."""
    sweeping = Sweeping()
    key = f"streams/{ID}/r.mp4"
    await sweeping.claim(stream(ID, key=key, upload_id=await sweeping.upload(key)))
    sweeping.checkpoints._keys.clear()
    assert await sweeping.keys() == []


async def test_only_old_ones_that_are_surely_ours_are_aborted() -> None:
    sweeping = Sweeping()
    await sweeping.checkpoints.mark_used()
    old = f"streams/{ID}/old.mp4"
    await sweeping.upload(old)
    await sweeping.upload("somebody/else.mp4")
    sweeping.now += GRACE_S
    await sweeping.upload(f"streams/{ID}/new.mp4")
    left = await sweeping.sweeper.step(sweeping.now)
    assert sorted((one.key, one.is_ours) for one in left) == [
        ("somebody/else.mp4", False),
        (f"streams/{ID}/new.mp4", True),
    ]
    assert metrics.orphan_uploads._value.get() == 2
    assert old not in await sweeping.keys()
    await sweeping.sweeper.step(sweeping.now + GRACE_S)
    assert await sweeping.keys() == ["somebody/else.mp4"]


async def test_nothing_is_aborted_while_redis_knows_nothing() -> None:
    """It was emptied: an upload of a recording of two days has no claim for a moment."""
    sweeping = Sweeping()
    await sweeping.upload(f"streams/{ID}/long.mp4")
    sweeping.now += 2 * GRACE_S
    assert len(await sweeping.sweeper.step(sweeping.now)) == 1
    assert len(sweeping.store.open_uploads) == 1
    await sweeping.checkpoints.mark_used()
    assert await sweeping.sweeper.step(sweeping.now) == []
    assert sweeping.store.open_uploads == {}
    assert metrics.orphan_uploads._value.get() == 0


async def test_a_look_reads_no_more_records_than_there_are_uploads() -> None:
    """There may be 100,000 streams, and it looks every minute."""
    sweeping = Sweeping()
    await sweeping.upload("r.mp4")
    before = sweeping.checkpoints.calls["load_streams"]
    await sweeping.sweeper.find()
    assert sweeping.checkpoints.calls["load_streams"] == before


async def test_an_upload_whose_object_is_there_is_completed_again(tmp_path: Path) -> None:
    """The server failed in the middle of a Complete: an abort might take the object's bytes."""
    sweeping = Sweeping()
    await sweeping.checkpoints.mark_used()
    key, data = f"streams/{ID}/r.mp4", os.urandom(1000)
    (tmp_path / "r.mp4").write_bytes(data)
    with (tmp_path / "r.mp4").open("rb") as file:
        body, crc64 = FileRange(file.fileno(), 0, len(data)), crc_of(data)
        for _ in range(2):  # the second one as it was before the Complete
            upload_id = await sweeping.upload(key)
            etag = await sweeping.store.put_part(key, upload_id, 1, body, crc64=crc64)
            if not await sweeping.store.head(key):
                part = Part(number=1, size=len(data), crc64=crc64, etag=etag, uploaded_at=0.0)
                await sweeping.store.complete_upload(key, upload_id, [part], crc64=crc64)
    sweeping.now += GRACE_S
    assert await sweeping.sweeper.step(sweeping.now) == []
    assert sweeping.store.calls["abort_upload"] == 0
    assert sweeping.store.open_uploads == {}
    assert sweeping.store.data(key) == data
