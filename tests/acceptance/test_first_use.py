"""The first ten minutes of a new user: `cefmp4 up` in an empty folder, and what one gets wrong."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.ports import free_port
from tests.support.servers import SwiftServer, ValkeyServer
from tests.support.service import open_site, reached
from tests.support.terminal import Answer, Running, cefmp4, store_of, up
from tests.writers.recording import Recording

from cefmp4.model import names
from cefmp4.recording.digests import crc_of
from cefmp4.storage.s3.store import S3Store, open_s3_store

pytestmark = [
    pytest.mark.integration,
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="session"),
]

PATIENCE_S = 30.0
STOP_S = 10.0
WATCHED = "local_watch_dir"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two small real recordings that differ."""
    folder = tmp_path_factory.mktemp("recordings")
    return [Recording(folder / "r.mp4", seconds, 0, folder).content for seconds in (0.4, 0.6)]


async def stream_of(folder: Path, name: str) -> dict[str, Any]:
    """What `streams ls` and `streams show` tell of a file."""
    listed = await cefmp4(folder, "streams", "ls", "--json")
    assert listed.code == 0, listed.err
    views = [json.loads(line) for line in listed.out.splitlines()]
    (view,) = [view for view in views if view["relpath"] == name]
    shown = await cefmp4(folder, "streams", "show", view["id"], "--json")
    assert shown.code == 0, shown.err
    found: dict[str, Any] = json.loads(shown.out)
    return found


async def test_up_from_nothing_to_a_second_start(tmp_path: Path, recordings: list[bytes]) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    port = str(free_port())
    async with up(folder, PROM_PORT=port) as running:
        await running.says("Drop a recording into the folder")
        (folder / WATCHED / "first.mp4").write_bytes(recordings[0])
        await running.says("stored and proven")
        assert "first.mp4" in running.said
        first = await stream_of(folder, "first.mp4")
        assert first["state"] in ("described", "handed_over")
        async with open_s3_store(store_of(folder)) as store:
            await check_object(store, first, recordings[0])
            await look_around(folder)
            await check_verify(folder, store, first)
            await running.says("only the dates of a stored file changed")  # as it found itself
            object_before = await store.head(first["key"])
        await stop(running)
    (folder / WATCHED / "second.mp4").write_bytes(recordings[1])
    async with up(folder, PROM_PORT=port) as running:
        await running.says("stored and proven")
        second = await stream_of(folder, "second.mp4")
        async with open_s3_store(store_of(folder)) as store:
            await check_object(store, second, recordings[1])
            assert await store.head(first["key"]) == object_before
        again = await stream_of(folder, "first.mp4")
        assert (again["id"], again["generation"]) == (first["id"], 1)
        await stop(running)


async def check_object(store: S3Store, stream: dict[str, Any], content: bytes) -> None:
    assert await store.read(stream["key"]) == content
    document = json.loads(await store.read(names.metadata_key(stream["key"])))
    assert document["stream_id"] == stream["id"]
    assert document["total_size_bytes"] == len(content)
    assert document["playable"] is True
    assert document["duration_seconds"] > 0


async def look_around(folder: Path) -> None:
    status = await cefmp4(folder, "status")
    assert (status.code, status.err) == (0, "")
    assert "first.mp4" in status.out
    assert "1 described" in status.out or "1 handed over" in status.out
    doctor = await cefmp4(folder, "doctor", "--json")
    found = [json.loads(line) for line in doctor.out.splitlines()]
    assert [entry for entry in found if entry["level"] == "fail"] == []
    assert doctor.code == 0


