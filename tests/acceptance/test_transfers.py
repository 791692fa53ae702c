"""`cefmp4 upload` and `download` as people type them, against a real S3 server: whole or not at
all, cut off and gone on with, hostile names, and what a program gets of the same."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.faults.s3_proxy import Exchange, S3Proxy
from tests.support.ports import free_port
from tests.support.servers import SwiftServer
from tests.support.terminal import cefmp4, environment

from cefmp4.ingest.uploader import object_metadata
from cefmp4.model.object import FileRange
from cefmp4.model.part import MIN_PART_BYTES, Part, PartPlan
from cefmp4.model.stream import Stream, StreamState
from cefmp4.recording.digests import combine_crcs, crc_of
from cefmp4.retry import REQUEST_ATTEMPTS
from cefmp4.storage.redis.checkpoints import open_checkpoints
from cefmp4.storage.s3.store import S3Store, open_s3_store
from cefmp4.transfer.download import PIECE_BYTES

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]
DOCUMENT = Path(__file__).parents[2] / "docs/transfer.md"
PIECES, PARTS = 6, 6
BIG = os.urandom(PIECES * PIECE_BYTES - 1000)
IN_PARTS = os.urandom(PARTS * MIN_PART_BYTES - 1000)
STREAM_ID = "20260101T000000Z-0badcafe"


class Place:
    """A bucket behind a proxy, and a folder of files."""

    def __init__(self, server: SwiftServer, bucket: str, proxy: S3Proxy, folder: Path) -> None:
        self.bucket = bucket
        self.proxy = proxy
        self.folder = folder
        self.settings = {
            **server.environment,
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "S3_BUCKET_NAME": bucket,
            "CHUNK_SIZE_BYTES": str(MIN_PART_BYTES),
            "LOG_LEVEL": "WARNING",
        }
        self._config = server.config(bucket)

    def write(self, **files: bytes) -> None:
        for name, data in files.items():
            (self.folder / name).write_bytes(data)

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def parts(self) -> list[Path]:
        return list(self.folder.rglob(".cefmp4-*.part"))

    @asynccontextmanager
    async def store(self) -> AsyncIterator[S3Store]:
        async with open_s3_store(self._config) as store:
            yield store

    async def put(self, key: str, data: bytes) -> None:
        async with self.store() as store:
            await store.put_object(key, data, content_type="", metadata={}, crc64=crc_of(data))

    async def run(self, *words: str, **settings: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """The exit code, and what it told of each key."""
        answer = await cefmp4(self.folder, *words, "--json", **(self.settings | settings))
        assert "Traceback" not in answer.err, answer.err
        return answer.code, by_key(map(json.loads, answer.out.splitlines()))

    async def killed(self, *words: str, when: str) -> None:
        """kill -9 as soon as the proxy holds a request of that kind."""
        rule = self.proxy.add(held, when, skip=3, times=100)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cefmp4", *words),
            cwd=self.folder,
            env=environment(self.settings | {"MAX_PARTS_IN_FLIGHT": "1"}),
        )
        try:
            await self.proxy.broken(rule, 1)
        finally:
            process.kill()
            await process.wait()
        self.proxy.rules.clear()
        self.proxy.calls.clear()


def by_key(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {result["key"]: result for result in results}


async def held(exchange: Exchange) -> bool:
    """Until the client goes away."""
    await exchange.reader.read()
    return False


@pytest_asyncio.fixture(loop_scope="session")
async def place(s3_server: SwiftServer, tmp_path: Path) -> AsyncIterator[Place]:
    proxy = S3Proxy(s3_server.port)
    await proxy.start()
    try:
        yield Place(s3_server, await s3_server.new_bucket(), proxy, tmp_path)
    finally:
        await proxy.stop()


async def test_there_and_back(place: Place) -> None:
    files = {"empty.mp4": b"", "one.txt": b"1", "big.mkv": IN_PARTS}
    place.write(**files)
    code, sent = await place.run("upload", *files, "--prefix", "in/2026")
    assert code == 0
    assert {result["status"] for result in sent.values()} == {"done"}
    async with place.store() as store:
        found = {key: await store.head(key) for key in sent}
    kinds = {key.rpartition("/")[2]: one.content_type for key, one in found.items() if one}
    assert kinds == {
        "empty.mp4": "video/mp4",
        "one.txt": "text/plain",
        "big.mkv": "video/x-matroska",
    }
    assert place.proxy.calls["UploadPart"] == PARTS
    code, came = await place.run("download", "in/", "--to", "out")
    assert code == 0
    assert {result["proven_by"] for result in came.values()} == {"crc64nvme"}
    assert {name: place.read(f"out/2026/{name}") for name in files} == files
    assert place.parts() == []
    place.proxy.calls.clear()
    assert (await place.run("upload", *files, "--prefix", "in/2026"))[0] == 0
    code, came = await place.run("download", "in/", "--to", "out")
    assert {(one["status"], one["moved"]) for one in came.values()} == {("present", 0)}
    assert not place.proxy.calls["UploadPart"] + place.proxy.calls["GetObject"]


async def test_a_download_that_was_killed_fetches_the_rest(place: Place) -> None:
    await place.put("big.mp4", BIG)
    await place.killed("download", "big.mp4", "--to", "out", when="GetObject")
    assert not (place.folder / "out/big.mp4").exists()
    (part,) = place.parts()
    had = part.stat().st_size
    assert had == 3 * PIECE_BYTES
    code, came = await place.run("download", "big.mp4", "--to", "out")
    assert (code, came["big.mp4"]["moved"]) == (0, len(BIG) - had)
    assert place.proxy.calls["GetObject"] == PIECES - 3
    assert place.read("out/big.mp4") == BIG
    assert place.parts() == []


async def test_of_another_object_nothing_is_gone_on_with(place: Place) -> None:
    await place.put("big.mp4", BIG)
    await place.killed("download", "big.mp4", when="GetObject")
    await place.put("big.mp4", BIG[::-1])
    code, came = await place.run("download", "big.mp4")
    assert (code, came["big.mp4"]["moved"]) == (0, len(BIG))
    assert place.read("big.mp4") == BIG[::-1]


async def test_an_upload_that_was_killed_sends_the_rest(place: Place) -> None:
    place.write(**{"big.mp4": IN_PARTS})
    await place.killed("upload", "big.mp4", when="UploadPart")
    code, sent = await place.run("upload", "big.mp4")
    assert (code, sent["big.mp4"]["moved"]) == (0, len(IN_PARTS) - 3 * MIN_PART_BYTES)
    assert place.proxy.calls["UploadPart"] == PARTS - 3
    assert place.proxy.calls["CreateMultipartUpload"] == 0
    async with place.store() as store:
        assert await store.read("big.mp4") == IN_PARTS
        assert await store.list_uploads("big.mp4") == []
    assert os.listdir(place.folder / ".cefmp4/uploads") == []


async def test_the_upload_of_a_file_that_changed_begins_anew(place: Place) -> None:
    place.write(**{"big.mp4": IN_PARTS})
    await place.killed("upload", "big.mp4", when="UploadPart")
    place.write(**{"big.mp4": IN_PARTS[::-1]})
    code, sent = await place.run("upload", "big.mp4")
    assert (code, sent["big.mp4"]["moved"]) == (0, len(IN_PARTS))
    async with place.store() as store:
        assert await store.read("big.mp4") == IN_PARTS[::-1]
        assert await store.list_uploads("big.mp4") == []


async def test_one_that_is_missing_stops_no_other(place: Place) -> None:
    for key in ("a", "c"):
        await place.put(key, key.encode())
    code, came = await place.run("download", "a", "b", "c")
    assert code == 1
    assert {key: one["status"] for key, one in came.items()} == {
        "a": "done",
        "b": "failed",
        "c": "done",
    }
    assert "no such object" in came["b"]["reason"]
    code, sent = await place.run("upload", "a", "none", "--prefix", "in")
    assert (code, sent["in/a"]["status"], sent["in/none"]["status"]) == (1, "done", "failed")


async def test_hostile_keys_stay_in_the_folder_and_out_of_the_terminal(place: Place) -> None:
    hostile = ("p/../../evil", "p/../evil", "p//evil", "p/./evil")
    for key in (*hostile, "p/\x1b[31mred\n", "p/good"):
        await place.put(key, b"bytes")
    before = set(os.listdir(place.folder))
    answer = await cefmp4(place.folder, "download", "p/", "--to", "out/in", **place.settings)
    assert answer.code == 1
    assert "\x1b" not in answer.out + answer.err
    assert "\\x1b[31mred" in answer.out
    assert len(answer.out.splitlines()) == len(hostile) + 2 + 1
    assert set(os.listdir(place.folder)) - before == {"out"}
    assert os.listdir(place.folder / "out") == ["in"]
    assert set(os.listdir(place.folder / "out/in")) == {"\x1b[31mred\n", "good"}


async def test_who_reads_no_more_stops_nothing(place: Place) -> None:
    for key in ("p/a", "p/b", "p/c"):
        await place.put(key, b"bytes")
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", "download", "p/", "--to", "out"),
        cwd=place.folder,
        env=environment(place.settings),
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said) == (0, b"")
    assert sorted(os.listdir(place.folder / "out")) == ["a", "b", "c"]


async def test_what_is_there_is_kept(place: Place) -> None:
    await place.put("a", b"theirs")
    place.write(a=b"mine")
    for way in ("download", "upload"):
        code, told = await place.run(way, "a")
        assert (code, told["a"]["status"]) == (1, "failed")
    code, _ = await place.run("download", "a", "--overwrite")
    assert (code, place.read("a")) == (0, b"theirs")
    place.write(a=b"mine")
    code, sent = await place.run("upload", "a", "--overwrite")
    assert (code, sent["a"]["status"]) == (0, "done")


async def test_the_object_of_a_stream(place: Place, redis_url: str) -> None:
    """As it was sent while it grew: its checksum is not in its metadata."""
    key = f"streams/{STREAM_ID}/a.mp4"
    stream = Stream(
        id=STREAM_ID,
        relpath="a.mp4",
        state=StreamState.FINALIZING,
        key=key,
        part_base=MIN_PART_BYTES,
    )
    await store_in_parts(place, stream)
    async with open_checkpoints(redis_url, lease_seconds=10) as checkpoints:
        lease = await checkpoints.claim(stream, "test")
        assert lease is not None
        code, came = await place.run("download", STREAM_ID, REDIS_URL=redis_url)
        assert (code, "not proven yet" in came[STREAM_ID]["reason"]) == (1, True)
        await checkpoints.save(replace(stream, state=StreamState.STORED), lease)
    code, came = await place.run("download", STREAM_ID, f"{STREAM_ID}0", REDIS_URL=redis_url)
    assert code == 1
    assert (came[key]["status"], came[key]["proven_by"]) == ("done", "md5")
    assert place.read("a.mp4") == IN_PARTS
    place.write(**{"b.mp4": b"other"})
    code, sent = await place.run("upload", "a.mp4", "--prefix", f"streams/{STREAM_ID}")
    assert (code, sent[key]["status"]) == (0, "present")
    place.write(**{"a.mp4": b"other"})
    words = ("upload", "a.mp4", "--prefix", f"streams/{STREAM_ID}", "--overwrite")
    code, sent = await place.run(*words)
    assert (code, "a recording lies there" in sent[key]["reason"]) == (1, True)


async def store_in_parts(place: Place, stream: Stream) -> None:
    place.write(**{"source": IN_PARTS})
    fd = os.open(place.folder / "source", os.O_RDONLY)
    parts = []
    async with place.store() as store:
        upload_id = await store.begin_upload(
            stream.key, content_type="video/mp4", metadata=object_metadata(stream)
        )
        for cut in PartPlan(MIN_PART_BYTES).ranges_for(len(IN_PARTS)):
            crc64 = crc_of(IN_PARTS[cut.start : cut.end])
            body = FileRange(fd, cut.start, cut.size)
            etag = await store.put_part(stream.key, upload_id, cut.number, body, crc64=crc64)
            parts.append(
                Part(number=cut.number, size=cut.size, crc64=crc64, etag=etag, uploaded_at=1.0)
            )
        crc64 = combine_crcs((part.crc64, part.size) for part in parts)
        await store.complete_upload(stream.key, upload_id, parts, crc64=crc64)
    os.close(fd)


async def test_another_bucket(place: Place, s3_server: SwiftServer) -> None:
    await place.put("a", b"of another bucket")
    settings = {"S3_BUCKET_NAME": await s3_server.new_bucket()}
    words = (f"s3://{place.bucket}/a", "s3://no-such-bucket/b", "s3:///c")
    code, came = await place.run("download", *words, **settings)
    assert code == 1
    assert came["a"]["status"] == "done"
    assert "NoSuchBucket" in came["s3://no-such-bucket/b"]["reason"]
    assert "names no bucket" in came["s3:///c"]["reason"]
    assert place.read("a") == b"of another bucket"


async def test_without_redis_only_ids_are_unknown(place: Place) -> None:
    await place.put("a", b"a")
    settings = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    code, came = await place.run("download", "a", STREAM_ID, **settings)
    assert (code, came["a"]["status"]) == (1, "done")
    assert "only Redis knows" in came[STREAM_ID]["reason"]


async def test_a_server_that_is_not_there(place: Place) -> None:
    await place.proxy.stop()
    settings = place.settings | {"STARTUP_TIMEOUT_SECONDS": "0.5"}
    place.write(a=b"a")
    for words in (("download", "a"), ("upload", "a")):
        answer = await cefmp4(place.folder, *words, **settings)
        assert (answer.code, answer.out) == (3, ""), answer
        assert "S3_ENDPOINT_URL" in answer.err


async def test_a_server_that_is_away_for_longer_than_a_request_is_tried(place: Place) -> None:
    await place.put("big.mp4", BIG)
    place.write(**{"parts.mp4": IN_PARTS})
    for operation in ("GetObject", "UploadPart"):
        place.proxy.add(reset, operation, skip=1, times=2 * REQUEST_ATTEMPTS)
    code, came = await place.run("download", "big.mp4", MAX_PARTS_IN_FLIGHT="1")
    assert (code, came["big.mp4"]["moved"]) == (0, len(BIG))
    code, sent = await place.run("upload", "parts.mp4", MAX_PARTS_IN_FLIGHT="1")
    assert (code, sent["parts.mp4"]["moved"]) == (0, len(IN_PARTS))
    assert [rule.hits for rule in place.proxy.rules] == [2 * REQUEST_ATTEMPTS] * 2
    assert place.read("big.mp4") == BIG


async def reset(exchange: Exchange) -> bool:
    return exchange.reset()


@pytest.mark.parametrize("words", [("--to", "a/file"), ("--to", "/proc/none")])
async def test_a_folder_that_cannot_be(place: Place, words: tuple[str, ...]) -> None:
    place.write(a=b"a file")
    answer = await cefmp4(place.folder, "download", "key", *words, **place.settings)
    assert answer.code == 2
    assert answer.err.startswith(f"error: --to {words[1]}: ")


async def test_the_example_of_the_document(place: Place) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    place.write(**{"a.mp4": IN_PARTS, "b.mp4": b"b"})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error::ResourceWarning", "-c", example),
        cwd=place.folder,
        env=environment(place.settings),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    lines = out.decode().splitlines()
    assert process.returncode == 0
    assert sorted(line.split()[0] for line in lines) == ["done", "done", "done", "failed"]
    assert place.read("copies/a.mp4") == IN_PARTS
