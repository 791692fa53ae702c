"""What ffmpeg and ffprobe say on their standard error, and what it means to people."""

import re
from dataclasses import dataclass

from cefmp4.errors import ServerUnreachableError, TransientError
from cefmp4.media.source import UnusableSourceError

NOT_A_RECORDING = "it is not a recording: a playlist, a script or another format we do not open"
_MAX_REASON = 200
_KEPT_BYTES = 8 * 1024
_MAX_LINE = 4096
# "[mov,mp4,... @ 0x55d1]" and the name of a descriptor tell nobody anything; a URL may tell too
# much.
_NOISE = re.compile(
    r"\[[^\]]*@ 0x[0-9a-f]+\]\s*|\[(?:panic|fatal|error|warning)\]\s*|^\[\w+\]\s*|"
    r"file:/proc/self/fd/\d+:?\s*|https?://\S+"
)
_REMARK = re.compile(r"\[warning\]")
# Not what x265 says of itself: that it cannot tell the machine's memory nodes, in some containers.
_ERROR = re.compile(r"^(?!x265 \[).*\[(error|fatal|panic)\]")
_UNREACHABLE = re.compile(
    r"HTTP error|Connection|timed out|Server returned|Input/output error|Network|resolve",
    re.IGNORECASE,
)
_MISSING = re.compile(r"(HTTP error|Server returned) (404|410)")
_REFUSED = re.compile(r"(HTTP error|Server returned) 4")


@dataclass(slots=True)
class Stderr:
    """The first and last lines of it, and how many told of errors."""

    head: str = ""
    tail: str = ""
    errors: int = 0
    _rest: str = ""

    def add(self, data: bytes) -> None:
        *lines, rest = (self._rest + data.decode("utf-8", "replace")).split("\n")
        self._rest = rest[:_MAX_LINE]
        for line in lines:
            self.errors += bool(_ERROR.search(line))
            if len(self.head) < _KEPT_BYTES:
                self.head += line[:_MAX_LINE] + "\n"
            self.tail = (self.tail + line[:_MAX_LINE] + "\n")[-_KEPT_BYTES:]


def last_line(stderr: str) -> str:
    """The last word, without addresses, descriptors and signed URLs."""
    told = stderr.splitlines()
    graver = [line for line in told if line.strip() and not _REMARK.search(line)]
    lines = [_NOISE.sub("", line).strip() for line in graver or told]
    if any("not on whitelist" in line for line in lines):
        return NOT_A_RECORDING
    return printable(next((line for line in reversed(lines) if line), ""))


def printable(text: str) -> str:
    """On one line, and short."""
    return "".join(char if char.isprintable() else "?" for char in text.strip())[:_MAX_REASON]


def check_reached(stderr: str) -> None:
    """Raises what a program that failed said of the server that it read from, if anything."""
    if _MISSING.search(stderr):
        raise UnusableSourceError("there is no such object")
    if _UNREACHABLE.search(stderr):
        kind = TransientError if _REFUSED.search(stderr) else ServerUnreachableError
        raise kind(f"the source is out of reach: {last_line(stderr)}")
