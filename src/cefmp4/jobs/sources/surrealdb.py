"""Jobs from the rows of `hls_job` in SurrealDB: `queued`, then `in_progress`, then `complete` or
`faild`, which is how existing databases spell it. Beside the columns that users know:

cefmp4_claim       who took the row and did not say yet whether it became a job
cefmp4_claimed_at  when it was last looked at
cefmp4_job         the jobs that it became
cefmp4_told        when it was told how they ended; gone as soon as they are begun again
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from uuid import uuid4

import structlog

from cefmp4.config.settings import Settings
from cefmp4.errors import ServerUnreachableError, TransientError
from cefmp4.model.job import MAX_ERROR_CHARS, JobEnd
from cefmp4.ports.sources import Offer
from cefmp4.storage.surreal.errors import UnreadableError
from cefmp4.storage.surreal.link import RecordID, SurrealLink, define, open_surreal, surreal_config
from cefmp4.storage.surreal.texts import storable
from cefmp4.watch.selection import Selection

log = structlog.get_logger()

COMPLETE, FAILED = "complete", "faild"
LOOK_AGAIN_S = 10.0  # between two looks for rows that somebody took and left
QUEUE_EVERY_S = 60.0  # between the end of one walk through `file` and the next
PAGE = 200  # rows of `file` a question
MAX_REF_CHARS = 1000
RELEASE_S = 5.0
SORTED = 500  # rows

_STATUS_INDEX = """
    DEFINE INDEX IF NOT EXISTS cefmp4_hls_job_oldest ON hls_job FIELDS status, created CONCURRENTLY
"""
_FILE_INDEXES = """
    DEFINE INDEX IF NOT EXISTS cefmp4_hls_job_file ON hls_job FIELDS file CONCURRENTLY;
    DEFINE INDEX IF NOT EXISTS cefmp4_hls_playlist_file ON hls_playlist FIELDS file CONCURRENTLY;
"""

_FACTS = """
    <string>id AS ref, key, bucket, priority,
    file.{bucket, key} AS file, file IS NOT NONE AS has_file
"""
_TAKE = f"""
    SET status = 'in_progress', cefmp4_claim = $claim, cefmp4_claimed_at = time::now()
    RETURN {_FACTS}
"""
_IS_LEFT = """
    status = 'in_progress' AND cefmp4_claimed_at IS NOT NONE AND (
        (cefmp4_claim IS NOT NONE AND cefmp4_claimed_at < time::now() - 1m)
        OR (cefmp4_claim IS NONE AND cefmp4_job IS NOT NONE
            AND cefmp4_claimed_at < time::now() - 10m)
    )
"""


def _claiming(condition: str) -> str:
    """The oldest of those that come first by the index, which are the oldest of all: to sort a
    queue of thousands for each few of them would take longer than anything else."""
    took = _TAKE.replace("RETURN", f"WHERE {condition} RETURN")
    return f"""
        UPDATE (
            SELECT id, created FROM (
                SELECT id, created FROM hls_job WHERE {condition} LIMIT {SORTED}
            ) ORDER BY created LIMIT $most
        ) {took}
    """


_CLAIM_QUEUED = _claiming("status = 'queued'")
_CLAIM_LEFT = _claiming(_IS_LEFT)
_CLAIMED = "SELECT VALUE id FROM hls_job WHERE status = 'in_progress' AND cefmp4_claim = $claim"
_READ = f"SELECT {_FACTS} FROM $row"
_ACCEPT = """
    LET $row = <record>$ref;
    UPDATE $row SET
        cefmp4_job = $jobs, cefmp4_claim = NONE, cefmp4_claimed_at = time::now(),
        cefmp4_told = NONE, error = NONE, result = NONE, ended = NONE
        WHERE status = 'in_progress' AND cefmp4_claim = $claim RETURN NONE
"""
_REFUSE = f"""
    SET status = '{FAILED}', error = $error, ended = time::now(), cefmp4_claim = NONE,
        cefmp4_claimed_at = NONE
    WHERE status = 'in_progress' AND cefmp4_claim = $claim RETURN NONE
"""
# One that was looked at again, and whose job goes on, is no news to whoever waits.
_RELEASE = """
    UPDATE hls_job SET
        status = IF cefmp4_job IS NONE OR cefmp4_told IS NOT NONE
            THEN 'queued' ELSE 'in_progress' END,
        cefmp4_claimed_at = IF cefmp4_job IS NONE OR cefmp4_told IS NOT NONE
            THEN NONE ELSE time::now() END,
        cefmp4_claim = NONE
        WHERE status = 'in_progress' AND cefmp4_claim = $claim RETURN NONE
