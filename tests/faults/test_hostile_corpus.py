"""Small real recordings with bytes changed, cut, doubled and zeroed, and headers that promise more
than any file holds: the probe ends in time, within its memory, and says what it knows."""

import asyncio
import os
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.probe import FfprobeMediaProbe
from cefmp4.media.structure import find_problem
from cefmp4.model.media import MediaInfo
from cefmp4.model.part import MIB

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="needs ffmpeg and ffprobe"
    ),
]

TIMEOUT_S = 10.0
TRIES = 3  # the header, the last packets, the first packet: each has that time
SEED = int(os.environ.get("CEFMP4_SEED", "7"))
MUTANTS = 40  # of each recording, for ffprobe
QUICK_MUTANTS = 1500  # of each, for our own reader of structures
USUAL = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
FORMS = {
    "plain.mp4": USUAL,
    "fragmented.mp4": (*USUAL, "-movflags", "frag_keyframe+empty_moov"),
    "clip.mkv": USUAL,
    "clip.ts": USUAL,
    "clip.avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
}


@pytest.fixture(name="corpus", scope="module")
def _corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("corpus")
    made = {}
    for name, options in FORMS.items():
        command = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc=s=64x48:r=10"]
        command += ["-f", "lavfi", "-i", "sine", "-t", "1", "-b:v", "40k", "-b:a", "24k"]
        subprocess.run([*command, *options, str(folder / name)], check=True, timeout=60)
        made[name] = (folder / name).read_bytes()
    return made


def mutants(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """The first bytes are hit as often as all others together: they are the headers."""
    draw = Random(seed)
    for _ in range(count):
        made = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 5, 20])):
            end = draw.choice([min(400, len(made)), len(made)])
            at = draw.randrange(max(1, end))
            match draw.randrange(6):
                case 0:
                    made[at : at + 1] = bytes([draw.randrange(256)])
                case 1:
                    made[at : at + 4] = draw.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
                case 2:
                    del made[at : at + draw.randrange(1, 200)]
                case 3:
                    made[at:at] = made[at : at + draw.randrange(1, 200)]
                case 4:
                    made[at:at] = draw.randbytes(draw.randrange(1, 64))
                case _:
                    del made[max(at, 16) :]
        yield bytes(made)


async def look(path: Path, timeout_s: float = TIMEOUT_S) -> MediaInfo:
    """In bounded time, and with a reason for whatever is not playable."""
    probe = FfprobeMediaProbe(Ffprobe(timeout_s=timeout_s, memory_bytes=1024 * MIB))
    started = time.monotonic()
    with path.open("rb") as file:
        media = await probe.probe(file.fileno())
    assert time.monotonic() - started < TRIES * timeout_s + 5
    assert media.playable is True or media.reason
    assert media.reason.isprintable()
    return media


@pytest.mark.parametrize("name", FORMS)
async def test_mutants_get_a_verdict(name: str, corpus: dict[str, bytes], tmp_path: Path) -> None:
    slots = asyncio.Semaphore(2)

    async def examine(number: int, data: bytes) -> None:
        path = tmp_path / f"{number}.mp4"
        async with slots:
            path.write_bytes(data)
            await look(path)
            path.unlink()

    async with asyncio.TaskGroup() as tasks:
        for number, data in enumerate(mutants(corpus[name], SEED, MUTANTS)):
            tasks.create_task(examine(number, data), name=f"{name} {number} of seed {SEED}")


@pytest.mark.parametrize("name", FORMS)
def test_structures_of_mutants(name: str, corpus: dict[str, bytes], tmp_path: Path) -> None:
    with (tmp_path / "mutant").open("w+b") as file:
        for data in mutants(corpus[name], SEED + 1, QUICK_MUTANTS):
            file.seek(0)
            file.truncate()
            file.write(data)
            file.flush()
            assert isinstance(find_problem(file.fileno()), str)


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def movie(*tracks: bytes) -> bytes:
    mvhd = box(b"mvhd", bytes(12), struct.pack(">II", 1000, 3_600_000), bytes(80))
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"moov", mvhd, *tracks)


