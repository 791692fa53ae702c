"""Why ffprobe has no answer, and whose fault that is. Each ffprobe here is a few words of shell."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cefmp4.errors import (
    CefError,
    PermanentError,
    ProgramMissingError,
    ServerUnreachableError,
    TransientError,
)
from cefmp4.media.ffprobe import Ffprobe, ProbeTimeoutError
from cefmp4.media.source import CONTAINERS, MediaSource, UnusableSourceError

URL = MediaSource(url="http://recording/object", environment={"http_proxy": "http://job:x@there"})


@pytest.fixture
def source(tmp_path: Path) -> Iterator[MediaSource]:
    (tmp_path / "recording").write_bytes(b"bytes")
    fd = os.open(tmp_path / "recording", os.O_RDONLY)
    yield MediaSource.of_file(fd)
    os.close(fd)


def ffprobe(folder: Path, does: str, *, timeout_s: float = 20, answer_bytes: int = 999) -> Ffprobe:
    program = folder / "ffprobe"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o700)
    return Ffprobe(program=str(program), timeout_s=timeout_s, answer_bytes=answer_bytes)


async def test_it_answers_about_an_open_file(tmp_path: Path, source: MediaSource) -> None:
    says = """for last in "$@"; do :; done; read -r line <"${last#file:}"
printf '{"args": "%s", "read": "%s"}' "$*" "$line" """
    answer = await ffprobe(tmp_path, says).ask(source, ("-show_format",))
    assert answer["read"] == "bytes"
    assert answer["args"].startswith("-hide_banner -v error -show_format -of json -protocol")
    assert source.size == 5


async def test_the_secret_of_an_object_is_no_argument(tmp_path: Path) -> None:
    says = """printf '{"args": "%s", "proxy": "%s"}' "$*" "$http_proxy" """
    answer = await ffprobe(tmp_path, says).ask(URL, ())
    assert answer["proxy"] == "http://job:x@there"
    assert "job" not in answer["args"]


@pytest.mark.parametrize(
    ("does", "kind", "words"),
    [
        ("echo 'moov atom not found' >&2; exit 1", UnusableSourceError, "ffprobe: moov atom not"),
        ("exit 1", UnusableSourceError, "finds no media in it"),
        ("echo '{'", UnusableSourceError, "makes no sense"),
        ("echo 'hls not on whitelist' >&2; exit 1", UnusableSourceError, "it is not a recording"),
        ("echo 'Cannot allocate memory' >&2; exit 1", PermanentError, "FFPROBE_MEMORY_BYTES"),
        ("kill -SEGV $$", PermanentError, "killed by SIGSEGV"),
        ("yes", PermanentError, "absurdly long"),
        ("echo 'Connection refused' >&2; exit 1", UnusableSourceError, "Connection refused"),
    ],
)
async def test_whose_fault_it_is(
    tmp_path: Path, source: MediaSource, does: str, kind: type[CefError], words: str
) -> None:
    with pytest.raises(CefError) as caught:
        await ffprobe(tmp_path, does).ask(source, ())
    assert type(caught.value) is kind
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("[http @ 0x1] HTTP error 404 Not Found", UnusableSourceError, "no such object"),
        ("Server returned 403 Forbidden", TransientError, "out of reach: Server returned 403"),
        ("Connection refused", ServerUnreachableError, "out of reach"),
        ("moov atom not found", UnusableSourceError, "moov atom not found"),
    ],
)
async def test_a_server_may_be_the_reason(
    tmp_path: Path, said: str, kind: type[CefError], words: str
) -> None:
    with pytest.raises(CefError) as caught:
        await ffprobe(tmp_path, f"echo '{said}' >&2; exit 1").ask(URL, ())
    assert type(caught.value) is kind
    assert words in str(caught.value)


async def test_it_is_not_waited_for_without_end(tmp_path: Path, source: MediaSource) -> None:
    with pytest.raises(ProbeTimeoutError, match="FFPROBE_TIMEOUT_SECONDS"):
        await ffprobe(tmp_path, "sleep 60", timeout_s=0.2).ask(source, ())


async def test_it_may_be_missing(source: MediaSource) -> None:
    with pytest.raises(ProgramMissingError, match=r"not found: /no/ffprobe \(set FFPROBE_PATH\)"):
        await Ffprobe(program="/no/ffprobe").ask(source, ())


def test_the_cage() -> None:
    local = MediaSource(fd=5).input_options
    assert local == [
        *("-protocol_whitelist", "file", "-format_whitelist", CONTAINERS),
        *("-i", "file:/proc/self/fd/5"),
    ]
    remote = URL.input_options
    assert remote[remote.index("-protocol_whitelist") + 1] == "http,tcp"
    assert "-reconnect" in remote
