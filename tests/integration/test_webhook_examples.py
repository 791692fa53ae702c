"""The examples of docs/webhooks.md do what the page says: typed in as they stand there, against the
real port."""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.support.memory_engine import MemoryEngine
from tests.support.pretence import Pretence, pretending

from cefmp4.config.settings import Settings
from cefmp4.jobs.webhook_signatures import headers_for
from cefmp4.web.listener import listening
from cefmp4.web.webhook import Webhook

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()
ORDER, ASK = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
ORDER_IN_PYTHON, CHECK_IN_PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TEXT, IN_BASE64 = "just some text of ours", "whsec_c2l4dGVlbiBjaGFyYWN0ZXJz"


@pytest_asyncio.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    settings = Settings(
        webhook_secret=SecretStr(f"{TEXT},{IN_BASE64}"), s3_bucket_name="films", http_host="0.0.0.0"
    )
    with pretending(tmp_path / "work", Pretence()) as host:
        engine = MemoryEngine(host)
        async with listening(settings, 0, Webhook(settings, engine).routes()) as port:
            yield f"http://127.0.0.1:{port}"
        await engine.stop()


async def typed(*command: str, **variables: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


async def test_the_command_line(address: str) -> None:
    variables = {"WEBHOOK_SECRET": TEXT, "CEFMP4": address}
    made = await typed("sh", "-ec", ORDER, **variables)
    assert made["is_new"]
    again = await typed("sh", "-ec", ORDER, **variables)
    assert again == made | {"is_new": False}
    told = await typed("sh", "-ec", ASK, **variables, id="order-7", place=made["status_url"])
    assert told["id"] == made["id"]


@pytest.mark.parametrize("secret", [TEXT, IN_BASE64])
async def test_python(address: str, secret: str) -> None:
    variables = {"WEBHOOK_SECRET": secret, "CEFMP4": address}
    assert (await typed(sys.executable, "-c", ORDER_IN_PYTHON, **variables))["is_new"]


@pytest.mark.parametrize("secret", [TEXT, IN_BASE64])
def test_a_receiver(secret: str) -> None:
    place: dict[str, Any] = {}
    exec(CHECK_IN_PYTHON, place)
    headers = headers_for(secret, "msg_1", time.time(), b"{}")
    assert place["is_signed"](headers, b"{}", secret)
    assert not place["is_signed"](headers, b"{ }", secret)
    assert not place["is_signed"](headers_for(secret, "m", time.time() - 301, b""), b"", secret)
