"""All settings, validated and frozen. Each section is a class of its own, so that who needs but one
says so. They are read by `config.reading`."""

import re
from typing import Any, Protocol, Self

from pydantic import PrivateAttr, SecretStr

from cefmp4.config.general import GeneralSettings
from cefmp4.config.ingest import IngestSettings
from cefmp4.config.page import PageSettings
from cefmp4.config.programs import ProgramSettings
from cefmp4.config.section import Section
from cefmp4.config.store import StoreSettings
from cefmp4.config.worker import WorkerSettings

SECTIONS: tuple[type[Section], ...] = (
    GeneralSettings,
    IngestSettings,
    StoreSettings,
    WorkerSettings,
    ProgramSettings,
    PageSettings,
)


class Settings(
    GeneralSettings, IngestSettings, StoreSettings, WorkerSettings, ProgramSettings, PageSettings
):
    _spelled: dict[str, str] = PrivateAttr(default_factory=dict)

    def with_servers(self, places: "ServerPlaces") -> Self:
        """These settings, with embedded servers where they name none."""
        changes: dict[str, Any] = {}
        if self.redis_address is None and places.redis_url:
            changes["redis_url"] = SecretStr(places.redis_url)
        if self.s3_endpoint_url is None and places.s3_endpoint_url:
            changes["s3_endpoint_url"] = places.s3_endpoint_url
            changes["s3_access_key_id"] = places.s3_access_key_id
            changes["s3_secret_access_key"] = SecretStr(places.s3_secret_access_key or "")
        return self.model_copy(update=changes)

    def spelled(self, names: dict[str, str]) -> Self:
        """Remembers which older names were written instead of ours."""
        self._spelled.update(names)
        return self

    def as_spelled(self, text: str) -> str:
        """`text` with the settings called as they were written."""
        for ours, written in self._spelled.items():
            text = re.sub(rf"\b{ours}\b", written, text)
        return text


class ServerPlaces(Protocol):
    """Where embedded servers are; None where the settings name a server themselves."""

    @property
    def redis_url(self) -> str | None: ...
    @property
    def s3_endpoint_url(self) -> str | None: ...
    @property
    def s3_access_key_id(self) -> str | None: ...
    @property
    def s3_secret_access_key(self) -> str | None: ...
