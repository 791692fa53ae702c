"""The beat: what it sees of the files that are being recorded, and what it tells of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.checkpoint_records import part, stream
from tests.support.fake_checkpoints import FakeCheckpointStore

from cefmp4 import metrics
from cefmp4.errors import SourceError
from cefmp4.ingest.active_files import ActiveFiles
from cefmp4.ingest.record import StreamRecord
from cefmp4.model.stream import FileStamp
from cefmp4.ports.checkpoints import Lease
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.file import FileSample

MB = 1_000_000


def zero() -> float:
    return 0.0


@dataclass
class Source:
    size: int = 0
    error: Exception | None = None

    def look(self) -> FileSample:
        if self.error is not None:
            raise self.error
        return FileSample(FileStamp(1, self.size, 0, 0), in_place=True)


@dataclass
class Processor:
    record: StreamRecord
    source: Source = field(default_factory=Source)
    seconds_behind: float = 0.0
    looks: list[int] = field(default_factory=list)

    def observe(self, look: FileSample) -> None:
        self.looks.append(look.stamp.size)
        self.record.seen(look.stamp)


@dataclass
class Router:
    processors: list[Processor]
    told: list[tuple[str, float]] = field(default_factory=list)

    def start_comebacks(self, now: float) -> None:
        self.told.append(("comebacks", now))

    async def tend_waiting(self, now: float) -> None:
        self.told.append(("waiting", now))


def processor(stream_id: str = "s1", **fields: Any) -> Processor:
    record = StreamRecord(
        stream=stream(stream_id, f"{stream_id}.mp4", **fields),
        lease=Lease(stream_id, "me", 1),
        parts={},
        checkpoints=FakeCheckpointStore(),
        wall_clock=zero,
    )
    return Processor(record)


def beat(root: Path, *processors: Processor) -> tuple[ActiveFiles, Router]:
    router = Router(list(processors))
    clocks = Clocks(monotonic=zero, wall=zero)
    made = ActiveFiles(root=str(root), router=router, clocks=clocks, interval_s=0.5)  # type: ignore[arg-type]
    return made, router


def value(gauge: Any) -> float:
    result: float = gauge._value.get()
    return result


async def test_growth_is_seen_and_the_router_tends_what_waits(tmp_path: Path) -> None:
    one, other = processor("s1"), processor("s2")
    files, router = beat(tmp_path, one, other)
    await files.step(10.0)
    one.source.size = 5 * MB
    await files.step(10.5)
    assert (one.looks, other.looks) == ([0, 5 * MB], [0, 0])
    assert router.told[2:] == [("comebacks", 10.5), ("waiting", 10.5)]
    assert files.last_step_at == 10.5


@pytest.mark.parametrize("error", [SourceError("not mounted"), OSError(5, "I/O error")])
async def test_one_that_cannot_be_looked_at_keeps_no_other_from_it(
    tmp_path: Path, error: Exception
) -> None:
    sick, well = processor("s1"), processor("s2")
    sick.source.error = error
    files, _ = beat(tmp_path, sick, well)
    await files.step(1.0)
    assert (sick.looks, well.looks) == ([], [0])


async def test_a_root_that_is_not_there_says_nothing_about_its_files(tmp_path: Path) -> None:
    one = processor()
    files, router = beat(tmp_path / "unmounted", one)
    await files.step(1.0)
    assert one.looks == []
    assert router.told == [("comebacks", 1.0), ("waiting", 1.0)]
    assert files.last_step_at == 1.0


async def test_speed_and_how_far_behind(tmp_path: Path) -> None:
    one, other = processor("s1", upload_id="u"), processor("s2")
    one.source.size, other.source.size = 10 * MB, 2 * MB
    one.seconds_behind, other.seconds_behind = 3.0, 1.0
    files, _ = beat(tmp_path, one, other)
    await files.step(1.0)
    assert value(metrics.bytes_behind) == 12 * MB
    assert value(metrics.seconds_behind) == 3.0
    assert value(metrics.open_uploads) == 1
    assert [view.bytes_per_second for view in files.views()] == [0.0, 0.0]
    speeds = []
    for number in range(1, 6):
        await one.record.part_stored(part(number, MB))
        await files.step(1.0 + number)
        speeds.append(files.views()[0].bytes_per_second)
    assert speeds == sorted(speeds)
    assert 0.5 * MB < speeds[-1] < MB, "it comes near the true speed without leaping to it"
    view = files.views()[0]
    assert (view.uploaded, view.behind_bytes, view.behind_seconds) == (5 * MB, 5 * MB, 3.0)
    await files.step(7.0)
    assert files.views()[0].bytes_per_second < speeds[-1]


async def test_what_is_over_counts_no_more(tmp_path: Path) -> None:
    one = processor(upload_id="u")
    one.source.size = MB
    files, router = beat(tmp_path, one)
    await files.step(1.0)
    router.processors.clear()
    await files.step(2.0)
    assert files.views() == []
    assert value(metrics.bytes_behind) == value(metrics.open_uploads) == 0
    assert value(metrics.seconds_behind) == 0
