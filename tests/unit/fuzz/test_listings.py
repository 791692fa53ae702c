"""Listings of parts with holes, strangers and lies: what is kept is what the disk holds."""

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.fake_store import FakeObjectStore

from cefmp4.ingest.record import StreamRecord
from cefmp4.ingest.recover.bucket_search import BucketSearch
from cefmp4.ingest.recover.recovery import Recovery
from cefmp4.model.object import FileRange, ListedPart
from cefmp4.model.part import (
    MAX_PART_BYTES,
    MIB,
    MIN_PART_BYTES,
    Part,
    PartPlan,
    PartSizing,
    infer_plan,
)
from cefmp4.model.stream import Stream
from cefmp4.recording.digests import crc_of, multipart_etag
from cefmp4.recording.file import SourceFile

BASE = 1000  # bytes of a part: the fake takes parts of any size
COUNT = 9
DATA = Random(3).randbytes(BASE * (COUNT - 1) + 137)
OTHER = Random(4).randbytes(len(DATA))
numbers = st.sets(st.integers(1, COUNT))


@contextmanager
def _recording() -> Iterator[SourceFile]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "r.mp4").write_bytes(DATA)
        with SourceFile.open(folder, "r.mp4") as source:
            yield source


def _cut(number: int, data: bytes = DATA) -> bytes:
    return data[(number - 1) * BASE : number * BASE]


def _part(number: int, data: bytes) -> Part:
    etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Part(number=number, size=len(data), crc64=crc_of(data), etag=etag, uploaded_at=1.0)


async def _put(store: FakeObjectStore, upload_id: str, number: int, data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        body = FileRange(file.fileno(), 0, len(data))
        await store.put_part("streams/x/r.mp4", upload_id, number, body, crc64=crc_of(data))


async def _resumed(
    remembered: dict[int, bytes], held: dict[int, bytes], source: SourceFile
) -> dict[int, Part]:
    store, checkpoints = FakeObjectStore(min_part_bytes=0), FakeCheckpointStore()
    upload_id = await store.begin_upload("streams/x/r.mp4", content_type="", metadata={})
    for number, data in held.items():
        await _put(store, upload_id, number, data)
    stream = Stream(
        id="x", relpath="r.mp4", part_base=BASE, key="streams/x/r.mp4", upload_id=upload_id
    )
    lease = await checkpoints.claim(stream, "me")
    assert lease is not None
    parts = {number: _part(number, data) for number, data in remembered.items()}
    record = StreamRecord(
        stream=stream, lease=lease, parts=parts, checkpoints=checkpoints, wall_clock=lambda: 1.0
    )
    await record.restore()
    with ThreadPoolExecutor(max_workers=1) as hashing:
        await Recovery(store=store, hashing=hashing, plan=PartPlan(BASE)).resume(record, source)
    assert await checkpoints.load_parts("x") == record.parts
    return dict(record.parts)


@settings(max_examples=60, deadline=None)
@given(remembered=numbers, stale=numbers, held=numbers, foreign=numbers)
def test_only_what_the_store_holds_is_relied_on(
    remembered: set[int], stale: set[int], held: set[int], foreign: set[int]
) -> None:
    """`stale` are remembered with bytes that the store no longer has, `foreign` are held with
    bytes that the file does not have."""
    memory = {n: _cut(n, OTHER if n in stale else DATA) for n in sorted(remembered)}
    store = {n: _cut(n, OTHER if n in foreign else DATA) for n in sorted(held)}
    with _recording() as source:
        kept = asyncio.run(_resumed(memory, store, source))
    for number, part in kept.items():
        assert part.etag == _part(number, store[number]).etag
        assert part.crc64 == crc_of(store[number])
    assert kept.keys() >= {n for n in held if store[n] == _cut(n)}
    assert not {n for n in kept if n not in memory and store[n] != _cut(n)}


bases = st.integers(MIN_PART_BYTES // MIB, 64).map(lambda count: count * MIB)
sizings = st.sampled_from(list(PartSizing))


@settings(max_examples=200, deadline=None)
@given(bases, sizings, st.sets(st.integers(1, 3000), min_size=1, max_size=12), st.data())
def test_the_plan_of_today_is_recognised_whatever_holes_there_are(
    base: int, sizing: PartSizing, present: set[int], data: st.DataObject
) -> None:
    plan = PartPlan(base, sizing)
    listed = [ListedPart(number=n, size=plan.range_of(n).size, etag="") for n in present]
    last = max(listed, key=lambda part: part.number)
    size = data.draw(st.integers(1, last.size))
    listed[listed.index(last)] = ListedPart(number=last.number, size=size, etag="")
    assert infer_plan(listed, PartPlan(base, sizing)) == plan


@settings(max_examples=200, deadline=None)
@given(
    bases,
    sizings,
    st.dictionaries(st.integers(1, 10_000), st.integers(0, 2 * MAX_PART_BYTES), min_size=1),
)
def test_an_inferred_plan_never_contradicts_the_listing(
    base: int, sizing: PartSizing, sizes: dict[int, int]
) -> None:
    listed = [ListedPart(number=n, size=size, etag="") for n, size in sizes.items()]
    plan = infer_plan(listed, PartPlan(base, sizing))
    if plan is None:
        return
    last = max(sizes)
    for number, size in sizes.items():
        full = plan.range_of(number).size
        assert size == full or (number == last and size < full)


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=6))
def test_the_expected_etag_depends_on_every_part(contents: list[bytes]) -> None:
    etags = [_part(number, data).etag for number, data in enumerate(contents, 1)]
    changed = [_part(1, contents[0] + b"x").etag, *etags[1:]]
    assert multipart_etag(etags).endswith(f"-{len(contents)}")
    assert multipart_etag(etags) != multipart_etag(changed)


async def test_an_empty_upload_to_a_key_without_stream_id_may_be_anybody_s() -> None:
    store = FakeObjectStore(min_part_bytes=0)
    await store.begin_upload("r.mp4", content_type="", metadata={})
    with ThreadPoolExecutor(max_workers=2) as hashing, _recording() as source:
        plan = PartPlan(BASE)
        contents = await BucketSearch(store=store, prefix="", hashing=hashing, plan=plan).take()
        recovery = Recovery(store=store, hashing=hashing, plan=plan)
        assert await recovery.take_upload(contents, source) is None


async def test_two_files_of_one_name_never_take_the_same_upload() -> None:
    store = FakeObjectStore(min_part_bytes=0)
    for folder in ("20260101T000000Z-0000000a", "20260101T000000Z-0000000b"):
        await store.begin_upload(f"streams/{folder}/r.mp4", content_type="", metadata={})
    with ThreadPoolExecutor(max_workers=2) as hashing, _recording() as source:
        plan = PartPlan(BASE)
        contents = await BucketSearch(store=store, prefix="", hashing=hashing, plan=plan).take()
        recovery = Recovery(store=store, hashing=hashing, plan=plan)
        found = await asyncio.gather(*(recovery.take_upload(contents, source) for _ in range(3)))
    taken = {upload.upload_id for upload, _ in filter(None, found)}
    assert len(taken) == 2
    assert found.count(None) == 1
    assert contents.uploads == []
