"""All settings, validated and frozen. Each section is a class of its own, so that who needs but one
says so. They are read by `config.reading`."""

import os
import re
from collections.abc import Mapping
from typing import Self

from pydantic import PrivateAttr, model_validator

from cefmp4.config.databases import DatabaseSettings
from cefmp4.config.engine import EngineSettings
from cefmp4.config.general import GeneralSettings
from cefmp4.config.ingest import IngestSettings
from cefmp4.config.page import PageSettings
from cefmp4.config.programs import ProgramSettings
from cefmp4.config.results import ResultSettings, RowStorage
from cefmp4.config.sources import SourceSettings, SourceType
from cefmp4.config.store import StoreSettings
from cefmp4.config.surrealdb import SurrealDBSettings
from cefmp4.config.webhooks import WebhookSettings
from cefmp4.config.worker import WorkerSettings
from cefmp4.model.job import JobKind


class Settings(
    GeneralSettings,
    IngestSettings,
    StoreSettings,
    EngineSettings,
    DatabaseSettings,
    WorkerSettings,
    SourceSettings,
    WebhookSettings,
    ResultSettings,
    SurrealDBSettings,
    ProgramSettings,
    PageSettings,
):
    """In the order in which people read of them."""

    _spelled: dict[str, str] = PrivateAttr(default_factory=dict)
    _others: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def handed_over(self) -> tuple[JobKind, ...]:
        """Kinds of jobs that are made of each recording."""
        kinds = tuple(JobKind(kind) for kind in self.handover_jobs)
        return kinds if SourceType.INTERNAL in self.job_source_type else ()

    @property
    def has_jobs(self) -> bool:
        """Whether there may be any, so that an engine and a worker are needed."""
        sources = set(self.job_source_type) - {SourceType.INTERNAL}
        return bool(self.handed_over or sources or self.webhook_url)

    @property
    def wants_postgres(self) -> bool:
        """Whether jobs come from there, or their results go there; `up` brings one along where
        DATABASE_URL names none."""
        comes = SourceType.POSTGRES in self.job_source_type
        return self.has_jobs and (comes or self.row_storage == RowStorage.POSTGRES)

    @property
    def uses_surrealdb(self) -> bool:
        is_source = SourceType.SURREALDB in self.job_source_type
        return is_source or self.row_storage == RowStorage.SURREALDB

    @model_validator(mode="after")
    def _sources_are_named(self) -> Self:
        needs = {
            SourceType.SQS: ("AWS_SQS_QUEUE_URL", self.aws_sqs_queue_url),
            SourceType.WEBHOOK: ("WEBHOOK_SECRET", self.webhook_secret),
            SourceType.SURREALDB: ("SURREAL_ENDPOINT", self.surreal_endpoint),
        }
        for kind, (name, value) in needs.items():
            if kind in self.job_source_type and not value:
                raise ValueError(f"{name} is not set, and JOB_SOURCE_TYPE has {kind}: set it")
        if self.webhook_url and not self.webhook_secret:
            raise ValueError(
                "WEBHOOK_SECRET is not set, and signs what goes to WEBHOOK_URL: set it"
            )
        return self

    @model_validator(mode="after")
    def _row_storage_is_named(self) -> Self:
        if self.row_storage == RowStorage.SURREALDB and not self.surreal_endpoint:
            named = f"STORAGE_TYPE is {self.storage_type}"
            raise ValueError(f"SURREAL_ENDPOINT is not set, and {named}: set it")
        return self

    def spelled(self, names: dict[str, str]) -> Self:
        """Remembers which older names were written instead of ours."""
        self._spelled.update(names)
        return self

    def with_others(self, in_file: Mapping[str, str]) -> Self:
        """Remembers what `.env` says beside our settings."""
        ours = {name.upper() for name in type(self).model_fields}
        self._others.update((name, in_file[name]) for name in in_file.keys() - ours)
        return self

    def other(self, name: str) -> str:
        """A setting of a source or store that another package brings; empty where it is not
        set."""
        return os.environ.get(name) or self._others.get(name, "")

    def as_spelled(self, text: str) -> str:
        """`text` with the settings called as they were written."""
        for ours, written in self._spelled.items():
            text = re.sub(rf"\b{ours}\b", written, text)
        return text
