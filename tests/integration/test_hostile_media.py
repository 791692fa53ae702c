"""Files that pretend to be recordings, to make ffprobe read other files or talk to servers.

Every bait is shown to work first: with its format forced and its protocols allowed, ffprobe does
open the canary or connect. Then the probe must do neither."""

import asyncio
import ctypes
import os
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.probe import FfprobeMediaProbe
from cefmp4.model.part import MIB

pytestmark = pytest.mark.skipif(not shutil.which("ffprobe"), reason="needs ffprobe")

IN_OPEN, IN_ACCESS = 0x20, 0x01


class Canary:
    """A file that tells whether anybody opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"G" + b"\0" * 187)
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        assert libc.inotify_add_watch(self.fd, os.fsencode(path), IN_OPEN | IN_ACCESS) >= 0

    def was_touched(self) -> bool:
        """The kernel queues the event inside the open itself: there is nothing to wait for."""
        try:
            return bool(os.read(self.fd, 4096))
        except BlockingIOError:
            return False


@dataclass
class Listener:
    port: int
    calls: int = 0

    async def answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        writer.close()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    made = Canary(tmp_path / "canary.ts")
    yield made
    os.close(made.fd)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener(0)
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


HLS_FILE = """#EXTM3U
#EXT-X-VERSION:3
#EXT-X-TARGETDURATION:10
#EXT-X-MEDIA-SEQUENCE:0
#EXTINF:10.0,
{target}
#EXT-X-ENDLIST
"""
DASH = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT10S"
 profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1000" codecs="avc1.42c00d"><BaseURL>{target}</BaseURL>
<SegmentBase indexRange="0-100"/></Representation></AdaptationSet></Period></MPD>
"""
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
BAITS = {"hls": HLS_FILE, "dash": DASH, "concat": CONCAT}


async def look(path: Path) -> tuple[bool | None, str]:
    probe = FfprobeMediaProbe(Ffprobe(timeout_s=20, memory_bytes=1024 * MIB))
    with path.open("rb") as file:
        media = await probe.probe(file.fileno())
    return media.playable, media.reason


async def careless_ffprobe(form: str, path: Path) -> None:
    """What a service without protection would run on a file of this format."""
    options = ["-safe", "0"] if form == "concat" else []
    options += ["-allowed_extensions", "ALL"] if form == "hls" else []
    allowed = ["-protocol_whitelist", "file,http,tcp,udp,rtp,crypto,data"]
    command = ["ffprobe", "-v", "error", *allowed, "-f", form, *options, "-i", str(path)]
    child = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


@pytest.mark.parametrize("form", ["hls", "dash", "concat"])
async def test_no_other_file_is_opened(form: str, tmp_path: Path, canary: Canary) -> None:
    bait = tmp_path / "recording.mp4"
    bait.write_text(BAITS[form].format(target=canary.path))
    await careless_ffprobe(form, bait)
    assert canary.was_touched(), "the bait does not work"
    playable, reason = await look(bait)
    assert not canary.was_touched()
    assert playable is False
    assert reason


@pytest.mark.parametrize("form", ["hls", "dash", "concat"])
async def test_no_connection_is_made(form: str, tmp_path: Path, listener: Listener) -> None:
    bait = tmp_path / "recording.mp4"
    bait.write_text(BAITS[form].format(target=f"http://127.0.0.1:{listener.port}/segment.ts"))
    await careless_ffprobe(form, bait)
    assert listener.calls, "the bait does not work"
    before = listener.calls
    playable, _ = await look(bait)
    assert listener.calls == before
    assert playable is False


@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.mpd", "a.sdp", "a.ts", "a.ffconcat"])
async def test_the_name_does_not_choose_the_format(
    name: str, tmp_path: Path, listener: Listener, canary: Canary
) -> None:
    for text in (*BAITS.values(), "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n"):
        for target in (str(canary.path), f"http://127.0.0.1:{listener.port}/"):
            (tmp_path / name).write_text(text.format(target=target, port=listener.port))
            playable, _ = await look(tmp_path / name)
            assert playable is False
    assert listener.calls == 0
    assert not canary.was_touched()


