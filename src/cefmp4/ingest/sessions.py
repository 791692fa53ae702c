"""One service after another: each serves one folder, for as long as that is the one it was."""

import asyncio
from collections.abc import Callable

import structlog

from cefmp4.errors import SettingsError
from cefmp4.ingest.folder import FolderFinder, FoundFolder
from cefmp4.ingest.service import IngestService
from cefmp4.model.view import StreamView
from cefmp4.tasks import cut_by

log = structlog.get_logger()


class IngestSessions:
    def __init__(self, finder: FolderFinder, build: Callable[[FoundFolder], IngestService]) -> None:
        self._finder = finder
        self._build = build
        self.service: IngestService | None = None

    def __repr__(self) -> str:
        return f"<IngestSessions {self.service or self._finder.waiting_for}>"

    async def run(self, stop: asyncio.Event) -> None:
        is_away = True
        while is_away:
            found = None
            async with cut_by(stop):
                found = await self._finder.find()
            is_away = found is not None and await self._serve(found, stop)

    async def _serve(self, found: FoundFolder, stop: asyncio.Event) -> bool:
        """Whether it ended because the folder is away, also where that made it fail."""
        try:
            self.service = self._build(found)
            await self.service.run(stop)
            return self.service.folder_lost.is_set()
        except (OSError, SettingsError) as error:
            if not await self._finder.is_away(found):
                raise
            log.warning("the watched folder went while it was looked at", reason=str(error))
            return True
        finally:
            self.service = None

    def views(self) -> list[StreamView]:
        return self.service.views() if self.service else []

    @property
    def is_ready(self) -> bool:
        return self.service is not None and self.service.is_ready

    @property
    def last_step_at(self) -> float | None:
        """When the beat of a service that is ready was felt last."""
        return self.service.active_files.last_step_at if self.service and self.is_ready else None

    @property
    def waiting_for(self) -> str:
        if self._finder.waiting_for:
            return self._finder.waiting_for
        return "" if self.is_ready else "the start is not finished"
