"""A real browser, driven over its own protocol: one page, what it shows, what it complains of."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
NEEDS_CHROMIUM = pytest.mark.skipif(not PROGRAM, reason="needs Chromium: apt-get install chromium")
PATIENCE_S = 60.0
_POLL_S = 0.1
_KEY_CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
)


class Page:
    """`complaints`: errors and warnings of the console, scripts that crashed, and whatever the
    policy of the page forbade."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._sent = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.complaints: list[str] = []

    async def listen(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
            else:
                self._note(told["method"], told["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str([one.get("value") for one in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        answer = self._waiting[self._sent] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._sent, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            told = await answer
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        told = await self._evaluated(expression)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def _evaluated(self, expression: str) -> dict[str, Any]:
        return await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )

    async def until(self, expression: str, timeout_s: float = PATIENCE_S) -> Any:
        """Waits until the expression is true, and returns its value. What a page that is still
        being loaded does not know is not true yet."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            told = await self._evaluated(expression)
            if "exceptionDetails" not in told and (found := told["result"].get("value")):
                return found
            now = asyncio.get_running_loop().time()
            assert now < deadline, f"never: {expression}\n{await self.text()}\n{self.complaints}"
            await asyncio.sleep(_POLL_S)

    async def text(self) -> str:
        return str(await self.value("document.body.innerText"))

    async def press(self, key: str) -> None:
        """A key with a name such as ArrowLeft, or one character."""
        code = _KEY_CODES.get(key) or ord(key.upper())
        text = {"text": key} if len(key) == 1 else {}
        known: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    async def look_like(self, *, width: int, height: int, is_dark: bool) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, path: Path) -> None:
        told = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(told["data"]))


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Page]:
    """`folder` is for its profile. The browser ends with the block."""
    assert PROGRAM
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port_of(process, profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                pages = [one for one in await response.json() if one["type"] == "page"]
            address = pages[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen(), name="browser")
                for domain in ("Page", "Runtime", "Log"):
                    await page.call(f"{domain}.enable")
                yield page
        await listening
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _port_of(process: asyncio.subprocess.Process, file: Path) -> int:
    """It writes the port that it took into a file of its profile."""

    def told() -> list[str]:
        text = file.read_text() if file.exists() else ""
        return text.split() if "\n" in text else []

    async with asyncio.timeout(PATIENCE_S):
        while not (words := await asyncio.to_thread(told)):
            assert process.returncode is None, "the browser ended at once"
            await asyncio.sleep(_POLL_S)
    return int(words[0])