def track(*tables: bytes) -> bytes:
    """A picture track with these sample tables."""
    entry = box(b"avc1", bytes(6), b"\0\1", bytes(16), struct.pack(">HH", 64, 48), bytes(50))
    stbl = box(b"stbl", box(b"stsd", bytes(4), struct.pack(">I", 1), entry), *tables)
    minf = box(b"minf", box(b"vmhd", bytes(12)), box(b"dinf"), stbl)
    mdhd = box(b"mdhd", bytes(12), struct.pack(">IIHH", 90_000, 90_000 * 3600, 0, 0))
    mdia = box(b"mdia", mdhd, box(b"hdlr", bytes(8), b"vide", bytes(13)), minf)
    tkhd = box(b"tkhd", struct.pack(">IIIIII", 1, 0, 0, 1, 0, 3_600_000), bytes(60))
    return box(b"trak", tkhd, mdia)


MOST = 0xFFFF_FFFF


def tables_that_promise(count: int) -> tuple[bytes, ...]:
    """Entries by the billion, hardly any of them there."""
    return (
        box(b"stts", bytes(4), struct.pack(">III", count, count, 1)),
        box(b"ctts", bytes(4), struct.pack(">III", count, count, 1)),
        box(b"stsc", bytes(4), struct.pack(">IIII", count, 1, 1, 1)),
        box(b"stsz", bytes(4), struct.pack(">II", 0, count)),
        box(b"co64", bytes(4), struct.pack(">IQ", count, 1 << 60)),
        box(b"stss", bytes(4), struct.pack(">II", count, 1)),
    )


def hours_of_samples(count: int) -> bytes:
    """An honest table for every single sample, as hours of small ones need it."""
    return track(
        box(b"stts", bytes(4), struct.pack(">I", count), struct.pack(">II", 1, 1800) * count),
        box(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, 1, 1)),
        box(b"stsz", bytes(4), struct.pack(">II", 0, count), b"\0\0\0\1" * count),
        box(b"stco", bytes(4), struct.pack(">I", count), b"\0\0\0\x30" * count),
    )


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(b"moov", data)
    return box(b"ftyp", b"isom", bytes(4)) + data


def element(kind: str, body: bytes) -> bytes:
    return bytes.fromhex(kind) + (len(body) | 1 << 56).to_bytes(8, "big") + body


def matroska_bomb() -> bytes:
    """A quarter of a megabyte of private data that unpacks to a thousand times as much."""
    packer = zlib.compressobj(5)
    packed = b"".join(packer.compress(bytes(16 * MIB)) for _ in range(16)) + packer.flush()
    compression = element("5034", element("4254", b"\0"))  # zlib
    encoding = element("6240", element("5032", b"\2") + compression)  # of the private data
    entry = element("D7", b"\1") + element("73C5", b"\1") + element("83", b"\1")
    entry += element("86", b"V_MPEG4/ISO/AVC") + element("6D80", encoding)
    tracks = element("1654AE6B", element("AE", entry + element("63A2", packed)))
    head = element("1A45DFA3", element("4282", b"matroska"))
    return head + element("18538067", element("1549A966", element("2AD7B1", b"\1")) + tracks)


HEADERS: dict[str, Callable[[], bytes]] = {
    "no streams": lambda: movie() + box(b"mdat", bytes(1000)),
    "billions of samples": lambda: movie(track(*tables_that_promise(MOST))),
    "millions of samples": lambda: movie(track(*tables_that_promise(50_000_000))),
    "hundreds of tracks": lambda: movie(*[track(*tables_that_promise(9))] * 3000),
    "nested": lambda: nested(20_000),
    "unpacks to a thousand times its size": matroska_bomb,
    "sizes beyond everything": lambda: b"\0\0\0\1moov" + b"\xff" * 64,
}


@pytest.mark.parametrize("name", HEADERS)
async def test_headers_that_promise_too_much(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.mp4"
    path.write_bytes(HEADERS[name]())
    media = await look(path)
    assert media.playable is not True
    assert len(media.tracks) <= 1000


async def test_a_header_for_hours_of_small_samples(tmp_path: Path) -> None:
    """Long, and honest."""
    path = tmp_path / "r.mp4"
    path.write_bytes(movie(hours_of_samples(3_000_000)) + box(b"mdat", b"\0"))
    media = await look(path)
    assert media.duration_seconds == 3600


async def test_a_limit_that_is_hit_is_the_verdict(tmp_path: Path) -> None:
    """The real ffprobe, which has work for much longer than it gets."""
    path = tmp_path / "r.mp4"
    path.write_bytes(movie(*[hours_of_samples(400_000)] * 8) + box(b"mdat", b"\0"))
    media = await look(path, timeout_s=0.05)
    assert media.playable is None
    assert "FFPROBE_TIMEOUT_SECONDS" in media.reason
