"""Where a file may have been finished under another name: hints, and every one of them."""

from dataclasses import replace

from cefmp4.ingest.finished_index import FinishedIndex
from cefmp4.model.stream import FileStamp, Stream, StreamState

CARD, DISK = 1, 2
STAMP = FileStamp(7, 100, 5, 6, 8, CARD)


def finished(relpath: str, stamp: FileStamp, state: StreamState = StreamState.DESCRIBED) -> Stream:
    return Stream(id=relpath, relpath=relpath, state=state, part_base=1, stamp=stamp)


def index_of(*streams: Stream) -> FinishedIndex:
    index = FinishedIndex()
    for stream in streams:
        index.add(stream)
    return index


def test_an_inode_of_two_file_systems_hides_neither_file() -> None:
    on_disk = replace(STAMP, device=DISK, size=200)
    index = index_of(finished("card/a.mp4", STAMP), finished("disk/b.mp4", on_disk))
    assert index.former_paths_of(STAMP) == ["card/a.mp4"]
    assert index.former_paths_of(on_disk) == ["disk/b.mp4"]
    index.remove("disk/b.mp4")
    assert index.former_paths_of(STAMP) == ["card/a.mp4"]
    assert index.former_paths_of(on_disk) == []


def test_with_one_size_and_date_the_device_comes_first() -> None:
    on_disk = replace(STAMP, device=DISK)
    index = index_of(finished("a.mp4", STAMP), finished("b.mp4", on_disk))
    assert index.former_paths_of(STAMP) == ["a.mp4", "b.mp4"]
    assert index.former_paths_of(on_disk) == ["b.mp4", "a.mp4"]


def test_a_boot_that_numbers_devices_anew_hides_nothing() -> None:
    index = index_of(finished("a.mp4", STAMP))
    assert index.former_paths_of(replace(STAMP, device=9)) == ["a.mp4"]


def test_what_has_another_size_or_date_or_was_never_stored_is_no_candidate() -> None:
    index = index_of(
        finished("a.mp4", replace(STAMP, size=1)),
        finished("b.mp4", replace(STAMP, mtime_ns=1)),
        finished("c.mp4", STAMP, StreamState.FAILED),
    )
    assert index.former_paths_of(STAMP) == []


def test_a_path_that_is_finished_again_has_no_former_inode() -> None:
    index = index_of(finished("a.mp4", STAMP), finished("a.mp4", replace(STAMP, inode=9)))
    assert index.former_paths_of(STAMP) == []
    assert len(index) == 1
    index.remove("a.mp4")
    assert len(index) == 0


def test_of_hard_links_without_number_some_are_candidates() -> None:
    """Each candidate is opened: with all of them, 10,000 links were 50 million looks."""
    index = index_of(*(finished(f"{number}.mp4", STAMP) for number in range(5000)))
    candidates = index.former_paths_of(STAMP)
    assert candidates == sorted(f"{number}.mp4" for number in range(4992, 5000))
    for number in range(5000):
        index.remove(f"{number}.mp4")
    assert index.former_paths_of(STAMP) == []
    assert not index._by_inode


def test_an_inode_that_was_used_again_and_again_hides_nobody() -> None:
    former = [finished(f"{n}.mp4", replace(STAMP, mtime_ns=n)) for n in range(100)]
    index = index_of(*former)
    assert index.former_paths_of(former[0].stamp or STAMP) == ["0.mp4"]
