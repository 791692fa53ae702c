"""What is fetched grows under a name of its own, and nobody who may write to the folder can lead it
elsewhere."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cefmp4.errors import RefusedError
from cefmp4.model.object import StoredObject
from cefmp4.recording.digests import crc_of
from cefmp4.transfer.check import check_of
from cefmp4.transfer.part_file import PartFile, is_there

STORED = StoredObject(key="k", size=3, etag="e", crc64=crc_of(b"abc"))
CHECK = check_of(STORED, etag_is_md5=True)


def open_part(folder: Path, stored: StoredObject = STORED, relpath: str = "a.mp4") -> PartFile:
    return PartFile.open(str(folder), relpath, stored)


def leave(folder: Path, data: bytes, stored: StoredObject = STORED) -> Path:
    part = open_part(folder, stored)
    part.append(data)
    part.close()
    (path,) = folder.glob(".cefmp4-*.part")
    return path


def test_it_is_gone_on_with(tmp_path: Path) -> None:
    leave(tmp_path, b"ab")
    part = open_part(tmp_path)
    assert part.size == 2
    part.append(b"c")
    part.place(overwrite=False)
    part.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"abc"


@pytest.mark.parametrize(
    "other", [replace(STORED, etag="f"), replace(STORED, size=4), replace(STORED, key="l")]
)
def test_of_another_content_nothing_is_taken(tmp_path: Path, other: StoredObject) -> None:
    leave(tmp_path, b"ab")
    part = open_part(tmp_path, other)
    assert part.size == 0
    part.close()


def test_what_nothing_is_told_of_begins_anew(tmp_path: Path) -> None:
    nameless = replace(STORED, etag="")
    leave(tmp_path, b"ab", nameless)
    part = open_part(tmp_path, nameless)
    assert part.size == 0
    part.close()


def test_too_much_begins_anew(tmp_path: Path) -> None:
    leave(tmp_path, b"abcd")
    part = open_part(tmp_path)
    assert part.size == 0
    part.close()


def test_two_never_write_to_one(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    with pytest.raises(RefusedError, match="another process"):
        open_part(tmp_path)
    part.close()
    open_part(tmp_path).close()


@pytest.mark.parametrize("trap", ["link", "hard link", "pipe", "dangling"])
def test_what_is_planted_is_not_written_to(tmp_path: Path, trap: str) -> None:
    folder, secret = tmp_path / "to", tmp_path / "secret"
    folder.mkdir()
    secret.write_bytes(b"theirs")
    path = leave(folder, b"ab")
    path.unlink()
    if trap == "link":
        path.symlink_to(secret)
    elif trap == "hard link":
        os.link(secret, path)
    elif trap == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nothing")
    part = open_part(folder)
    assert part.size == 0
    part.append(b"abc")
    part.place(overwrite=False)
    part.close()
    assert secret.read_bytes() == b"theirs"
    assert not (tmp_path / "nothing").exists()
    assert not (folder / "a.mp4").is_symlink()
    assert (folder / "a.mp4").read_bytes() == b"abc"


def test_no_link_on_the_way_is_followed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "to", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "sub").symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        open_part(folder, relpath="sub/a.mp4")
    with pytest.raises(NotADirectoryError):
        is_there(str(folder), "sub/a.mp4", CHECK, lambda: False, overwrite=True)
    assert list(elsewhere.iterdir()) == []


def test_nothing_is_written_over_without_being_told_to(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    part.append(b"abc")
    (tmp_path / "a.mp4").write_bytes(b"theirs")
    with pytest.raises(RefusedError, match="--overwrite"):
        part.place(overwrite=False)
    assert (tmp_path / "a.mp4").read_bytes() == b"theirs"
    part.place(overwrite=True)
    part.close()
    assert (tmp_path / "a.mp4").read_bytes() == b"abc"


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    part = open_part(tmp_path)
    part.append(b"abc")
    (tmp_path / "a.mp4").symlink_to("theirs")
    part.place(overwrite=True)
    part.close()
    assert not (tmp_path / "a.mp4").is_symlink()
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_there_already(tmp_path: Path, overwrite: bool) -> None:
    def look() -> bool:
        return is_there(str(tmp_path), "a.mp4", CHECK, lambda: False, overwrite=overwrite)

    assert not look()
    (tmp_path / "a.mp4").write_bytes(b"abc")
    assert look()
    (tmp_path / "a.mp4").unlink()
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(RefusedError, match="no file"):
        look()


def test_the_size_alone_shows_nothing(tmp_path: Path) -> None:
    check = check_of(replace(STORED, crc64=None), etag_is_md5=False)
    (tmp_path / "a.mp4").write_bytes(b"abc")
    with pytest.raises(RefusedError, match="nothing tells"):
        is_there(str(tmp_path), "a.mp4", check, lambda: False, overwrite=False)
    assert not is_there(str(tmp_path), "a.mp4", check, lambda: False, overwrite=True)
