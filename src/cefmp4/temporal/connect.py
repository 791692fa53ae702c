"""The way to Temporal: where it is, and the key that signs what we put into it."""

from dataclasses import dataclass, field

from temporalio.client import Client
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import KeepAliveConfig, TLSConfig

from cefmp4.temporal import refusals
from cefmp4.temporal.signing import data_converter

EngineClient = Client
_KEEP_ALIVE = KeepAliveConfig(interval_millis=5000, timeout_millis=5000)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    address: str
    codec_key: bytes = field(repr=False)
    namespace: str = "default"
    api_key: str = field(default="", repr=False)
    speaks_tls: bool = False
    server_name: str = ""  # in its certificate, where that is not of the address
    ca_cert: bytes | None = field(default=None, repr=False)
    client_cert: bytes | None = field(default=None, repr=False)
    client_key: bytes | None = field(default=None, repr=False)


async def connect(config: EngineConfig, *, identity: str, is_lazy: bool = True) -> Client:
    """A lazy one sends nothing before its first request; only others can take work. Raises
    ServerUnreachableError, and AccessDeniedError where a setting is wrong."""
    try:
        return await _connect(config, identity, is_lazy)
    except RuntimeError as error:
        raise refusals.meant_by(error, config.address) from error


async def _connect(config: EngineConfig, identity: str, is_lazy: bool) -> Client:
    return await Client.connect(
        config.address,
        namespace=config.namespace,
        api_key=config.api_key or None,
        tls=_tls(config) if config.speaks_tls else False,
        data_converter=data_converter(config.codec_key),
        identity=identity,
        keep_alive_config=_KEEP_ALIVE,
        lazy=is_lazy,
        runtime=_runtime(),
    )


def _tls(config: EngineConfig) -> TLSConfig:
    return TLSConfig(
        server_root_ca_cert=config.ca_cert,
        client_cert=config.client_cert,
        client_private_key=config.client_key,
        domain=config.server_name or None,
    )


_runtimes: list[Runtime] = []


def _runtime() -> Runtime:
    """One of each process. It says nothing itself: what matters is told by who asked."""
    if not _runtimes:
        silence = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
        _runtimes.append(Runtime(telemetry=TelemetryConfig(logging=silence)))
    return _runtimes[0]
