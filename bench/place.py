"""Where a row runs: folders, and fresh servers, so that no run inherits what another left."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.front import read_count
from cefmp4.embedded.state import Connection
from cefmp4.embedded.supervisor import embedded_servers

GIB = 1024**3
READY_S = 10.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    short: bool
    files: Path  # where recordings lie
    servers: Path  # where the servers keep their data
    peers: Path  # the folder of the other tools' programs
    cores: int = os.cpu_count() or 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One S3 server, one Redis, one bucket, and one Temporal where there are jobs."""

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str
    region: str
    redis_url: str
    temporal_address: str = ""
    temporal_codec_key: str = ""
    ca_file: Path | None = None
    count_file: Path | None = None

    @property
    def received(self) -> int:
        """Bytes that clients have sent, headers included."""
        return read_count(self.count_file) if self.count_file else 0

    @property
    def base_environment(self) -> dict[str, str]:
        """Nothing of the caller's settings or credentials; both ways of naming trusted servers."""
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        if self.ca_file:
            environment["AWS_CA_BUNDLE"] = environment["SSL_CERT_FILE"] = str(self.ca_file)
        return environment


@asynccontextmanager
async def place(
    options: Options, *, tls: bool = False, front: bool = False, jobs: bool = False
) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch(options.servers))
        # They write little but wait for their disk; a folder in memory would flatter them.
        slow = stack.enter_context(scratch(options.files))
        redis = await stack.enter_async_context(_servers(slow, want_redis=True, want_temporal=jobs))
        s3 = await stack.enter_async_context(_servers(folder / "s3", want_s3=True))
        endpoint_url, ca_file, count_file = _given(s3.s3_endpoint_url), None, None
        if tls or front:
            ca_file = make_certificate(folder) if tls else None
            count_file = folder / "count"
            port = free_port()
            stack.enter_context(_front(urlsplit(endpoint_url).port or 0, port, count_file, ca_file))
            await _answers(port)
            endpoint_url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield Place(
            endpoint_url=endpoint_url,
            bucket=s3.bucket,
            access_key=_given(s3.s3_access_key_id),
            secret_key=_given(s3.s3_secret_access_key),
            region=s3.s3_region_name,
            redis_url=_given(redis.redis_url),
            temporal_address=redis.temporal_address or "",
            temporal_codec_key=redis.temporal_codec_key or "",
            ca_file=ca_file,
            count_file=count_file,
        )


@asynccontextmanager
async def _servers(
    folder: Path, *, want_redis: bool = False, want_s3: bool = False, want_temporal: bool = False
) -> AsyncIterator[Connection]:
    async with embedded_servers(
        folder,
        want_redis=want_redis,
        want_s3=want_s3,
        want_temporal=want_temporal,
        bucket="bench",
    ) as servers:
        yield servers.connection


def _given(text: str | None) -> str:
    assert text is not None
    return text


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cefmp4-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_certificate(folder: Path) -> Path:
    """Key and self-signed certificate for 127.0.0.1 in one file."""
    path = folder / "front.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign",
            "-keyout", str(path), "-out", str(folder / "cert.pem"),
        ],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + (folder / "cert.pem").read_bytes())
    return path


@contextmanager
def _front(to: int, port: int, count_file: Path, cert: Path | None) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.front", f"--port={port}", f"--to={to}"]
    command += [f"--count={count_file}", *([f"--cert={cert}"] if cert else [])]
    with child(command):
        yield


@contextmanager
def child(command: list[str], stdout: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process of ours that ends with the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
