"""Media probes that find the same in every file."""

from cefmp4.model.media import MediaInfo


class Seen:
    """Finds the same in every file."""

    def __init__(self, verdict: MediaInfo) -> None:
        self._verdict = verdict

    async def probe(self, fd: int) -> MediaInfo:
        return self._verdict


PLAYABLE = Seen(MediaInfo(playable=True))
