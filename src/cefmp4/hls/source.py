"""What an encode reads, and how ffprobe is asked about it."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cefmp4 import proc
from cefmp4.errors import PermanentError, ServerUnreachableError, TransientError
from cefmp4.hls import ffmpeg
from cefmp4.media.ffprobe_json import number, rows, table

_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_UNREACHABLE = re.compile(
    r"HTTP error|Connection|timed out|Server returned|Input/output error|Network|resolve",
    re.IGNORECASE,
)
_MISSING = re.compile(r"(HTTP error|Server returned) (404|410)")
_REFUSED = re.compile(r"(HTTP error|Server returned) 4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffprobe:
    """The program, and what a hostile file may cost."""

    program: str = "ffprobe"
    timeout_s: float = 30.0
    memory_bytes: int | None = None  # of address space


class UnusableSourceError(PermanentError):
    """There is nothing in the source that HLS could be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsSource:
    """A local file by its open descriptor, so that a rename changes nothing, or a URL that opens
    only with what is in the environment."""

    fd: int | None = None
    url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # it is a secret
    size: int = 0

    @classmethod
    def of_file(cls, fd: int) -> "HlsSource":
        return cls(fd=fd, size=os.fstat(fd).st_size)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        return () if self.fd is None else (self.fd,)

    @property
    def argument(self) -> str:
        return self.url or f"file:/proc/self/fd/{self.fd}"


async def packets(
    source: HlsSource, index: int, interval: str, ffprobe: Ffprobe
) -> list[tuple[float, str]]:
    """Time and flags of the packets in an interval, in the order of the file."""
    questions = ffmpeg.packet_questions(index, interval)
    document = await ask(source, ffprobe, questions)
    found = []
    for packet in map(table, rows(document.get("packets"))):
        at = number(packet.get("pts_time"))
        if at is not None:
            found.append((at, str(packet.get("flags") or "")))
    return found


async def ask(source: HlsSource, ffprobe: Ffprobe, questions: tuple[str, ...]) -> dict[str, Any]:
    said = await answer(source, ffprobe, questions)
    try:
        document = json.loads(said.decode("utf-8", "replace"))
    except ValueError as error:
        raise UnusableSourceError("ffprobe's answer makes no sense") from error
    return table(document)


async def answer(
    source: HlsSource, ffprobe: Ffprobe, questions: tuple[str, ...], form: str = "json"
) -> bytes:
    """What ffprobe prints. Raises UnusableSourceError where the bytes are the reason,
    TransientError where they are out of reach."""
    program, is_remote = ffprobe.program, bool(source.url)
    done = await proc.run(
        ffmpeg.probe_command(program, source.argument, questions, is_remote=is_remote, form=form),
        timeout_s=ffprobe.timeout_s,
        memory_bytes=ffprobe.memory_bytes,
        max_output_bytes=_MAX_ANSWER_BYTES,
        pass_fds=source.pass_fds,
        environment=source.environment,
    )
    if done.timed_out:
        raise TransientError("ffprobe did not end in time")
    if not done.is_ok:
        if source.url:
            check_reached(done.stderr_tail)
        reason = ffmpeg.last_line(done.stderr_tail) or "ffprobe finds no media in it"
        raise UnusableSourceError(f"it cannot be read: {reason}")
    return done.stdout


def check_reached(said: str) -> None:
    """Raises what an ffmpeg or ffprobe that failed says of the server it read from, if anything."""
    if _MISSING.search(said):
        raise UnusableSourceError("there is no such object")
    if _UNREACHABLE.search(said):
        kind = TransientError if _REFUSED.search(said) else ServerUnreachableError
        raise kind(f"the source is out of reach: {ffmpeg.last_line(said)}")
