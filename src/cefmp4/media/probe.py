"""Looks into one local file, and says whether it plays."""

import asyncio
import os
import stat
from dataclasses import dataclass, replace

from cefmp4.errors import PermanentError
from cefmp4.media import probe_answers
from cefmp4.media.ffprobe import Ffprobe, ProbeTimeoutError, document_of
from cefmp4.media.protection import find_protection
from cefmp4.media.source import MediaSource, UnusableSourceError
from cefmp4.media.stderr import printable
from cefmp4.media.structure import find_problem
from cefmp4.model.media import MediaInfo

_ENCRYPTED = "it is encrypted"


@dataclass(frozen=True, slots=True)
class FfprobeMediaProbe:
    """Implements the MediaProbe port. It never raises for what the file is or contains."""

    ffprobe: Ffprobe

    async def probe(self, path: str, fd: int | None = None) -> MediaInfo:
        """`fd`: an open descriptor of the file, where the caller has one; then `path` is not used
        and a rename in between does no harm."""
        if fd is not None:
            return await self._probe_open(fd)
        try:
            opened = await asyncio.to_thread(_open_regular, path)
        except (OSError, ValueError) as error:
            return _unreadable(error)
        try:
            return await self._probe_open(opened)
        finally:
            os.close(opened)

    async def _probe_open(self, fd: int) -> MediaInfo:
        try:
            problem = await asyncio.to_thread(find_problem, fd)
            protection = await asyncio.to_thread(find_protection, fd)
            source = MediaSource.of_file(fd)
        except OSError as error:
            return _unreadable(error)
        try:
            # Which tracks it has no decoder for is a warning to ffprobe.
            told = await self.ffprobe.run(
                source, probe_answers.HEADER_QUESTIONS, loudness="level+warning"
            )
            answer = document_of(told.stdout)
        except (PermanentError, ProbeTimeoutError) as error:
            problem = problem or (_ENCRYPTED if protection.is_any else "")
            is_bad = bool(problem) or isinstance(error, UnusableSourceError)
            return MediaInfo(playable=False if is_bad else None, reason=problem or str(error))
        media = probe_answers.parse_header(answer, told.stderr_tail, protection)
        return await self._judged(media, problem, source)

    async def _judged(self, media: MediaInfo, problem: str, source: MediaSource) -> MediaInfo:
        if obstacle := problem or _obstacle(media):
            return replace(media, playable=False, reason=obstacle)
        if media.duration_seconds is not None:
            return replace(media, playable=True)
        return await self._measured(media, source)

    async def _measured(self, media: MediaInfo, source: MediaSource) -> MediaInfo:
        for questions in (probe_answers.TAIL_QUESTIONS, probe_answers.FIRST_PACKET_QUESTIONS):
            try:
                answer = await self.ffprobe.ask(source, questions)
            except ProbeTimeoutError:
                return replace(media, reason="its duration could not be found out in time")
            except PermanentError:
                continue
            has_media, duration = probe_answers.parse_tail(answer)
            if has_media:
                return replace(media, playable=True, duration_seconds=duration)
        return replace(media, playable=False, reason="there is a header, but no media behind it")


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


def _unreadable(error: Exception) -> MediaInfo:
    return MediaInfo(reason=f"the file cannot be read: {printable(str(error))}")
