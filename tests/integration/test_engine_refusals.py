"""A Temporal that does not let us in: each is one line that names the setting, and exit code 2
where waiting cannot help."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.ports import free_port
from tests.support.temporal_server import JobPlace
from tests.support.terminal import cefmp4

from cefmp4.app.engine import check_named, reach_engine
from cefmp4.config.settings import Settings
from cefmp4.errors import AccessDeniedError, ServerUnreachableError, SettingsError
from cefmp4.reachability import TEMPORAL
from cefmp4.temporal.refusals import meant_by

pytestmark = pytest.mark.integration

UNAUTHENTICATED = (
    "Failed client connect: `get_system_info` call error after connection: Status { code: "
    'Unauthenticated, message: "Request unauthorized.", source: None }'
)


def certificate(folder: Path, name: str) -> dict[str, Path]:
    paths = {"cert": folder / f"{name}.pem", "key": folder / f"{name}.key"}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", paths["key"],
         "-out", paths["cert"]],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


@asynccontextmanager
async def tls_listener(paths: dict[str, Path]) -> AsyncIterator[int]:
    """One that gets no further than the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths["cert"], paths["key"])
    context.set_alpn_protocols(["h2"])

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(1)
        writer.close()

    listener = await asyncio.start_server(hear, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


def settings(**given: Any) -> Settings:
    return Settings(**{"startup_timeout_seconds": 1, **given})


async def test_a_namespace_that_is_not_there(job_place: JobPlace) -> None:
    given = settings(**{**job_place.settings, "temporal_namespace": "nowhere"})
    with pytest.raises(AccessDeniedError, match=r"no namespace 'nowhere' \(check TEMPORAL_NAM"):
        await reach_engine(given)
    assert any("no namespace" in trouble for trouble in TEMPORAL.troubles)
    await reach_engine(settings(**job_place.settings))
    assert TEMPORAL.troubles == []


async def test_silence_is_waited_for_and_names_the_address(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnreachableError, match="TEMPORAL_ADDRESS") as caught:
        await reach_engine(settings(temporal_address=address, state_dir=tmp_path))
    assert address in str(caught.value)
    assert str(caught.value).count("check") == 1


async def test_tls_with_one_that_speaks_none(job_place: JobPlace) -> None:
    with pytest.raises(AccessDeniedError, match=r"does not speak TLS \(check TEMPORAL_TLS"):
        await reach_engine(settings(**job_place.settings, temporal_tls=True))


@pytest.mark.parametrize(
    ("host", "trusted", "named"),
    [
        ("localhost", "other", "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        ("127.0.0.1", "localhost", "TEMPORAL_TLS_SERVER_NAME"),
    ],
)
async def test_a_certificate_that_is_not_its_own(
    tmp_path: Path, host: str, trusted: str, named: str
) -> None:
    made = {name: certificate(tmp_path, name) for name in ("localhost", "other")}
    async with tls_listener(made["localhost"]) as port:
        given = settings(
            temporal_address=f"{host}:{port}",
            temporal_tls_server_ca_cert_path=made[trusted]["cert"],
            state_dir=tmp_path,
        )
        with pytest.raises(AccessDeniedError, match=named):
            await reach_engine(given)


def test_a_key_that_is_refused() -> None:
    """As Temporal Cloud says it; the embedded one knows no keys."""
    error = meant_by(RuntimeError(UNAUTHENTICATED), "cloud:7233")
    assert isinstance(error, AccessDeniedError)
    assert "TEMPORAL_API_KEY" in error.hint


async def run(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", *words),
        env={"PATH": os.environ["PATH"], "WATCH_DIR": str(folder), **environment},
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    _, said = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode or 0, said.decode()


@pytest.mark.parametrize("command", ["worker", "ingest"])
async def test_without_an_address_nothing_starts(tmp_path: Path, command: str) -> None:
    code, said = await run(tmp_path, command, REDIS_URL="redis://127.0.0.1:1")
    assert code == 2
    assert "TEMPORAL_ADDRESS is not set" in said
    assert "HANDOVER_JOBS=none" in said
    assert len(said.splitlines()) == 1


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    given = {
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(tmp_path / "none.pem"),
    }
    code, said = await run(tmp_path, "worker", **given)
    assert code == 2
    assert "TEMPORAL_TLS_SERVER_CA_CERT_PATH=" in said
    assert "No such file" in said


@pytest.mark.parametrize("command", ["worker", "ingest"])
async def test_hosts_that_share_a_temporal_are_told_to_share_a_key(
    command: str, tmp_path: Path
) -> None:
    """With a key of its own a worker would end the jobs of the others as a stranger's."""
    address = "temporal.invalid:7233"
    settings = Settings(temporal_address=address, state_dir=tmp_path, watch_dir=tmp_path)
    with pytest.raises(SettingsError, match=f"TEMPORAL_CODEC_KEY is not set.*{address}"):
        await reach_engine(settings)
    ended = await cefmp4(tmp_path, command, TEMPORAL_ADDRESS=address)
    assert (ended.code, "TEMPORAL_CODEC_KEY" in ended.err) == (2, True), ended
    here = Settings(temporal_address="[::1]:7233", state_dir=tmp_path / "state")
    check_named(here)
