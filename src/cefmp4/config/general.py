"""This process: its log, its name, its state, its patience."""

import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from cefmp4.config import values
from cefmp4.config.section import Section, setting


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class GeneralSettings(Section):
    app_env: AppEnv = setting(
        AppEnv.DEVELOPMENT,
        "what the log is for: development, with lines for people, or production, with one JSON object a line",
    )
    log_level: Annotated[str, AfterValidator(values.log_level)] = setting(
        "INFO", "DEBUG, INFO, WARNING or ERROR"
    )
    state_dir: Path = setting(
        Path(".cefmp4"), "folder for what `cefmp4 up` keeps: embedded servers, their data and keys"
    )
    instance_id: str = setting("", "name of this instance in leases and metadata; empty: host name")
    startup_timeout_seconds: float = setting(
        30, "seconds to wait for Redis and S3 at start before exit code 3",
        small="a server that starts beside us is given up", big="a wrong address is noticed late", ge=0, le=3600,
    )  # fmt: skip
    shutdown_timeout_seconds: float = setting(
        20, "seconds that a stop may take; parts in flight get nearly all of it",
        small="parts are sent again after the restart", big="a stop takes that long", ge=0, le=3600,
    )  # fmt: skip

    @property
    def host(self) -> str:
        return self.instance_id or socket.gethostname()
