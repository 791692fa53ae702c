"""`POST /jobs`: who signs with the shared secret may have jobs made. The signature covers the time,
so that what somebody overheard is of no use minutes later; until then its id makes it harmless."""

import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from cefmp4.config.settings import Settings
from cefmp4.jobs.sources.asked import AskedJobs, NotAJobError
from cefmp4.model.job import JobSpec
from cefmp4.web.questions import read_body

REPLAY_WINDOW_S = 300


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """What X-Signature must be: HMAC-SHA256 over `timestamp.body`, in hex."""
    message = timestamp.encode("utf-8", "surrogateescape") + b"." + body
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Webhook:
    settings: Settings
    submit: Callable[[JobSpec], Awaitable[bool]]
    clock: Callable[[], float] = time.time

    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.post("/jobs", self.serve)]

    async def serve(self, request: web.Request) -> web.Response:
        secret = self.settings.webhook_secret
        if secret is None:
            raise web.HTTPServiceUnavailable(text="set WEBHOOK_SECRET to take jobs here")
        body = await read_body(request)
        self._check(secret.get_secret_value(), request, body)
        spec = self._spec(_table(body))
        is_new = await self.submit(spec)
        return web.json_response({"id": spec.id, "is_new": is_new}, status=202)

    def _check(self, secret: str, request: web.Request, body: bytes) -> None:
        """One answer for all that is wrong with a signature: it helps nobody to guess."""
        timestamp = request.headers.get("X-Timestamp", "")
        given = request.headers.get("X-Signature", "").strip().lower()
        right = sign(secret, timestamp, body)
        is_signed = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())
        if not is_signed:
            raise web.HTTPUnauthorized(
                text="X-Signature must be the hex HMAC-SHA256 of X-Timestamp, a dot and the body"
            )
        is_number = timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12
        if not is_number or abs(self.clock() - int(timestamp)) > REPLAY_WINDOW_S:
            raise web.HTTPUnauthorized(
                text=f"X-Timestamp must be Unix seconds, at most {REPLAY_WINDOW_S} s from now"
            )

    def _spec(self, asked: dict[str, Any]) -> JobSpec:
        jobs = AskedJobs(
            bucket=self.settings.s3_bucket_name, max_attempts=self.settings.worker_max_attempts
        )
        try:
            return jobs.spec(asked)
        except NotAJobError as error:
            raise _bad(str(error)) from None


def _table(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise _bad('the body must be a JSON object such as {"key": "a/b.mp4"}')
    return asked


def _bad(reason: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=reason)