"""
# Whether or not its poller came to say that it was begun; but once, and not of a former run while
# the row is being begun again.
_REPORT = """
    BEGIN;
    LET $row = <record>$ref;
    UPDATE $row SET
        status = $status, attempts = $attempts, error = $error, result = $result,
        ended = time::now(), cefmp4_claim = NONE, cefmp4_claimed_at = NONE,
        cefmp4_job = cefmp4_job ?? [$job], cefmp4_told = time::now()
        WHERE cefmp4_told IS NONE RETURN NONE;
    SELECT VALUE cefmp4_claim FROM $row WHERE cefmp4_claim IS NOT NONE;
    COMMIT;
"""
_WAITING = "SELECT VALUE count FROM (SELECT count() FROM hls_job WHERE status = 'queued' GROUP ALL)"

_FILE_FACTS = "id, <string>id AS ref, key, !hls AS lacks_hls"
_FILE_PAGE = f"SELECT {_FILE_FACTS} FROM file START $start LIMIT $page"
_FILE_IDS = "SELECT VALUE id FROM file START $start LIMIT $page"
_FILE = f"SELECT {_FILE_FACTS} FROM $row"
_KNOWN = """
    SELECT VALUE <string>file FROM hls_job WHERE file IN $files;
    SELECT VALUE <string>file FROM hls_playlist WHERE file IN $files;
"""
_QUEUE = """
    INSERT IGNORE INTO hls_job (
        SELECT id, <record>ref AS file, 'queued' AS status, time::now() AS created FROM $rows
    ) RETURN VALUE status
