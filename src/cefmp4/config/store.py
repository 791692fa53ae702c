"""The S3 server that keeps the objects, and the Redis that keeps the checkpoints."""

from typing import Annotated, Self

from pydantic import AfterValidator, SecretStr, model_validator

from cefmp4.config import values
from cefmp4.config.section import Section, hidden, setting
from cefmp4.errors import SettingsError
from cefmp4.model.names import DEFAULT_KEY_TEMPLATE, KeyConflict


class StoreSettings(Section):
    s3_endpoint_url: Annotated[str, AfterValidator(values.endpoint)] | None = setting(
        None, "address of the S3 server; empty: AWS (with `cefmp4 up`: an embedded server)"
    )
    s3_access_key_id: str | None = setting(
        None, "access key; empty: the usual AWS credential chain"
    )
    s3_secret_access_key: SecretStr | None = setting(None, "secret key")
    s3_bucket_name: Annotated[str, AfterValidator(values.bucket)] = setting(
        "cefmp4", "the bucket; it must exist"
    )
    s3_region_name: Annotated[str, AfterValidator(values.region)] = setting(
        "us-east-1", "region of the bucket"
    )
    s3_key_template: Annotated[str, AfterValidator(values.key_template)] = setting(
        DEFAULT_KEY_TEMPLATE,
        "object keys from {stream_id} {filename} {relpath} {stem} {date:%Y/%m/%d} {host}",
    )
    s3_key_conflict: KeyConflict = setting(
        KeyConflict.SUFFIX,
        "a recording whose key is taken: suffix stores it with ~<stream id> before the suffix of "
        "the key, fail stores nothing and its stream fails",
    )
    orphan_grace_seconds: float = setting(
        86400, "seconds an open upload under our prefix may lie unclaimed before it is aborted",
        small="uploads of another installation in the same bucket are at risk", big="forgotten parts cost money",
        ge=60,
    )  # fmt: skip
    redis_url: Annotated[SecretStr, hidden(values.check_redis_url)] | None = setting(
        None, "address of Redis (with `cefmp4 up` empty: an embedded Valkey)"
    )
    redis_host: Annotated[str, AfterValidator(values.redis_host)] | None = setting(
        None, "older spelling; use REDIS_URL"
    )
    redis_port: int = setting(6379, "older spelling; use REDIS_URL", ge=1, le=65535)
    lease_seconds: float = setting(
        10, "seconds after which the streams of a dead instance pass to another",
        small="a short stall loses streams to another instance", big="takeover waits that long", ge=2, le=600,
    )  # fmt: skip

    @property
    def redis_address(self) -> str | None:
        if self.redis_url:
            return self.redis_url.get_secret_value()
        if not self.redis_host:
            return None
        is_bare_v6 = ":" in self.redis_host and not self.redis_host.startswith("[")
        host = f"[{self.redis_host}]" if is_bare_v6 else self.redis_host
        return f"redis://{host}:{self.redis_port}/0"

    @property
    def needed_redis_address(self) -> str:
        if self.redis_address is None:
            raise SettingsError(
                "REDIS_URL is not set", hint="set it, or start `cefmp4 up`, which brings its own"
            )
        return self.redis_address

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key):
            raise ValueError(
                "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY go together: set both or none"
            )
        return self
