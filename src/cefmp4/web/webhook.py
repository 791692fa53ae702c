"""`POST /jobs`: who signs with a shared secret may have jobs made, and ask how they are. Ids make
it harmless to send the same again."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web

from cefmp4.config.settings import Settings
from cefmp4.config.sources import SourceType
from cefmp4.errors import CefError, ServerUnreachableError
from cefmp4.jobs.overview import fields_of
from cefmp4.jobs.sources.asked import AskedJobs, NotAJobError, subject_of_id, subject_of_ref
from cefmp4.jobs.sources.feeder import count, figures_of
from cefmp4.jobs.webhook_signatures import (
    ID,
    OLD_TIMESTAMP,
    REPLAY_WINDOW_S,
    SIGNATURE,
    TIMESTAMP,
    is_of_now,
    is_signed,
    is_signed_in_hex,
)
from cefmp4.model.job import OFFERED_KINDS, Job, JobSpec, job_id_of
from cefmp4.ports.jobs import JobDesk
from cefmp4.web.answers import RETRY_AFTER_S
from cefmp4.web.guard import ORDER, ORDERS
from cefmp4.web.listener import listening
from cefmp4.web.questions import read_body

log = structlog.get_logger()

NAME = SourceType.WEBHOOK
MAX_ID_CHARS = 256
FRESH_S = 1.0
_LATER = {"Retry-After": str(RETRY_AFTER_S)}
# Beside all that is some JSON: what senders say who do not say what they send. curl has the last.
_MAYBE_JSON = frozenset(
    {"application/octet-stream", "text/plain", "application/x-www-form-urlencoded"}
)
_TOLD = (
    "id", "kind", "state", "step", "reason", "error", "attempts", "max_attempts", "result",
    "submitted_at", "ended_at",
)  # fmt: skip


class Webhook:
    def __init__(
        self, settings: Settings, desk: JobDesk, clock: Callable[[], float] = time.time
    ) -> None:
        self._secrets = settings.webhook_secrets
        self._desk = desk
        self._clock = clock
        self._asked = AskedJobs(
            bucket=settings.s3_bucket_name, max_attempts=settings.worker_max_attempts
        )
        self._queue = _Queue(desk, most=settings.webhook_max_queued)
        if self._secrets:
            figures_of(NAME)  # told of from the start

    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.post(ORDERS, self.take), web.get(ORDER, self.tell)]

    async def take(self, request: web.Request) -> web.Response:
        """Makes a job of it."""
        self._check_is_open()
        _check_type(request.content_type)
        body = await read_body(request)
        self._check(request.headers, body)
        try:
            spec = self._spec(_table(body), request.headers)
        except NotAJobError as error:
            count(NAME, figures_of(NAME), "refused")
            raise web.HTTPBadRequest(text=str(error)) from None
        await self._queue.check()
        is_new = await self._desk.submit(spec)
        if is_new:
            self._queue.one_more()
        count(NAME, figures_of(NAME), "begun" if is_new else "known")
        place = ORDER.format(id=spec.id)
        return web.json_response(
            {"id": spec.id, "is_new": is_new, "status_url": place},
            status=202,
            headers={"Location": place},
        )

    async def tell(self, request: web.Request) -> web.Response:
        """How a job is: to whoever may look at all of them, and to whoever ordered this one."""
        job_id = request.match_info["id"]
        if SIGNATURE in request.headers:
            self._check_is_open()
            self._check(request.headers, await read_body(request))
            if job_id not in _orders_of(request.headers[ID]):
                raise web.HTTPForbidden(
                    text=f"{ID} must be the id that this job was ordered with: another has its own"
                )
        return web.json_response(_standing_of(await self._desk.get(job_id)))

    def _check_is_open(self) -> None:
        if not self._secrets:
            raise web.HTTPServiceUnavailable(
                text="set WEBHOOK_SECRET to take jobs here", headers=_LATER
            )

    def _check(self, headers: Mapping[str, str], body: bytes) -> None:
        """One answer for all that is wrong with a signature: it helps nobody to guess."""
        if SIGNATURE in headers:
            is_right, timestamp = is_signed(self._secrets, headers, body), headers.get(TIMESTAMP)
        else:
            is_right = is_signed_in_hex(self._secrets, headers, body)
            timestamp = headers.get(OLD_TIMESTAMP)
        if not is_right:
            raise web.HTTPUnauthorized(
                text=f"{SIGNATURE} must be v1, and the base64 HMAC-SHA256 of {ID}, {TIMESTAMP} and "
                "body with dots between them; or X-Signature the hex one of X-Timestamp, a dot and "
                "the body"
            )
        if not is_of_now(timestamp or "", self._clock()):
            raise web.HTTPUnauthorized(
                text=f"the timestamp must be Unix seconds, at most {REPLAY_WINDOW_S} s from now"
            )

    def _spec(self, asked: dict[str, Any], headers: Mapping[str, str]) -> JobSpec:
        """The order's own id counts, else that of the message."""
        message_id = headers[ID] if SIGNATURE in headers else ""
        own_id = asked.get("id")
        if own_id or not message_id:
            return self._asked.spec(
                asked, source=NAME, ref=own_id if isinstance(own_id, str) else ""
            )
        if (
            not message_id.isascii()
            or not message_id.isprintable()
            or len(message_id) > MAX_ID_CHARS
        ):
            raise NotAJobError(f"{ID} must be at most {MAX_ID_CHARS} characters of ASCII")
        return self._asked.spec(
            asked, source=NAME, subject=subject_of_ref(NAME, message_id), ref=message_id
        )


