"""How ffprobe is asked about one file or object: in its cage, in little time and little memory. It
has no answer either because of the bytes, or for a reason that says nothing about them."""

import json
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from cefmp4 import proc
from cefmp4.errors import PermanentError, ProgramMissingError, TransientError
from cefmp4.media.ffprobe_json import number, tables
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.media.stderr import NOT_A_RECORDING, check_reached, last_line
from cefmp4.model.part import MIB

log = structlog.get_logger()

LAST_PACKETS = "9999999%"  # an interval that begins at the end, wherever that is
_OUT_OF_MEMORY = re.compile(
    r"cannot allocate memory|failed to map segment|out of memory", re.IGNORECASE
)


class ProbeTimeoutError(TransientError):
    """ffprobe did not end in time (FFPROBE_TIMEOUT_SECONDS)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffprobe:
    """The program, and what a hostile file may cost."""

    program: str = "ffprobe"
    timeout_s: float = 30.0
    memory_bytes: int | None = None  # of address space
    answer_bytes: int = 32 * MIB  # enough for a line about each packet of a long recording

    async def ask(self, source: MediaSource, questions: Sequence[str]) -> dict[str, Any]:
        return document_of((await self.run(source, questions)).stdout)

    async def packets(
        self, source: MediaSource, index: int, interval: str
    ) -> list[tuple[float, str]]:
        """Time and flags of a stream's packets in an interval, in the order of the file."""
        questions = (
            *("-select_streams", str(index), "-read_intervals", interval),
            *("-show_entries", "packet=pts_time,flags"),
        )
        answer = await self.ask(source, questions)
        return [
            (at, str(packet.get("flags") or ""))
            for packet in tables(answer.get("packets"))
            if (at := number(packet.get("pts_time"))) is not None
        ]

    async def run(
        self,
        source: MediaSource,
        questions: Sequence[str],
        *,
        form: str = "json",
        loudness: str = "error",
    ) -> proc.Exit:
        """What it printed. Raises UnusableSourceError where the bytes are the reason that there is
        no answer; TransientError: they are out of reach, or it took too long."""
        argv = [
            *(self.program, "-hide_banner", "-v", loudness, *questions, "-of", form),
            *source.input_options,
        ]
        try:
            done = await proc.run(
                argv,
                timeout_s=self.timeout_s,
                memory_bytes=self.memory_bytes,
                max_output_bytes=self.answer_bytes,
                pass_fds=source.pass_fds,
                environment=source.environment,
            )
        except ProgramMissingError:
            raise ProgramMissingError(
                f"ffprobe not found: {self.program}", hint="set FFPROBE_PATH"
            ) from None
        log.debug("ffprobe ran", returncode=done.returncode, timed_out=done.timed_out)
        if not done.is_ok:
            _refuse(done, is_remote=source.is_remote)
        return done


def document_of(answer: bytes) -> dict[str, Any]:
    try:
        document = json.loads(answer.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UnusableSourceError("ffprobe's answer makes no sense")
    return document


def _refuse(done: proc.Exit, *, is_remote: bool) -> None:
    """That it was stopped says nothing about the bytes."""
    if done.timed_out:
        raise ProbeTimeoutError
    if is_remote:
        check_reached(done.stderr_tail)
    if _OUT_OF_MEMORY.search(done.stderr_tail):
        raise PermanentError("ffprobe ran out of memory (FFPROBE_MEMORY_BYTES)")
    if done.killed_for_output:
        raise PermanentError("ffprobe was stopped: its answer is absurdly long")
    if done.returncode < 0:
        raise PermanentError(f"ffprobe was killed by {_signal_name(-done.returncode)}")
    reason = last_line(done.stderr_tail)
    if reason and reason != NOT_A_RECORDING:
        reason = f"ffprobe: {reason}"
    raise UnusableSourceError(reason or "ffprobe finds no media in it")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
