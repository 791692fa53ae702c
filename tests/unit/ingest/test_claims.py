"""Leases are kept while we work, and won back where nobody took them."""

from dataclasses import dataclass, field

import pytest
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4 import metrics
from cefmp4.ingest.claims import Claims
from cefmp4.ingest.record import StreamRecord
from cefmp4.model.part import MIB, Part
from cefmp4.model.stream import Stream

LEASE_S = 10.0


@dataclass
class Instance:
    now: float = 1000.0
    records: list[StreamRecord] = field(default_factory=list)
    lost: list[StreamRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checkpoints = FakeCheckpointStore(lease_seconds=LEASE_S, clock=lambda: self.now)
        self.claims = Claims(checkpoints=self.checkpoints, owner="me", wall_clock=lambda: self.now)

    async def renew(self) -> None:
        await self.claims.renew(self.records, on_lost=self.lost.append)

    async def work_on(self, stream_id: str) -> StreamRecord:
        stream = Stream(id=stream_id, relpath=f"{stream_id}.mp4", part_base=8 * MIB)
        part = Part(number=1, size=5, crc64=1, etag="e", uploaded_at=1.0)
        record = await self.claims.new(stream, {1: part})
        await record.restore()
        self.records.append(record)
        return record

    async def lose_to_another(self, record: StreamRecord) -> None:
        self.now += 2 * LEASE_S
        assert await self.checkpoints.claim(record.stream, "another") is not None


@pytest.fixture
async def instance() -> Instance:
    made = Instance()
    await made.checkpoints.mark_used()
    return made


def leases_lost() -> float:
    return next(iter(metrics.leases_lost.collect())).samples[0].value


async def test_a_lease_outlives_its_time_while_we_work(instance: Instance) -> None:
    record = await instance.work_on("s1")
    for _ in range(5):
        instance.now += LEASE_S / 2
        await instance.renew()
    assert await instance.checkpoints.claim(record.stream, "another") is None
    assert instance.lost == []


async def test_what_ran_out_after_a_rename_over_another_is_ours_again(instance: Instance) -> None:
    """Redis leads to the other one until the record tells of the rename."""
    other, record = await instance.work_on("s1"), await instance.work_on("s2")
    record.renamed("s1.mp4")
    instance.now += 2 * LEASE_S
    await instance.renew()
    assert instance.lost == []
    assert await instance.checkpoints.holder("s2") == "me"
    found = await instance.checkpoints.load_stream_at("", "s1.mp4")
    assert found is not None
    assert found.id == "s2"
    assert await instance.checkpoints.load_displaced("") == [other.stream]


async def test_what_ran_out_and_nobody_took_is_ours_again(instance: Instance) -> None:
    record = await instance.work_on("s1")
    instance.now += 2 * LEASE_S
    await instance.renew()
    assert await instance.checkpoints.holder("s1") == "me"
    await record.save()
    assert instance.lost == []


async def test_what_another_took_is_lost_and_counted_once(instance: Instance) -> None:
    mine, taken = await instance.work_on("s1"), await instance.work_on("s2")
    await instance.lose_to_another(taken)
    before = leases_lost()
    await instance.renew()
    assert instance.lost == [taken]
    assert leases_lost() == before + 1
    assert await instance.checkpoints.holder("s1") == mine.lease.owner


async def test_nobody_asks_for_what_was_released(instance: Instance) -> None:
    record = await instance.work_on("s1")
    await record.release()
    await instance.lose_to_another(record)
    await instance.renew()
    assert instance.lost == []
    assert await instance.checkpoints.holder("s1") == "another"


async def test_an_emptied_redis_is_told_what_we_work_on(instance: Instance) -> None:
    record = await instance.work_on("s1")
    instance.checkpoints.wipe()
    await instance.renew()
    assert await instance.checkpoints.load_stream("s1") == record.stream
    assert await instance.checkpoints.load_parts("s1") == record.parts
