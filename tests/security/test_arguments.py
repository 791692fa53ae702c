"""What other users of the machine see of ffmpeg while it reads an object: its arguments, and the
port of the one that reads for it. Neither gives them a signature, a token or a byte."""

import asyncio
import base64
import http.client
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from tests.support.fake_store import FakeObjectStore
from tests.support.hls_media import NEEDS_FFMPEG, encoder, recording, sink_of
from tests.support.other_user import needs_two_users, run_as_other, start_as_other
from tests.support.servers import S3Place

from cefmp4 import proc
from cefmp4.errors import CefError, PermanentError, TransientError
from cefmp4.hls.encode import HlsOptions
from cefmp4.hls.encoders import EncoderChooser
from cefmp4.hls.make import HlsEncoder
from cefmp4.hls_job import HlsJobs
from cefmp4.jobs.steps import StepContext
from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.loopback import Loopback
from cefmp4.media.source import MediaSource
from cefmp4.model.job import JobInput, JobKind, JobSpec, SlotKind
from cefmp4.storage.s3.store import open_s3_store

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]

SECRET = re.compile(rb"signature|credential|x-amz|token|proxy", re.IGNORECASE)


class Bytes:
    """An object that the store reads as `trouble` says; each error is raised once."""

    def __init__(self, data: bytes, *trouble: CefError | None) -> None:
        self.data = data
        self.size = len(data)
        self._trouble = list(trouble)

    async def read(self, start: int, end: int) -> bytes:
        if self._trouble and (error := self._trouble.pop(0)):
            raise error
        return self.data[start:end]


def port_of(loopback: MediaSource) -> int:
    return int(loopback.environment["http_proxy"].rpartition(":")[2])


