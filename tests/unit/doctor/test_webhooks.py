"""Whether anybody listens at WEBHOOK_URL: found out without telling them anything."""

import asyncio
import socket
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.support.ports import free_port
from tests.support.tls import tls_contexts

from cefmp4.config.webhooks import WebhookSettings
from cefmp4.doctor import webhooks
from cefmp4.doctor.webhooks import examine_webhooks
from cefmp4.model.diagnosis import Diagnosis, Level


async def examined(url: str) -> Diagnosis:
    given = {"webhook_url": SecretStr(url), "webhook_secret": SecretStr("x" * 16)}
    (found,) = await examine_webhooks(WebhookSettings.model_validate(given))
    assert "hidden" not in found.detail
    return found


async def test_nobody_is_called_back() -> None:
    assert await examine_webhooks(WebhookSettings()) == []


async def test_somebody_listens_and_hears_nothing() -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.put_nowait(await reader.read())
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", port := free_port()):
        found = await examined(f"http://me:hidden@127.0.0.1:{port}/hidden?hidden=1")
        async with asyncio.timeout(10):
            assert await heard.get() == b""
    assert (found.level, found.detail) == (
        Level.OK,
        f"somebody listens at http://127.0.0.1:{port}",
    )


async def test_nobody_listens_or_nobody_whom_we_trust(tmp_path: Path) -> None:
    found = await examined(f"http://127.0.0.1:{free_port()}/")
    assert (found.level, "does not answer" in found.detail) == (Level.WARN, True)
    served, _ = tls_contexts(tmp_path)
    async with await asyncio.start_server(_hang_up, "127.0.0.1", port := free_port(), ssl=served):
        found = await examined(f"https://127.0.0.1:{port}/")
    assert (found.level, "TLS" in found.detail) == (Level.WARN, True)


async def test_a_silent_one_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = await examined(f"https://127.0.0.1:{silent.getsockname()[1]}/")
    assert (found.level, found.detail.endswith("within 0.2 s")) == (Level.WARN, True)


async def _hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
