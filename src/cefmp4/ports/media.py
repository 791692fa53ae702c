"""Looking into media files."""

from typing import Protocol

from cefmp4.model.media import MediaInfo


class MediaProbe(Protocol):
    """Looks into an open file. Never raises for what the file contains: that is a verdict."""

    async def probe(self, fd: int) -> MediaInfo: ...
