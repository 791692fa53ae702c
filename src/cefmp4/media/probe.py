"""Looks into one local file with ffprobe, which sees that file and nothing else: no other file, no
network, little time, little memory."""

import asyncio
import os
import re
import signal
import stat
from dataclasses import replace

import structlog

from cefmp4 import proc
from cefmp4.errors import ProgramMissingError
from cefmp4.media import probe_answers
from cefmp4.media.protection import find_protection
from cefmp4.media.structure import find_problem
from cefmp4.model.media import MediaInfo

log = structlog.get_logger()

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_MAX_REASON = 200
_OUT_OF_MEMORY = re.compile(
    r"cannot allocate memory|failed to map segment|out of memory", re.IGNORECASE
)
# "[mov,mp4,... @ 0x55d1]" and the name of the descriptor tell an operator nothing.
_NOISE = re.compile(
    r"\[[^\]]*@ 0x[0-9a-f]+\]\s*|\[(?:panic|fatal|error)\]\s*|file:/proc/self/fd/\d+:?\s*"
)
_REMARK = re.compile(r"\[warning\]")
_ENCRYPTED = "it is encrypted"


class FfprobeMediaProbe:
    """Implements the MediaProbe port. It never raises for what the file is or contains."""

    def __init__(self, *, program: str, timeout_s: float, memory_bytes: int) -> None:
        self._program = program
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes

    async def probe(self, path: str, fd: int | None = None) -> MediaInfo:
        """`fd`: an open descriptor of the file, where the caller has one; then `path` is not used
        and a rename in between does no harm."""
        if fd is not None:
            return await self._probe_open(fd)
        try:
            opened = await asyncio.to_thread(_open_regular, path)
        except (OSError, ValueError) as error:
            return MediaInfo(reason=f"the file cannot be read: {_oneline(str(error))}")
        try:
            return await self._probe_open(opened)
        finally:
            os.close(opened)

    async def _probe_open(self, fd: int) -> MediaInfo:
        try:
            problem = await asyncio.to_thread(find_problem, fd)
            protection = await asyncio.to_thread(find_protection, fd)
        except OSError as error:
            return MediaInfo(reason=f"the file cannot be read: {_oneline(str(error))}")
        try:
            done = await self._run(probe_answers.header_command(self._program, _source(fd)), fd)
        except ProgramMissingError:
            known_bad = False if problem else None
            missing = f"ffprobe not found: {self._program} (set FFPROBE_PATH)"
            return MediaInfo(playable=known_bad, reason=problem or missing)
        media = (
            probe_answers.parse_header(done.stdout, done.stderr_tail, protection)
            if done.is_ok
            else None
        )
        if media is None:
            return _refused(done, problem or (_ENCRYPTED if protection.is_any else ""))
        return await self._judged(media, problem, fd)

    async def _judged(self, media: MediaInfo, problem: str, fd: int) -> MediaInfo:
        if problem:
            return replace(media, playable=False, reason=problem)
        if obstacle := _obstacle(media):
            return replace(media, playable=False, reason=obstacle)
        if media.duration_seconds is not None:
            return replace(media, playable=True)
        return await self._measured(media, fd)

    async def _measured(self, media: MediaInfo, fd: int) -> MediaInfo:
        for command in (probe_answers.tail_command, probe_answers.first_packet_command):
            done = await self._run(command(self._program, _source(fd)), fd)
            has_media, duration = (
                probe_answers.parse_tail(done.stdout) if done.is_ok else (False, None)
            )
            if has_media:
                return replace(media, playable=True, duration_seconds=duration)
            if done.timed_out:
                return replace(media, reason="its duration could not be found out in time")
        return replace(media, playable=False, reason="there is a header, but no media behind it")

    async def _run(self, argv: list[str], fd: int) -> proc.Finished:
        done = await proc.run(
            argv,
            timeout_s=self._timeout_s,
            memory_bytes=self._memory_bytes,
            max_output_bytes=_MAX_ANSWER_BYTES,
            pass_fds=(fd,),
        )
        log.debug("ffprobe ran", returncode=done.returncode, timed_out=done.timed_out)
        return done


def _obstacle(media: MediaInfo) -> str:
    """Why none of it can be decoded, although the file may be perfect; "" where some can."""
    tracks = media.main_tracks
    if not tracks:
        return "there is no video or audio track"
    if any(track.is_supported and not track.is_encrypted for track in tracks):
        return ""
    if any(track.is_encrypted for track in tracks):
        return _ENCRYPTED
    return f"codec {tracks[0].codec} is not supported by this ffmpeg"


def _open_regular(path: str) -> int:
    """Neither a symlink nor a pipe that would block us: only a regular file is looked into."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is not a regular file")
    return fd


def _source(fd: int) -> str:
    """An inherited descriptor, so that no name is ever read as an option, a protocol or a pattern.
    Through `file:` because ffmpeg's `fd:` came with 6.0 and its `pipe:` cannot seek."""
    return f"file:/proc/self/fd/{fd}"


def _refused(done: proc.Finished, problem: str) -> MediaInfo:
    """Why there is no answer. What stopped ffprobe itself says nothing about the file."""
    if problem:
        return MediaInfo(playable=False, reason=problem)
    if done.timed_out:
        return MediaInfo(reason="ffprobe did not end in time (FFPROBE_TIMEOUT_SECONDS)")
    if _OUT_OF_MEMORY.search(done.stderr_tail):
        return MediaInfo(reason="ffprobe ran out of memory (FFPROBE_MEMORY_BYTES)")
    if done.killed_for_output:
        return MediaInfo(reason="ffprobe was stopped: its answer is absurdly long")
    if done.returncode < 0:
        return MediaInfo(reason=f"ffprobe was killed by {_signal_name(-done.returncode)}")
    return MediaInfo(playable=False, reason=_last_line(done.stderr_tail))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(text: str) -> str:
    graver = [raw for raw in text.splitlines() if not _REMARK.search(raw)]
    lines = [line for line in (_oneline(_NOISE.sub("", raw)) for raw in graver) if line]
    if any("not on whitelist" in line for line in lines):
        return "it is not a recording: a playlist, a script or another format we do not open"
    return f"ffprobe: {lines[-1]}" if lines else "ffprobe finds no media in it"


def _oneline(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text.strip())[:_MAX_REASON]