"""


class SurrealSource:
    name: ClassVar[str] = "surrealdb"
    wants_reports: ClassVar[bool] = True
    repeats_mean_again: ClassVar[bool] = True

    def __init__(
        self, link: SurrealLink, *, poll_s: float, queued_files: Selection | None = None
    ) -> None:
        """`queued_files`: those rows of `file` that get a job by themselves, by their keys."""
        self.place = f"{link.config.place}/hls_job"  # its address may be written in several ways
        self._link = link
        self._poll_s = poll_s
        self._queued_files = queued_files
        self._claim = uuid4().hex
        self._open: set[str] = set()  # offers that nobody dealt with yet
        self._look_again_at = 0.0
        self._start, self._walk_at = 0, 0.0

    def __repr__(self) -> str:
        return f"<SurrealSource {self._link!r}>"

    @asynccontextmanager
    async def offers(self, most: int) -> AsyncIterator[Sequence[Offer]]:
        if self._queued_files is not None:
            await self._queue_files(self._queued_files)
        offers = await self._take(most)
        self._open = {offer.ref for offer in offers}
        try:
            yield offers
        finally:
            if self._open:
                await self._release()

    async def accept(self, offer: Offer, job_ids: Sequence[str]) -> None:
        await self._link.query(_ACCEPT, ref=offer.ref, jobs=list(job_ids), claim=self._claim)
        self._open.discard(offer.ref)

    async def refuse(self, offer: Offer, fault: str) -> None:
        await self._link.query(
            f"LET $row = <record>$ref; UPDATE $row {_REFUSE}",
            ref=offer.ref,
            error=storable(fault[:MAX_ERROR_CHARS]),
            claim=self._claim,
        )
        self._open.discard(offer.ref)

    async def until_more(self) -> None:
        await asyncio.sleep(self._poll_s)

    async def report(self, end: JobEnd) -> None:
        if not end.spec.ref.startswith("hls_job:"):
            log.warning("no row has the name of this job", job_id=end.spec.id, ref=end.spec.ref)
            return
        *_, claims = await self._link.query(
            _REPORT,
            ref=end.spec.ref,
            job=end.spec.id,
            status=COMPLETE if end.is_complete else FAILED,
            attempts=end.attempts,
            error=storable(end.error[:MAX_ERROR_CHARS]) or None,
            result=storable(end.result),
        )
        if claims:
            raise TransientError(f"{end.spec.ref} is being begun again")

    async def waiting(self) -> int:
        (found,) = await self._link.query(_WAITING)
        return int(found[0]) if found else 0

    async def _take(self, most: int) -> list[Offer]:
        offers = await self._taken(_CLAIM_QUEUED, most)
        now = time.monotonic()
        if len(offers) < most and now >= self._look_again_at:
            offers += await self._taken(_CLAIM_LEFT, most - len(offers))
            self._look_again_at = now + LOOK_AGAIN_S
        return offers

    async def _release(self) -> None:
        """At a stop, too: what a server that hangs keeps is offered again after a minute."""
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._link.query(_RELEASE, claim=self._claim)
        except TimeoutError:
            raise ServerUnreachableError("SurrealDB is out of reach: it does not answer") from None

    async def _taken(self, claiming: str, most: int) -> list[Offer]:
        try:
            (rows,) = await self._link.query(claiming, most=most, claim=self._claim)
        except UnreadableError:
            rows = await self._readable_rows()
        return [_offer(row) for row in rows if await self._has_name(row)]

    async def _readable_rows(self) -> list[dict[str, Any]]:
        """Of those that we have claimed. The others are refused, or they would be in the way of all
        for ever."""
        (ids,) = await self._link.query(_CLAIMED, claim=self._claim)
        rows: list[dict[str, Any]] = []
        for row_id in ids:
            try:
                (found,) = await self._link.query(_READ, row=row_id)
                rows += found
            except UnreadableError as error:
                await self._refuse_row(row_id, str(error))
        return rows

    async def _has_name(self, row: dict[str, Any]) -> bool:
        """By which the engine and its people can keep it."""
        if len(row["ref"]) <= MAX_REF_CHARS:
            return True
        await self.refuse(Offer(ref=row["ref"]), f"its id has more than {MAX_REF_CHARS} characters")
        return False

    async def _refuse_row(self, row_id: RecordID, fault: str) -> None:
        log.warning("not a job", source=self.name, reason=fault)
        await self._link.query(
            f"UPDATE $row {_REFUSE}", row=row_id, error=storable(fault), claim=self._claim
        )

    async def _queue_files(self, wanted: Selection) -> None:
        """One page. The same id is made of the same file, so that whoever does it too does no
        harm."""
        if time.monotonic() < self._walk_at:
            return
        files, is_last = await self._file_page()
        self._start += PAGE
        if is_last:
            self._start, self._walk_at = 0, time.monotonic() + QUEUE_EVERY_S
        lacking = [one for one in files if one["lacks_hls"] and _is_wanted(one["key"], wanted)]
        if not lacking:
            return
        known = await self._link.query(_KNOWN, files=[one["id"] for one in lacking])
        have = {ref for refs in known for ref in refs}
        rows = [
            {"id": RecordID("hls_job", _job_row_of(one["ref"])), "ref": one["ref"]}
            for one in lacking
            if one["ref"] not in have
        ]
        (queued,) = await self._link.query(_QUEUE, rows=rows)
        if queued:
            log.info("jobs queued of files without HLS", count=len(queued))

    async def _file_page(self) -> tuple[list[dict[str, Any]], bool]:
        try:
            (files,) = await self._link.query(_FILE_PAGE, start=self._start, page=PAGE)
        except UnreadableError:
            return await self._readable_files()
        return files, len(files) < PAGE

    async def _readable_files(self) -> tuple[list[dict[str, Any]], bool]:
        (ids,) = await self._link.query(_FILE_IDS, start=self._start, page=PAGE)
        files: list[dict[str, Any]] = []
        for row_id in ids:
            try:
                (found,) = await self._link.query(_FILE, row=row_id)
                files += found
            except UnreadableError as error:
                log.debug("a row of `file` is left alone", reason=str(error))
        return files, len(ids) < PAGE


@asynccontextmanager
async def open_source(settings: Settings) -> AsyncIterator[SurrealSource]:
    async with open_surreal(surreal_config(settings)) as link:
        files = None
        await define(link, _STATUS_INDEX)
        if settings.surreal_queue_files:
            files = Selection(settings.watch_filter_globs)
            await define(link, _FILE_INDEXES)
        yield SurrealSource(link, poll_s=settings.worker_poll_ms / 1000, queued_files=files)


def _offer(row: dict[str, Any]) -> Offer:
    """Its own key, or that of the row of `file` that it is linked to."""
    file = row["file"] if isinstance(row["file"], dict) else {}
    source = row if row["key"] is not None else file
    if row["key"] is None and file.get("key") is None:
        fault = "its file is not there, or has no key" if row["has_file"] else "it has no key"
        return Offer(ref=row["ref"], fault=fault)
    asked = {"key": source["key"], "bucket": source["bucket"], "priority": row["priority"]}
    return Offer(ref=row["ref"], jobs=(asked,))


def _is_wanted(key: object, wanted: Selection) -> bool:
    return isinstance(key, str) and wanted.wants(key)


def _job_row_of(file_ref: str) -> str:
    return "file_" + hashlib.sha256(file_ref.encode()).hexdigest()[:24]
