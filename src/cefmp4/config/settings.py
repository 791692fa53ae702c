"""All settings, validated and frozen. Each section is a class of its own, so that who needs but one
says so. They are read by `config.reading`."""

import re
from typing import Self

from pydantic import PrivateAttr

from cefmp4.config.engine import EngineSettings
from cefmp4.config.general import GeneralSettings
from cefmp4.config.ingest import IngestSettings
from cefmp4.config.page import PageSettings
from cefmp4.config.programs import ProgramSettings
from cefmp4.config.store import StoreSettings
from cefmp4.config.worker import WorkerSettings


class Settings(
    GeneralSettings,
    IngestSettings,
    StoreSettings,
    EngineSettings,
    WorkerSettings,
    ProgramSettings,
    PageSettings,
):
    """In the order in which people read of them."""

    _spelled: dict[str, str] = PrivateAttr(default_factory=dict)

    def spelled(self, names: dict[str, str]) -> Self:
        """Remembers which older names were written instead of ours."""
        self._spelled.update(names)
        return self

    def as_spelled(self, text: str) -> str:
        """`text` with the settings called as they were written."""
        for ours, written in self._spelled.items():
            text = re.sub(rf"\b{ours}\b", written, text)
        return text
