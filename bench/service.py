"""The service under measurement: one `cefmp4 ingest` process, or another `program`, watched through
its log, which costs it nothing, and through its HTTP port where the row says so."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import aiohttp

from bench import meter
from bench.place import Place, free_port

LOOK_S = 0.02
STORED, DESCRIBED, LOADED = "stream is stored", "stored and proven", "checkpoints loaded"
_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


class Service:
    """Starts at entering, ends at leaving."""

    def __init__(
        self,
        place: Place,
        *,
        watch: Path,
        folder: Path,
        settings: dict[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "cefmp4", "ingest"),
    ) -> None:
        self.log = folder / f"service-{time.monotonic_ns()}.log"
        self.port = free_port()
        self.started = 0.0  # wall clock
        self.seen: dict[str, list[float]] = {}  # wall clock times of each kind of log line
        self.trouble: Counter[str] = Counter()  # warnings and errors
        self._folder = folder
        self._program = program
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **place.base_environment,
            "APP_ENV": "production",
            "WATCH_DIR": str(watch),
            "HANDOVER_JOBS": "none",
            "PROM_PORT": str(self.port),
            "REDIS_URL": place.redis_url,
            "S3_ENDPOINT_URL": place.endpoint_url,
            "S3_ACCESS_KEY_ID": place.access_key,
            "S3_SECRET_ACCESS_KEY": place.secret_key,
            "S3_REGION_NAME": place.region,
            "S3_BUCKET_NAME": place.bucket,
            "TEMPORAL_ADDRESS": place.temporal_address,
            "TEMPORAL_CODEC_KEY": place.temporal_codec_key,
            **(settings or {}),
        }

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.started = time.time()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._program,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._folder, env=self._environment,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        return meter.cpu_seconds(self.pid)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait()

    def look(self) -> None:
        """Takes in what the log says since the last look."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        whole = text.rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            with suppress(ValueError):
                self._take_in(json.loads(line))

    def _take_in(self, fields: dict[str, Any]) -> None:
        at = datetime.fromisoformat(fields["timestamp"]).timestamp()
        self.seen.setdefault(fields["event"], []).append(at)
        if fields.get("level") in ("warning", "error"):
            self.trouble[fields["event"]] += 1

    async def until(self, event: str, count: int, timeout_s: float) -> float:
        """The time of the count-th such line of the log, in seconds since the start."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.look()
            if len(self.seen.get(event, ())) >= count:
                return self.seen[event][count - 1] - self.started
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the service ended: {self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {count} x '{event}' in {timeout_s:g} s: {self.tail()}")
            await asyncio.sleep(LOOK_S)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]

    async def ready(self, timeout_s: float) -> float:
        """Seconds from the start of the process to its first `ready`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(aiohttp.ClientError):
                async with self._http() as http, http.get(self._url("/readyz")) as reply:
                    if reply.status == 200:
                        return time.time() - self.started
            await asyncio.sleep(LOOK_S)
        raise TimeoutError(f"not ready after {timeout_s:g} s: {self.tail()}")

    async def streams(self) -> list[dict[str, Any]]:
        async with self._http() as http, http.get(self._url("/api/streams?limit=5000")) as reply:
            fields = await reply.json()
            return list(fields["streams"])

    async def metrics(self) -> dict[str, float]:
        """Sums over the labels; empty while nobody answers."""
        try:
            async with self._http() as http, http.get(self._url("/metrics")) as reply:
                text = await reply.text()
        except aiohttp.ClientError:
            return {}
        sums: Counter[str] = Counter()
        for name, value in _SAMPLE.findall(text):
            sums[name] += float(value)  # type: ignore[assignment]
        return dict(sums)

    def _http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"
