"""What is written of a file that something happened to after it was proven."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_checkpoints import FakeCheckpointStore
from tests.support.fake_store import FakeObjectStore
from tests.support.playable import PLAYABLE, Seen

from cefmp4 import metrics
from cefmp4.ingest.after.describer import Describer
from cefmp4.ingest.part_slots import PartSlots
from cefmp4.ingest.record import StreamRecord
from cefmp4.model import names
from cefmp4.model.media import MediaInfo
from cefmp4.model.part import MIB
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import crc_of
from cefmp4.recording.file import SourceFile
from cefmp4.recording.identity import Identity

CONTENT = b"a recording" * 1000
KEY = "streams/s/r.mp4"


@pytest.fixture
def hashing() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def _rename(path: Path) -> None:
    path.rename(path.with_name("renamed.mp4"))


def _touch(path: Path) -> None:
    os.utime(path, (1.0, 1.0))


def _patch(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"!")


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def _cut(path: Path) -> None:
    os.truncate(path, 10)


@pytest.mark.parametrize(
    ("change", "playable"),
    [(_rename, True), (_touch, True), (_patch, None), (_grow, None), (_cut, None)],
)
@pytest.mark.parametrize("was_hashed", [True, False])
async def test_only_other_bytes_are_not_examined(
    tmp_path: Path,
    hashing: ThreadPoolExecutor,
    change: Callable[[Path], None],
    playable: bool | None,
    was_hashed: bool,
) -> None:
    path = tmp_path / "r.mp4"
    path.write_bytes(CONTENT)
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        store, record = await _stored(source, sha256(CONTENT).hexdigest() if was_hashed else "")
        change(path)
        await _describer(store, hashing).describe(record, source)
    document: dict[str, Any] = json.loads(store.data(names.metadata_key(KEY)))
    assert document["sha256"] == sha256(CONTENT).hexdigest()
    assert document["playable"] is playable
    assert (document["playable_reason"] is None) is (playable is True)


async def _stored(source: SourceFile, digest: str) -> tuple[FakeObjectStore, StreamRecord]:
    store, checkpoints = FakeObjectStore(), FakeCheckpointStore()
    etag = await store.put_object(
        KEY, CONTENT, content_type="video/mp4", metadata={}, crc64=crc_of(CONTENT)
    )
    stream = Stream(
        id="s",
        relpath=source.relpath,
        state=StreamState.STORED,
        key=KEY,
        part_base=10 * MIB,
        size=len(CONTENT),
        stamp=source.stamp(),
        crc64=crc_of(CONTENT),
        sha256=digest,
        etag=etag,
    )
    lease = await checkpoints.claim(stream, "me")
    assert lease
    return store, StreamRecord(
        stream=stream, lease=lease, parts={}, checkpoints=checkpoints, wall_clock=lambda: 0.0
    )


def _describer(
    store: FakeObjectStore, hashing: ThreadPoolExecutor, probe: Seen = PLAYABLE
) -> Describer:
    return Describer(
        store=store,
        probe=probe,
        slots=PartSlots(max_parts=1, max_streams=1),
        identity=Identity(hashing=hashing),
        bucket="b",
        watch_dir="/",
    )


@pytest.mark.parametrize(
    ("verdict", "failures"),
    [
        (MediaInfo(playable=False, reason="it is encrypted"), 0),  # found out as it should be
        (MediaInfo(reason="ffprobe did not end in time"), 1),
    ],
)
async def test_what_cannot_be_played_is_no_failure_of_ours(
    tmp_path: Path, hashing: ThreadPoolExecutor, verdict: MediaInfo, failures: int
) -> None:
    def counted() -> float:
        return sum(
            sample.value
            for family in metrics.failed_operations.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["operation_type"] == "metadata"
        )

    (tmp_path / "r.mp4").write_bytes(CONTENT)
    before = counted()
    with SourceFile.open(str(tmp_path), "r.mp4") as source:
        store, record = await _stored(source, "")
        await _describer(store, hashing, Seen(verdict)).describe(record, source)
    assert counted() - before == failures
    assert json.loads(store.data(names.metadata_key(KEY)))["playable_reason"] == verdict.reason
