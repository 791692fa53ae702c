"""Recordings that are none, and an ffprobe that hangs, babbles and dies: what is stored is what was
there, what is not known is said to be unknown, and nothing else is read or asked."""

import asyncio
import sys
from pathlib import Path

from tests.faults.registry import scenario
from tests.faults.world import MIB, World

RATE = 12 * MIB

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{url}'\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
DASH = (
    '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation id="1">'
    "<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)

# Does to itself what the first word of the recording says; otherwise it is ffprobe.
PROBE = """#!/bin/sh
for last; do :; done
case "$(head -c 5 "${last#file:}" | tr -d '\\0')" in
    HANGS) sleep 100 & wait ;;
    TALKS) exec yes ;;
    CRASH) kill -SEGV $$ ;;
    LARGE) exec PYTHON -c 'import sys; sys.stderr.write("out of memory\\n"); bytearray(2 << 40)' ;;
esac
exec ffprobe "$@"
"""
VERDICTS = {
    "HANGS": "FFPROBE_TIMEOUT_SECONDS",
    "TALKS": "absurdly long",
    "CRASH": "SIGSEGV",
    "LARGE": "FFPROBE_MEMORY_BYTES",
}


@scenario("files", short=True)
async def playlists_for_recordings(world: World) -> None:
    """They name a file outside the folder and a listener, and neither is ever asked."""
    calls = []

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    secret = world.folder / "secret.ts"
    await world.hide(secret, b"G" + world.random.randbytes(187))
    async with server:
        await world.ingest()
        for form, text in (("hls", HLS), ("concat", CONCAT), ("sdp", SDP), ("dash", DASH)):
            for where, url in (("file", str(secret)), ("http", f"http://127.0.0.1:{port}/a.ts")):
                said = text.format(url=url, port=port).encode()
                await world.put(f"{form}-{where}.mp4", said)
        await world.stored(8)
    if calls:
        world.faults.append(f"{len(calls)} connections were made for a playlist")
    await _expect(world, dict.fromkeys(world.wanted, ""), playable=False)


@scenario("files", short=True)
async def probe_hangs_talks_and_dies(world: World) -> None:
    """Each file costs a bounded time, and its document tells why nothing is known of it."""
    probe = world.folder / "ffprobe"
    script = PROBE.replace("PYTHON", sys.executable)
    await asyncio.to_thread(_write_program, probe, script)
    world.settings |= {"FFPROBE_PATH": str(probe), "FFPROBE_TIMEOUT_SECONDS": "2"}
    await world.ingest()
    for word in VERDICTS:
        await world.put(f"{word}.mp4", word.encode() + world.random.randbytes(2 * MIB))
    await world.write("other.mp4", 12 * MIB, rate=RATE)
    await world.stored(len(VERDICTS) + 1)
    await _expect(
        world, {f"{word}.mp4": reason for word, reason in VERDICTS.items()}, playable=None
    )


def _write_program(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


async def _expect(world: World, reasons: dict[str, str], *, playable: bool | None) -> None:
    documents = {one["relative_path"]: one for one in await world.judge.documents()}
    for relpath, reason in reasons.items():
        told = documents[relpath]
        said = str(told["playable_reason"])
        if told["playable"] is not playable or reason not in said or not said.isprintable():
            world.faults.append(f"{relpath}: playable is {told['playable']}, because {said}")
