"""A file that cannot be looked at is neither changed nor gone."""

import os
import shutil
from pathlib import Path

import pytest
from tests.support.rig import PART, Rig, bytes_of, open_growing

from cefmp4 import metrics
from cefmp4.errors import SourceError
from cefmp4.ingest.fate import End
from cefmp4.ingest.processor import StreamProcessor
from cefmp4.model.stream import StreamState
from cefmp4.recording.file import FileSample, SourceFile

pytestmark = pytest.mark.leaps


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    counted: list[str] = []
    monkeypatch.setattr(metrics, "count_failure", lambda what, *_: counted.append(what))
    return counted


async def go_on(rig: Rig, processor: StreamProcessor, steps: int = 5) -> None:
    for _ in range(steps):
        rig.clock.pass_by(3.0)
        await rig.step(processor)


async def test_a_folder_that_may_not_be_read_is_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> None:
    data = bytes_of(5 * PART)
    processor = await open_growing(rig, data)

    def refuse(_: SourceFile) -> FileSample:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(SourceFile, "look", refuse)
        processor._close_reported = True
        await go_on(rig, processor)
        assert processor.end is None
        assert processor.record.stream.state is StreamState.UPLOADING
    assert failures == ["read"]
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data


async def test_an_exchanged_folder_does_not_make_its_files_gone(rig: Rig) -> None:
    data = bytes_of(5 * PART)
    processor = await open_growing(rig, data)
    root = rig.folder
    away = root.with_name("away")
    root.rename(away)
    root.mkdir()
    with pytest.raises(SourceError, match="not mounted"):
        processor.source.look()
    (root / "r.mp4").write_bytes(b"of another disk")
    with pytest.raises(SourceError, match="not mounted"):
        processor.source.look()
    processor._close_reported = True
    await go_on(rig, processor)
    assert processor.end is None
    assert len(rig.store.open_uploads) == 1
    shutil.rmtree(root)
    away.rename(root)
    assert await rig.finish(processor) is End.STORED
    assert rig.store.data(processor.record.stream.key) == data


async def test_a_removed_folder_in_it_makes_its_files_gone(tmp_path: Path) -> None:
    (tmp_path / "cam" / "day").mkdir(parents=True)
    path = tmp_path / "cam" / "day" / "a.mp4"
    path.write_bytes(b"x")
    with SourceFile.open(str(tmp_path), "cam/day/a.mp4") as source:
        assert source.look().in_place
        shutil.rmtree(tmp_path / "cam")
        assert not source.look().in_place


async def test_a_folder_on_another_device_now_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount point that a file system left behind."""
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "a.mp4").write_bytes(b"x")
    with SourceFile.open(str(tmp_path), "nas/a.mp4") as source:
        home = source.home
        source.home = type(home)(home.root, home.device + 1)
        os.unlink(tmp_path / "nas" / "a.mp4")
        with pytest.raises(SourceError, match="not mounted"):
            source.look()
        (tmp_path / "nas").rmdir()
        with pytest.raises(SourceError, match="not mounted"):
            source.look()
