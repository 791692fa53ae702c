"""An ffprobe that has its answers ready."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cefmp4.media.ffprobe import Ffprobe
from cefmp4.media.source import MediaSource


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeFfprobe(Ffprobe):
    """`asked`: what it was asked, in a word: header, frame, or last, for the last packets."""

    header: Any = field(default_factory=dict)
    frame: Any = field(default_factory=dict)
    last: Any = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def ask(self, source: MediaSource, questions: Sequence[str]) -> Any:
        if "-show_format" in questions:
            kind = "header"
        else:
            kind = "frame" if "-show_frames" in questions else "last"
        self.asked.append(kind)
        return getattr(self, kind)
