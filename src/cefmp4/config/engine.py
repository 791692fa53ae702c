"""The engine that carries the jobs: Temporal."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, SecretStr, model_validator

from cefmp4.config import values
from cefmp4.config.section import Section, hidden, setting
from cefmp4.errors import SettingsError


def temporal_address_missing() -> SettingsError:
    return SettingsError(
        "TEMPORAL_ADDRESS is not set",
        hint="set it, or start `cefmp4 up`, which brings its own; HANDOVER_JOBS=none without "
        "WEBHOOK_URL makes no jobs",
    )


class EngineSettings(Section):
    temporal_address: Annotated[str, AfterValidator(values.host_and_port)] | None = setting(
        None,
        "host:port of Temporal, which carries the jobs (with `cefmp4 up` empty: an embedded one)",
    )
    temporal_namespace: str = setting("default", "the namespace there; it must exist")
    temporal_api_key: SecretStr | None = setting(
        None, "key for a Temporal that asks for one; it is sent over TLS only"
    )
    temporal_tls: bool = setting(
        False, "speak TLS with it; true as soon as one of the next four, or a key, is set"
    )
    temporal_tls_server_ca_cert_path: Path | None = setting(
        None, "PEM file of the authority that signed its certificate; empty: those of the system"
    )
    temporal_tls_client_cert_path: Path | None = setting(
        None, "PEM file of our certificate, where it asks for one"
    )
    temporal_tls_client_key_path: Path | None = setting(None, "PEM file of its key")
    temporal_tls_server_name: str = setting(
        "", "name in its certificate; empty: that of the address"
    )
    temporal_codec_key: Annotated[SecretStr, hidden(values.check_codec_key)] | None = setting(
        None,
        "secret that signs what we put into Temporal, 16 characters or more, the same on every "
        "host; with a Temporal of this machine empty: one made in STATE_DIR. Whoever has it can give "
        "the workers work",
    )
    temporal_ui: bool = setting(
        False, "with `cefmp4 up`: show Temporal's own page, on loopback; the start says where"
    )

    @property
    def speaks_tls(self) -> bool:
        return bool(
            self.temporal_tls
            or self.temporal_api_key
            or self.temporal_tls_server_ca_cert_path
            or self.temporal_tls_client_cert_path
            or self.temporal_tls_server_name
        )

    @property
    def temporal_host(self) -> str:
        return (self.temporal_address or "").rpartition(":")[0]

    @property
    def needed_temporal_address(self) -> str:
        if self.temporal_address is None:
            raise temporal_address_missing()
        return self.temporal_address

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.temporal_tls_client_cert_path) != bool(self.temporal_tls_client_key_path):
            raise ValueError(
                "TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH go together: set "
                "both or none"
            )
        return self
