"""Tells of recordings that wait for a download which nobody goes on with, and of what only looks
like one: each once, however many there are."""

import structlog

from cefmp4.watch.scan import ScanResult

log = structlog.get_logger()

HINT = "go on with the download, or remove the .aria2 file beside the recording"


class DownloadReport:
    def __init__(self) -> None:
        self._standing_still: frozenset[str] = frozenset()
        self._not_downloading: frozenset[str] = frozenset()

    @property
    def waiting_for(self) -> str:
        if not (standing := self._standing_still):
            return ""
        return f"{len(standing)} recordings wait for a download, {min(standing)!a} first: {HINT}"

    def tell(self, result: ScanResult) -> None:
        if new := result.standing_still - self._standing_still:
            log.warning(
                "recordings wait for a download that stands still for a day",
                count=len(result.standing_still),
                file_path=min(new),
                hint=HINT,
            )
        if new := result.not_downloading - self._not_downloading:
            log.warning(
                "recordings are taken although there are .aria2 files: these are not of their user",
                count=len(result.not_downloading),
                file_path=min(new),
            )
        self._standing_still = result.standing_still
        self._not_downloading = result.not_downloading