class _Queue:
    """How many jobs wait: asked of the engine once a second for all who want to know."""

    def __init__(self, desk: JobDesk, *, most: int) -> None:
        self._desk = desk
        self._most = most
        self._asking = asyncio.Lock()
        self._asked_at = -FRESH_S
        self._depth = 0
        self._trouble = ""

    def one_more(self) -> None:
        self._depth += 1

    async def check(self) -> None:
        async with self._asking:
            if time.monotonic() - self._asked_at >= FRESH_S:
                await self._ask()
        if self._trouble:
            raise ServerUnreachableError(self._trouble)
        if self._depth >= self._most:
            raise web.HTTPServiceUnavailable(
                text=f"{self._depth} jobs wait already (WEBHOOK_MAX_QUEUED)", headers=_LATER
            )

    async def _ask(self) -> None:
        try:
            counts = [await self._desk.backlog(kind) for kind in OFFERED_KINDS]
            self._depth, self._trouble = sum(counts), ""
        except CefError as error:
            self._trouble = str(error)
        self._asked_at = time.monotonic()


@asynccontextmanager
async def taking_webhooks(settings: Settings, webhook: Webhook) -> AsyncIterator[None]:
    """On WEBHOOK_PORT, where there is one, and there nothing else."""
    if settings.webhook_port is None:
        yield
        return
    async with listening(
        settings, settings.webhook_port, webhook.routes(), setting="WEBHOOK_PORT", has_page=False
    ) as port:
        log.info("jobs are taken over HTTP", host=settings.http_host, port=port)
        yield


def _check_type(content_type: str) -> None:
    is_json = content_type.endswith(("/json", "+json"))
    if not is_json and content_type not in _MAYBE_JSON:
        raise web.HTTPUnsupportedMediaType(text="send JSON, as application/json")


def _orders_of(ordered_with: str) -> set[str]:
    """The jobs of somebody who named this id: of the message, or in the order."""
    try:
        subjects = (subject_of_ref(NAME, ordered_with), subject_of_id(ordered_with))
    except UnicodeEncodeError:
        return set()
    return {job_id_of(subject, kind) for subject in subjects for kind in OFFERED_KINDS}


def _standing_of(job: Job) -> dict[str, Any]:
    told = fields_of(job)
    percent = job.progress.percent if job.progress else 0.0
    return {name: told[name] for name in _TOLD} | {"percent": 100.0 if job.is_complete else percent}


def _table(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise NotAJobError('the body must be a JSON object such as {"key": "a/b.mp4"}')
    return asked
