"""Looking into media files."""

from typing import Protocol

from cefmp4.model.media import MediaInfo


class MediaProbe(Protocol):
    """Looks into a local file. Never raises for what the file contains: that is a verdict."""

    async def probe(self, path: str, fd: int | None = None) -> MediaInfo:
        """`fd`: an open descriptor of the file; then a rename of `path` in between is harmless."""
        ...