async def check_verify(folder: Path, store: S3Store, stream: dict[str, Any]) -> None:
    """`first.mp4` is as it was when this ends."""
    assert (await cefmp4(folder, "verify")).code == 0
    path = folder / WATCHED / "first.mp4"
    assert (await cefmp4(folder, "verify", str(path))).code == 0
    key, content = stream["key"], await store.read(stream["key"])
    etag = await put(store, key, content[:-1] + b"?")
    changed = await cefmp4(folder, "verify")
    assert changed.code == 1
    assert "DIFFERENT  first.mp4: other bytes in part 1" in changed.out
    assert await put(store, key, content) != etag
    before = path.stat()
    with path.open("r+b") as writer:  # one that stays, so that it is not stored meanwhile
        writer.write(b"!")
        writer.flush()
        assert (await cefmp4(folder, "verify", "first.mp4")).code == 1
        writer.seek(0)
        writer.write(content[:1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await cefmp4(folder, "verify")).code == 0


async def put(store: S3Store, key: str, content: bytes) -> str:
    return await store.put_object(
        key, content, content_type="video/mp4", metadata={}, crc64=crc_of(content)
    )


async def stop(running: Running) -> None:
    """Ctrl-C ends it and all that it started."""
    processes = running.processes
    assert len(processes) > 2
    assert await running.ctrl_c(STOP_S) == 0
    _, left = psutil.wait_procs(processes, timeout=0)
    assert left == []
    assert "Traceback" not in running.said


# What one gets wrong.

WRONG = {
    "a value that is none": ({"CHUNK_SIZE_BYTES": "ten"}, 2, "CHUNK_SIZE_BYTES=ten"),
    "a value too small": ({"CHUNK_SIZE_BYTES": "1"}, 2, "CHUNK_SIZE_BYTES=1"),
    "an unknown word": ({"AFTER_UPLOAD": "burn"}, 2, "AFTER_UPLOAD=burn"),
    "a level that is none": ({"LOG_LEVEL": "LOUD"}, 2, "LOG_LEVEL=LOUD"),
    "a template without a name": ({"S3_KEY_TEMPLATE": "all"}, 2, "S3_KEY_TEMPLATE=all"),
    "half of the credentials": ({"S3_SECRET_ACCESS_KEY": ""}, 2, "S3_SECRET_ACCESS_KEY"),
    "no such key": ({"S3_ACCESS_KEY_ID": "test:who"}, 2, "S3_ACCESS_KEY_ID"),
    "a wrong secret": ({"S3_SECRET_ACCESS_KEY": "wrong-secret"}, 2, "S3_SECRET_ACCESS_KEY"),
    "no such bucket": ({"S3_BUCKET_NAME": "no-such-bucket"}, 2, "S3_BUCKET_NAME"),
    "no such folder": ({"WATCH_DIR": "/no/such/folder"}, 2, "WATCH_DIR=/no/such/folder"),
    "no Redis named": ({"REDIS_URL": ""}, 2, "REDIS_URL"),
    "an address that is none": ({"REDIS_URL": "localhost"}, 2, "REDIS_URL"),
    "S3 out of reach": ({"S3_ENDPOINT_URL": "http://127.0.0.1:1"}, 3, "S3_ENDPOINT_URL"),
    "Redis out of reach": ({"REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}, 3, "REDIS_URL"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_one_line_says_what_is_wrong(
    mistake: str, s3_server: SwiftServer, redis_server: ValkeyServer, tmp_path: Path
) -> None:
    changes, code, named = WRONG[mistake]
    answer = await ingest_with(s3_server, redis_server, tmp_path, **changes)
    check_refusal(answer, code, named)


async def test_a_folder_that_up_cannot_make(tmp_path: Path) -> None:
    answer = await cefmp4(tmp_path, "up", WATCH_DIR="/dev/null/recordings")
    check_refusal(answer, 2, "WATCH_DIR=/dev/null/recordings: Not a directory")


async def test_a_port_that_is_taken(
    s3_server: SwiftServer, redis_server: ValkeyServer, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = await ingest_with(s3_server, redis_server, tmp_path, PROM_PORT=port)
    check_refusal(answer, 2, f"PROM_PORT={port}")


async def ingest_with(
    s3_server: SwiftServer, redis_server: ValkeyServer, folder: Path, **changes: str
) -> Answer:
    settings = {
        **s3_server.environment,
        "S3_BUCKET_NAME": await s3_server.new_bucket(),
        "REDIS_URL": redis_server.url,
        "WATCH_DIR": str(folder),
        "HANDOVER_JOBS": "none",
        "PROM_PORT": "0",
        "STARTUP_TIMEOUT_SECONDS": "1",
    }
    return await cefmp4(folder, "ingest", **settings | changes)


def check_refusal(answer: Answer, code: int, named: str) -> None:
    assert answer.code == code, answer.err
    errors = [line for line in answer.lines if line.startswith("error: ")]
    assert len(errors) == 1, answer.err
    assert named in errors[0]
    assert answer.lines[-1] == errors[0]
    assert "Traceback" not in answer.err
    assert "hidden" not in answer.err
    assert "wrong-secret" not in answer.err
    assert answer.out == ""


# After the upload.


@pytest.mark.parametrize("action", ["delete", "move", "move below"])
async def test_local_files_after_their_upload(
    action: str, s3_server: SwiftServer, tmp_path: Path, recordings: list[bytes]
) -> None:
    away = tmp_path / ("watched/done" if action == "move below" else "away")
    setting = f"move:{away}" if action != "delete" else "delete"
    async with open_site(s3_server, tmp_path, AFTER_UPLOAD=setting) as site:
        file = site.watched / "camera" / "r.mp4"
        file.parent.mkdir()
        file.write_bytes(recordings[0])
        await site.service.start()

        async def is_gone() -> bool:
            return not file.exists()

        assert await reached(is_gone, PATIENCE_S)
        last = site.watched / "last.mp4"  # what was moved would be known as well by then
        last.write_bytes(recordings[0] + b"free")

        async def is_last_gone() -> bool:
            return not last.exists()

        assert await reached(is_last_gone, PATIENCE_S)
        streams = await site.streams()
        assert sorted(streams) == ["camera/r.mp4", "last.mp4"]
        assert await site.store.read(streams["camera/r.mp4"].key) == recordings[0]
        assert await site.service.stop() == 0
    moved = sorted(path.relative_to(away) for path in away.rglob("*.mp4"))
    assert moved == ([] if action == "delete" else [Path("camera/r.mp4"), Path("last.mp4")])
