"""What is seen is what was recorded: the numbers of bars of known colours are decoded from what
players get, as they would: by what its own tags say, or, without any, as its size suggests."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.support.hls_media import NEEDS_FFMPEG, Encoded, encode, ffmpeg
from tests.support.odd_media import media

from cefmp4.hls.result import Tier
from cefmp4.model.rendition import CodecChoice

pytestmark = [pytest.mark.integration, NEEDS_FFMPEG]
BARS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (128, 128, 128))
NEAR = 8  # of 255: subsampled, limited, and compressed twice
Color = tuple[int, int, int]


def bars(size: str, rate: str = "25") -> tuple[str, ...]:
    width, height = map(int, size.split("x"))
    steps = [f"color=c=0x{r:02x}{g:02x}{b:02x}:s={width // 5}x{height}:r={rate}:d=1,format=rgb24"
             for r, g, b in BARS]  # fmt: skip
    parts = "".join(f"{step}[c{n}];" for n, step in enumerate(steps))
    joined = "".join(f"[c{n}]" for n in range(5)) + f"hstack=5,scale={width}:{height}:flags=area"
    return ("-f", "lavfi", "-i", f"{parts}{joined}[out0]")


def as_yuv(matrix: str, pixels: str = "yuv420p", full: str = "") -> tuple[str, ...]:
    to = f":out_range={full}" if full else ""
    return ("-vf", f"scale=out_color_matrix={matrix}{to},format={pixels}")


def seen(image: bytes, matrix: str) -> list[Color]:
    """The middle of each bar, by that matrix; that of a JPEG is always the same."""
    look = f"scale=in_color_matrix={matrix},format=rgb24,scale=25:5:flags=area"
    argv = ["ffmpeg", "-v", "error", "-i", "pipe:0", "-frames:v", "1", "-vf", look]
    done = subprocess.run([*argv, "-f", "rawvideo", "-"], input=image, capture_output=True,
                          timeout=60, check=True)  # fmt: skip
    row = done.stdout[2 * 75 : 3 * 75]
    return [tuple(row[3 * at : 3 * at + 3]) for at in range(2, 25, 5)]  # type: ignore[misc]


def tags(data: bytes) -> str:
    argv = ["ffprobe", "-v", "error", "-show_entries", "stream=color_space", "-of", "csv=p=0"]
    done = subprocess.run([*argv, "-i", "pipe:0"], input=data, capture_output=True, check=True)
    return done.stdout.decode().strip().split("\n")[0].strip(",")


def assert_true(encoded: Encoded) -> None:
    for track in encoded.result.tracks:
        data = media(encoded, track)
        matrix = tags(data)
        assert matrix in ("bt709", "smpte170m", "bt470bg"), "players have to guess"
        assert_bars(seen(data, "bt709" if matrix == "bt709" else "bt601"))
    if encoded.result.poster_key:
        assert_bars(seen(encoded.store.data(encoded.result.poster_key), "bt601"))


def assert_bars(colors: list[Color]) -> None:
    for color, bar in zip(colors, BARS, strict=True):
        assert color == pytest.approx(bar, abs=NEAR), f"{colors} for {BARS}"


X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "10")
TAGGED_709 = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
SD, HD, PAL = "320x180", "1280x720", "720x576"


@pytest.mark.parametrize(
    ("name", "source", "options"),
    [
        # The decoder of VP8 always says BT.601; browsers tell in the container what it is.
        ("browser.webm", bars(SD), (*as_yuv("bt709"), "-c:v", "libvpx", "-b:v", "4M", *TAGGED_709)),
        ("plain.webm", bars(SD), (*as_yuv("bt601"), "-c:v", "libvpx", "-b:v", "4M")),
        ("sd.mkv", bars(SD), (*as_yuv("bt601"), *X264)),
        ("pal.avi", bars(PAL), (*as_yuv("bt601"), "-c:v", "mpeg4", "-q:v", "2")),
        ("ntsc.avi", bars("640x480", "30000/1001"),
         (*as_yuv("bt601"), "-c:v", "mpeg4", "-q:v", "2")),
        ("hd.mkv", bars(HD), (*as_yuv("bt709"), *X264)),
        ("tagged.mkv", bars(SD), (*as_yuv("bt709"), *X264, *TAGGED_709)),
        ("motion.avi", bars(SD),
         (*as_yuv("bt601", "yuvj420p", "pc"), "-c:v", "mjpeg", "-q:v", "2")),
        ("screen.mov", bars(HD), ("-c:v", "png", "-pix_fmt", "rgb24")),
        ("screen.mp4", bars(SD), ("-c:v", "libx264rgb", "-preset", "ultrafast", "-qp", "8")),
        ("camera.dv", bars(PAL), (*as_yuv("bt601"), "-c:v", "dvvideo", "-f", "dv")),
    ],
)  # fmt: skip
async def test_colours_stay(
    tmp_path: Path, name: str, source: tuple[str, ...], options: tuple[str, ...]
) -> None:
    path = tmp_path / name
    ffmpeg(*source, *options, path)
    encoded = await encode(path, rungs=(360,))
    assert {track.encoder for track in encoded.result.tracks} == {"libx265", "libx264"}
    assert_true(encoded)


@pytest.mark.parametrize(("size", "matrix", "told"), [
    (SD, "bt601", ()), (SD, "bt709", TAGGED_709), (HD, "bt709", TAGGED_709),
])  # fmt: skip
async def test_colours_of_a_copy(
    tmp_path: Path, size: str, matrix: str, told: tuple[str, ...]
) -> None:
    path = tmp_path / "clip.mp4"
    ffmpeg(*bars(size), *as_yuv(matrix), *X264, *told, path)
    encoded = await encode(path, may_copy=True)
    assert encoded.result.tier is Tier.COPY
    assert_true(encoded)


async def test_hevc_colours_of_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    quiet = ("-x265-params", "log-level=error:open-gop=0:keyint=25")
    ffmpeg(*bars(SD), *as_yuv("bt601"), "-c:v", "libx265", "-preset", "ultrafast", *quiet, path)
    encoded = await encode(path, may_copy=True, codecs=CodecChoice.HEVC)
    assert encoded.result.tier is Tier.COPY
    assert_true(encoded)


MOVING = ("-f", "lavfi", "-i", "testsrc2=s=720x576:r=50:d=1,scroll=h=0.02")
FIELDS = "tinterlace=interleave_top,fieldorder=bff,setsar=1"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("camera.dv", ("-c:v", "dvvideo", "-pix_fmt", "yuv420p", "-f", "dv")),
        ("camera.avi", ("-c:v", "dvvideo", "-pix_fmt", "yuv420p")),
        # Its header tells that it is progressive.
        ("broadcast.mkv", ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast",
                           "-flags", "+ilme+ildct", "-x264-params", "bff=1",
                           "-field_order", "progressive")),
    ],
)  # fmt: skip
async def test_fields_are_not_shown_as_pictures(
    tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    path = tmp_path / name
    ffmpeg(*MOVING, "-vf", FIELDS, "-r", "25", *options, path)
    encoded = await encode(path, may_copy=True, codecs=CodecChoice.H264, has_thumbnails=False)
    assert encoded.result.tier is Tier.CPU
    assert "it is interlaced" in encoded.result.not_copied
    data = media(encoded, encoded.result.tracks[0])
    assert interlaced_share(data) < 0.1 < 0.5 < interlaced_share(path.read_bytes())


def interlaced_share(data: bytes) -> float:
    """Of the pictures, by the look of them."""
    argv = ["ffmpeg", "-v", "info", "-i", "pipe:0", "-vf", "idet", "-an", "-f", "null", "-"]
    done = subprocess.run(argv, input=data, capture_output=True, timeout=60, check=True)
    counts = re.findall(r"Multi frame.*TFF: *(\d+) BFF: *(\d+) Progressive: *(\d+)",
                        done.stderr.decode())[-1]  # fmt: skip
    top, bottom, progressive = map(int, counts)
    return (top + bottom) / max(1, top + bottom + progressive)
