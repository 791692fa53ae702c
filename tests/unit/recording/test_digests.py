"""Checksums of ranges, their forms, and that nobody else computes any of a recording."""

import ast
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from awscrt.checksums import crc64nvme

import cefmp4
from cefmp4.recording import digests
from cefmp4.recording.digests import (
    READ_BYTES,
    ShortFileError,
    combine_crcs,
    crc_and_md5,
    crc_of,
    hash_range,
    holds_crc,
    md5_of,
    multipart_etag,
    new_sha256,
    read_crc64,
    read_hex_crc64,
    spell_crc64,
    spell_hex_crc64,
    spell_md5,
)

SIZE = 2 * READ_BYTES + 4321
OFFSET = 1234

# They hash names, secrets and texts of their own, never what is in a file or an object.
HASHES_OTHER_THINGS = {
    "app/clients.py": "the name of a memo, of an endpoint",
    "jobs/sources/asked.py": "the name of a job that a source knows by one of its own",
    "model/job.py": "the key that tells one job from another",
    "model/names.py": "names that are too long, and the mark of a folder",
    "storage/redis/scripts.py": "the SHA-1 by which Redis knows a script",
    "temporal/desk.py": "the key by which a folder gets its turns",
    "temporal/signing.py": "a signature",
    "transfer/locked_file.py": "names of files that belong to keys",
    "watch/folder_marks.py": "what a file system tells of a folder",
    "web/credentials.py": "a password, before it is compared, and a signature",
    "web/page.py": "the version of a page",
    "jobs/callbacks/messages.py": "the id of a message",
    "jobs/webhook_signatures.py": "signatures",
    "jobs/sources/surrealdb.py": "the id of a row",
    "results/surrealdb.py": "the id of a row",
}
KNOWN_DIGESTS = {"hashlib", "awscrt", "zlib"}


@pytest.fixture(scope="module")
def data() -> bytes:
    return Random(5).randbytes(OFFSET + SIZE)


@pytest.fixture
def fd(data: bytes, tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_one_pass_gives_every_digest_of_a_range(fd: int, data: bytes) -> None:
    wanted, sha256 = data[OFFSET:], new_sha256()
    found = crc_and_md5(fd, OFFSET, OFFSET + SIZE, also=(sha256,))
    assert found == (crc64nvme(wanted), hashlib.md5(wanted).hexdigest())
    assert sha256.hexdigest() == hashlib.sha256(wanted).hexdigest()
    assert hash_range(fd, OFFSET, OFFSET + SIZE) == crc_of(wanted)
    assert hash_range(fd, OFFSET, OFFSET) == 0


def test_a_file_that_is_shorter(fd: int, data: bytes) -> None:
    with pytest.raises(ShortFileError):
        hash_range(fd, 0, len(data) + 1)
    assert crc_and_md5(fd, 0, len(data) + 1) is None
    assert not holds_crc(fd, 0, len(data) + 1, crc_of(data))
    assert holds_crc(fd, 0, len(data), crc_of(data))
    assert not holds_crc(fd, 0, len(data) - 1, crc_of(data))


def test_a_stop_ends_it_within_one_read(fd: int, data: bytes) -> None:
    asked: list[bool] = []

    def is_stopped() -> bool:
        asked.append(True)
        return len(asked) > 1

    with pytest.raises(ShortFileError):
        hash_range(fd, 0, len(data), is_stopped=is_stopped)
    assert len(asked) == 2
    assert not holds_crc(fd, 0, len(data), crc_of(data), is_stopped=lambda: True)


def test_a_whole_from_its_parts(data: bytes) -> None:
    cuts = [data[:100], data[100:5000], data[5000:]]
    assert combine_crcs((crc_of(cut), len(cut)) for cut in cuts) == crc_of(data)
    joined = b"".join(hashlib.md5(cut).digest() for cut in cuts)
    assert multipart_etag(map(md5_of, cuts)) == f"{hashlib.md5(joined).hexdigest()}-3"
    assert multipart_etag(["no digest"]) == ""


@pytest.mark.parametrize("crc64", [0, 1, 0xAE8B14860A799888, 2**64 - 1])
def test_a_crc_is_read_as_it_was_written(crc64: int) -> None:
    assert read_crc64(spell_crc64(crc64)) == crc64
    assert read_hex_crc64(spell_hex_crc64(crc64)) == crc64


def test_how_checksums_are_written() -> None:
    crc64 = crc_of(b"123456789")
    assert (spell_hex_crc64(crc64), spell_crc64(crc64)) == ("ae8b14860a799888", "rosUhgp5mIg=")
    assert spell_md5(md5_of(b"")) == "1B2M2Y8AsgTpgAmY7PhCfg=="


@pytest.mark.parametrize("text", [None, "", "AAAAAAAAAAA=-3", "AAAA", "no base64", "\udcff"])
def test_what_is_no_crc_of_a_whole(text: str | None) -> None:
    assert read_crc64(text) is None
    assert read_hex_crc64(text) is None


def test_nobody_else_computes_checksums_of_recordings() -> None:
    package = Path(cefmp4.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if KNOWN_DIGESTS & set(_imports(path))
    }
    home = str(Path(digests.__file__).relative_to(package))
    assert found - {home} == set(HASHES_OTHER_THINGS)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
