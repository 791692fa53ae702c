"""What ffmpeg and ffprobe read, and the cage that they read it in: one open file or one object, and
nothing else; only in formats that hold their own media, never in those that name other files or
servers: hls, dash, concat, sdp, rtsp, image2, tedcaptions, imf, lavfi and the like."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cefmp4.errors import PermanentError

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,mxf,gxf,asf,dv,ivf,nut,"
    "h264,hevc,av1,obu,ogg,wav,w64,flac,mp3,aac,ac3,eac3,caf,aiff,amr"
)
# A dropped connection goes on where it was; without these ffmpeg calls the rest of the file gone
# and itself successful.
_RECONNECT = (
    *("-reconnect", "1", "-reconnect_on_network_error", "1"),
    *("-reconnect_on_http_error", "429,5xx", "-reconnect_delay_max", "8"),
    *("-rw_timeout", "20000000"),
)


class UnusableSourceError(PermanentError):
    """Its own bytes are the reason why nothing can be made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSource:
    """A local file by its open descriptor, so that a rename changes nothing, or a URL that opens
    only with what is in the environment."""

    fd: int | None = None
    url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # it is a secret
    size: int = 0

    @classmethod
    def of_file(cls, fd: int) -> "MediaSource":
        return cls(fd=fd, size=os.fstat(fd).st_size)

    @property
    def is_remote(self) -> bool:
        return bool(self.url)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        return () if self.fd is None else (self.fd,)

    @property
    def input_options(self) -> list[str]:
        """No name that could be read as an option, a protocol or a pattern. Through `file:` because
        ffmpeg's `fd:` came with 6.0 and its `pipe:` cannot seek."""
        return [
            *(_RECONNECT if self.is_remote else ()),
            *("-protocol_whitelist", "http,tcp" if self.is_remote else "file"),
            *("-format_whitelist", CONTAINERS, "-i", self.url or f"file:/proc/self/fd/{self.fd}"),
        ]
