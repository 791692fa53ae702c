"""A certificate for 127.0.0.1 that only its maker trusts, and a server that has it."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from yarl import URL

CERTIFICATE = "cert.pem"


def tls_contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server needs, and what a client needs. Blocking."""
    certificate, key = folder / CERTIFICATE, folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate, key)
    return served, ssl.create_default_context(cafile=str(certificate))


@asynccontextmanager
async def tls_front(to_url: str, folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """Ends TLS in front of a server that speaks plain HTTP; the address, and whom to trust."""
    served, _ = await asyncio.to_thread(tls_contexts, folder)
    target = URL(to_url)

    async def serve(near: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        far, requests = await asyncio.open_connection(target.host, target.port)
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(near, requests))
            both.create_task(_pump(far, answers))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=served)
    try:
        port = listener.sockets[0].getsockname()[1]
        yield f"https://127.0.0.1:{port}", folder / CERTIFICATE
    finally:
        listener.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(256 * 1024):
            sink.write(data)
            await sink.drain()
    sink.close()