async def ask(
    loopback: MediaSource, wanted: str = "", *, url: str = "", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    def talk() -> tuple[int, dict[str, str], bytes]:
        password = loopback.environment["http_proxy"].partition("//")[2].partition("@")[0]
        headers = {"Proxy-Authorization": "Basic " + base64.b64encode(password.encode()).decode()}
        connection = http.client.HTTPConnection("127.0.0.1", port_of(loopback), timeout=10)
        headers |= {"Range": wanted} if wanted else {}
        connection.request(method, url or loopback.url, headers=headers)
        reply = connection.getresponse()
        try:
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    return await asyncio.to_thread(talk)


def spying(folder: Path, program: str) -> str:
    """The program, whose arguments are written down first."""
    spy = folder / program
    spy.write_text(
        f'#!/bin/sh\ntr "\\0" "\\n" </proc/$$/cmdline >>{folder}/seen\nexec {program} "$@"\n'
    )
    spy.chmod(0o755)
    return str(spy)


async def test_the_arguments_hold_nothing_secret(s3_server: S3Place, tmp_path: Path) -> None:
    bucket = await s3_server.new_bucket()
    data = recording(tmp_path, seconds=3).read_bytes()
    using = HlsEncoder(
        chooser=EncoderChooser(program="ffmpeg", use_gpu=False),
        options=HlsOptions(
            program=spying(tmp_path, "ffmpeg"),
            rungs=(180,),
            ffprobe=Ffprobe(program=spying(tmp_path, "ffprobe")),
        ),
    )
    async with open_s3_store(s3_server.config(bucket)) as store:
        await store.put_object(
            "a.mp4", data, content_type="video/mp4", metadata={}, crc64=crc64nvme(data)
        )
        jobs = HlsJobs(
            store=store, bucket=bucket, encoder=using, results=(), watch_dir=str(tmp_path)
        )
        spec = JobSpec(subject="s", kind=JobKind.HLS, input=JobInput(key="a.mp4"))
        made = await jobs.make(
            StepContext(
                spec=spec,
                attempt="a1",
                slot=SlotKind.CPU,
                folder=tmp_path,
                report=lambda _: None,
                ended=asyncio.Event(),
            )
        )
    assert made.summary["duration_seconds"] == pytest.approx(3, abs=0.1)
    seen = (tmp_path / "seen").read_bytes()
    assert not SECRET.search(seen)
    assert b"https" not in seen
    assert s3_server.endpoint_url.encode() not in seen
    assert seen.count(b"http://recording/object") >= 3


ATTACK = """
import http.client, sys
port, pid = int(sys.argv[1]), sys.argv[2]
try:
    print(open(f"/proc/{pid}/environ").read())
except PermissionError:
    print("closed")
for url in ("/", "/object", "http://recording/object", "http://recording:80/object"):
    for word in ("", "Basic am9iOg==", "Basic ", "Bearer x", "Basic " + "A" * 43):
        talk = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        talk.request("GET", url, headers={"Proxy-Authorization": word} if word else {})
        reply = talk.getresponse()
        print(reply.status, len(reply.read()))
"""


@needs_two_users
async def test_another_user_who_finds_the_port_gets_nothing() -> None:
    async with (
        Loopback(Bytes(os.urandom(1 << 20))).open() as loopback,
        proc.streaming(
            ["sleep", "60"], cpu_limit_s=60, environment=loopback.environment
        ) as process,
    ):
        words = str(port_of(loopback)), str(process.pid)
        attack = await asyncio.to_thread(run_as_other, ATTACK, *words)
    assert not attack.errors
    assert attack.output.splitlines() == ["closed", *["407 0"] * 20]


FLOOD = """
import socket, sys, time
held = []
print("ready", flush=True)
while True:
    try:
        held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    except OSError:
        pass
    if len(held) > 200:
        held.pop(0).close()
    time.sleep(0.002)
"""


@needs_two_users
async def test_another_user_who_floods_the_port_stops_nothing(tmp_path: Path) -> None:
    data = recording(tmp_path, seconds=2).read_bytes()
    async with Loopback(Bytes(data)).open() as loopback:
        flood = start_as_other(FLOOD, str(port_of(loopback)))
        try:
            assert flood.stdout
            assert await asyncio.to_thread(flood.stdout.readline) == "ready\n"
            done = await encoder(may_copy=True).encode(loopback, sink_of(FakeObjectStore()))
            assert flood.poll() is None
        finally:
            flood.kill()
            await asyncio.to_thread(flood.communicate)
    assert done.duration_s == pytest.approx(2, abs=0.1)


async def test_what_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    """As where an encode takes hours: every piece is a request of its own."""
    data = recording(tmp_path, "-b:v", "4M", seconds=8).read_bytes()
    away = TransientError("the store is away")
    object_ = Bytes(data, *[None, away] * 3)
    async with Loopback(object_).open() as source:
        done = await encoder(may_copy=True).encode(source, sink_of(FakeObjectStore()))
    assert done.duration_s == pytest.approx(8, abs=0.1)


async def test_ranges() -> None:
    data = os.urandom(3 << 20)
    async with Loopback(Bytes(data)).open() as loopback:
        status, headers, body = await ask(loopback, "bytes=0-")
        assert (status, body) == (206, data)
        assert headers["Content-Range"] == f"bytes 0-{len(data) - 1}/{len(data)}"
        assert (await ask(loopback, "bytes=2000000-2000009"))[2] == data[2_000_000:2_000_010]
        assert (await ask(loopback))[::2] == (200, data)
        assert (await ask(loopback, method="HEAD"))[::2] == (200, b"")
        assert (await ask(loopback, f"bytes={len(data)}-"))[0] == 416
        assert (await ask(loopback, url="http://recording/other"))[0] == 404
        assert (await ask(loopback, url="http://127.0.0.1/object"))[0] == 404


@pytest.mark.parametrize(
    ("error", "status"), [(TransientError("away"), 503), (PermanentError("another"), 410)]
)
async def test_what_the_store_says_comes_through(error: CefError, status: int) -> None:
    async with Loopback(Bytes(b"x" * 10, error)).open() as loopback:
        assert (await ask(loopback))[0] == status


async def test_a_header_without_end_is_not_waited_for() -> None:
    async with Loopback(Bytes(b"x")).open() as loopback:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(loopback))
        writer.write(b"GET http://recording/object HTTP/1.1\r\nX: " + b"x" * 100_000)
        with suppress(ConnectionError):
            async with asyncio.timeout(10):
                assert await reader.read() == b""
        writer.close()
