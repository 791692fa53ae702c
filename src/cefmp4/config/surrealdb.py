"""SurrealDB, where JOB_SOURCE_TYPE or STORAGE_TYPE names it."""

from typing import Annotated, Self

from pydantic import AfterValidator, SecretStr, model_validator

from cefmp4.config import values
from cefmp4.config.section import Section, setting

_Name = Annotated[str, AfterValidator(values.surreal_name)]


class SurrealDBSettings(Section):
    surreal_endpoint: Annotated[str, AfterValidator(values.surreal_endpoint)] | None = setting(
        None,
        "address of SurrealDB: ws://, wss://, http:// or https://, or a database in a folder that one "
        "process alone may have open, surrealkv:///its/path (mem:// forgets everything at the end)",
    )
    surreal_username: str | None = setting(
        None,
        "user of the whole server, of the namespace or of the database; empty: nobody signs in",
    )
    surreal_password: SecretStr | None = setting(None, "password of that user")
    surreal_namespace: _Name = setting("cefmp4", "the namespace there")
    surreal_database: _Name = setting("cefmp4", "the database in the namespace")
    surreal_queue_files: bool = setting(
        False,
        "with JOB_SOURCE_TYPE=surrealdb: queue a job for each row of `file` that has no HLS and never "
        "had a job, where WATCH_FILTER_GLOBS take its key",
    )

    @model_validator(mode="after")
    def _user_has_password(self) -> Self:
        if bool(self.surreal_username) != bool(self.surreal_password):
            raise ValueError("SURREAL_USERNAME and SURREAL_PASSWORD go together: set both or none")
        return self