async def test_a_session_description_opens_no_socket(tmp_path: Path, listener: Listener) -> None:
    """An SDP file makes a careless ffprobe listen on a UDP port for as long as it likes."""
    (tmp_path / "a.mp4").write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {listener.port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )
    async with asyncio.timeout(10):
        playable, _ = await look(tmp_path / "a.mp4")
    assert playable is False


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def mp4_with_reference(path: bytes) -> bytes:
    """A QuickTime movie whose media lie in another file, which its `alis` reference names."""
    name = path.rsplit(b"/", 1)[-1]
    alias = bytearray(150)
    alias[10:12] = b"\0\0"
    alias[50] = len(name)
    alias[51 : 51 + len(name)] = name
    struct.pack_into(">hh", alias, 130, 1, 1)  # levels between the two files: try nearby
    record = bytes(alias) + struct.pack(">hh", 2, len(path)) + path + b"\0" * (len(path) & 1)
    record += struct.pack(">hh", 18, len(path)) + path + b"\0" * (len(path) & 1)
    record += struct.pack(">hh", -1, 0)
    dref = box(b"dref", bytes(4), struct.pack(">I", 1), box(b"alis", bytes(4), record))
    entry = struct.pack(">6xH", 1) + bytes(16) + struct.pack(">HHIIIH", 64, 64, 0, 0, 0, 1)
    entry += bytes(32) + struct.pack(">Hh", 24, -1)
    stbl = box(
        b"stbl",
        box(b"stsd", bytes(4), struct.pack(">I", 1), box(b"jpeg", entry)),
        box(b"stts", bytes(4), struct.pack(">III", 1, 10, 100)),
        box(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, 10, 1)),
        box(b"stsz", bytes(4), struct.pack(">II", 10, 10)),
        box(b"stco", bytes(4), struct.pack(">II", 1, 0)),
    )
    minf = box(b"minf", box(b"vmhd", bytes(12)), box(b"dinf", dref), stbl)
    mdhd = box(b"mdhd", bytes(12), struct.pack(">IIHH", 1000, 1000, 0, 0))
    mdia = box(b"mdia", mdhd, box(b"hdlr", bytes(4), b"mhlrvide", bytes(13)), minf)
    tkhd = box(b"tkhd", struct.pack(">IIIIII", 1, 0, 0, 1, 0, 1000), bytes(60))
    mvhd = box(b"mvhd", bytes(12), struct.pack(">II", 1000, 1000), bytes(80))
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", mvhd, box(b"trak", tkhd, mdia))


async def test_a_movie_that_refers_to_another_file(tmp_path: Path, canary: Canary) -> None:
    bait = tmp_path / "recording.mov"
    bait.write_bytes(mp4_with_reference(bytes(canary.path)))
    command = ["ffprobe", "-v", "error", "-enable_drefs", "1", "-use_absolute_path", "1", str(bait)]
    await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, timeout=20)
    assert canary.was_touched(), "the bait does not work"
    await look(bait)
    assert not canary.was_touched()


async def test_a_playlist_inside_a_subtitle_track(
    tmp_path: Path, listener: Listener, canary: Canary
) -> None:
    """AVI carries whole subtitle files, which old versions opened as whatever they looked like."""
    inner = HLS_FILE.format(target=f"http://127.0.0.1:{listener.port}/") + f"file://{canary.path}\n"
    gab2 = b"GAB2\0" + struct.pack("<HIHHI", 2, 0, 0, 4, len(inner)) + inner.encode()
    strh = b"txts" + bytes(16) + struct.pack("<IIIIIIII", 1, 1, 0, 1, 0, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)

    strl = chunk(b"LIST", b"strl" + chunk(b"strh", strh) + chunk(b"strf", b""))
    hdrl = chunk(b"LIST", b"hdrl" + chunk(b"avih", bytes(56)) + strl)
    movi = chunk(b"LIST", b"movi" + chunk(b"00tx", gab2))
    (tmp_path / "a.avi").write_bytes(chunk(b"RIFF", b"AVI " + hdrl + movi))
    playable, _ = await look(tmp_path / "a.avi")
    assert playable is False
    assert listener.calls == 0
    assert not canary.was_touched()
