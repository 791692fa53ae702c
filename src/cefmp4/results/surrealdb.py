"""Results as rows of SurrealDB, under these ids:

hls_playlist:<subject>                        the master: which attempt stands, and its document
hls_playlist:[subject, attempt, rendition]    one of its renditions
hls_segment:[subject, attempt, rendition, n]  one of its segments
file                                          the recording: the row that has its bucket and key

The rows of an attempt are there before the master names it, and those of others go afterwards. Who
reads by the attempt that the master names never sees a mixture.
"""

import hashlib
import posixpath
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cefmp4.config.settings import Settings
from cefmp4.errors import AccessDeniedError, PermanentError, TablesMissingError
from cefmp4.ports.results import JobResult
from cefmp4.storage.surreal.link import (
    RecordID,
    SurrealLink,
    define,
    open_surreal,
    surreal_config,
)
from cefmp4.storage.surreal.texts import storable

AT_A_TIME = 500  # segments a request: more would hold up everything else here

_KEY_INDEX = "DEFINE INDEX IF NOT EXISTS cefmp4_file_key ON file FIELDS key CONCURRENTLY"

_STANDING = "SELECT attempt, accepted_at FROM $master"
_FILE = """
    LET $found = (
        SELECT VALUE id FROM file
        WHERE key = $key AND (bucket = $bucket OR ($is_ours AND !bucket)) LIMIT 1
    )[0];
    LET $file = $found ?? $new;
    UPSERT $file SET bucket = $bucket, key = $key RETURN VALUE <string>id;
"""
_SEGMENTS = """
    LET $file = <record>$file_ref;
    INSERT IGNORE INTO hls_segment (
        SELECT
            hls_segment:[$subject, $attempt, $rendition, n] AS id,
            key, bucket, size, meta,
            hls_playlist:[$subject, $attempt, $rendition] AS playlist, $file AS file,
            $subject AS stream_id, $attempt AS attempt, $accepted_at AS accepted_at
        FROM $rows
    ) RETURN NONE;
"""
# The one moment in which another attempt begins to stand.
_SWITCH = """
    BEGIN;
    LET $file = <record>$file_ref;
    LET $standing = (SELECT VALUE accepted_at FROM $master)[0];
    IF $standing IS NONE OR $standing <= $accepted_at {
        INSERT IGNORE INTO hls_playlist (
            SELECT
                hls_playlist:[$subject, $attempt, name] AS id,
                *, $master AS master, $file AS file,
                $subject AS stream_id, $attempt AS attempt, $accepted_at AS accepted_at
            FROM $renditions
        ) RETURN NONE;
        UPSERT $master SET
            kind = 'master', key = $master_key, bucket = $bucket, size = $size,
            file = $file, stream_id = $subject, job = $job,
            attempt = $attempt, accepted_at = $accepted_at, document = $document,
            renditions = (SELECT VALUE hls_playlist:[$subject, $attempt, name] FROM $renditions)
            RETURN NONE;
        UPDATE $file MERGE $facts RETURN NONE;
        UPDATE $file SET hls = $master RETURN NONE;
    };
    COMMIT;
    SELECT attempt, accepted_at FROM $master;
"""
_REMOVE_FORMER = """
    DELETE hls_segment:[$subject, NONE]..[$subject, ..]
        WHERE attempt != $attempt AND accepted_at <= $accepted_at RETURN NONE;
    DELETE hls_playlist:[$subject, NONE]..[$subject, ..]
        WHERE attempt != $attempt AND accepted_at <= $accepted_at RETURN NONE;
"""
_REMOVE_OWN = """
    DELETE hls_segment:[$subject, $attempt, NONE]..[$subject, $attempt, ..] RETURN NONE;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Track:
    """What has segments: a rendition, or the document itself where it names none."""

    name: str
    facts: dict[str, Any]
    rows: list[dict[str, Any]]


class SurrealResults:
    def __init__(self, link: SurrealLink, *, bucket: str) -> None:
        """`bucket`: of those rows of `file` that name none."""
        self._link = link
        self._bucket = bucket

    def __repr__(self) -> str:
        return f"<SurrealResults {self._link!r}>"

    async def keep(self, result: JobResult) -> str:
        try:
            return await self._keep(result)
        except AccessDeniedError:
            raise
        except PermanentError as error:  # a schema of theirs, say: the recording is not at fault
            raise TablesMissingError(str(error), hint="cefmp4 doctor tries each table") from error

    async def _keep(self, result: JobResult) -> str:
        subject, attempt = result.subject, result.attempt
        names = {"subject": subject, "attempt": attempt, "accepted_at": float(result.accepted_at)}
        master = RecordID("hls_playlist", subject)
        (standing,) = await self._link.query(_STANDING, master=master)
        if not standing or _is_former(standing[0], result):
            standing = await self._store(result, names, master)
        if standing and standing[0].get("attempt") == attempt:
            await self._link.query(_REMOVE_FORMER, **names)
        return f"surrealdb://{self._link.config.place}/hls_playlist/{subject}"

    async def _store(
        self, result: JobResult, names: dict[str, Any], master: RecordID
    ) -> list[dict[str, Any]]:
        """Which attempt stands then."""
        document = storable(result.document)
        tracks = list(_tracks(document))
        file_ref = await self._file(result)
        for track in tracks:
            for first in range(0, len(track.rows), AT_A_TIME):
                await self._link.query(
                    _SEGMENTS,
                    rows=[
                        _segment(number, row)
                        for number, row in enumerate(
                            track.rows[first : first + AT_A_TIME], start=first
                        )
                    ],
                    rendition=track.name,
                    file_ref=file_ref,
                    **names,
                )
        *_, standing = await self._link.query(
            _SWITCH,
            master=master,
            master_key=document.get("master_key"),
            bucket=document.get("bucket"),
            size=document.get("total_bytes"),
            job=result.job_id,
            document=_without_rows(document),
            renditions=[_rendition(track, document) for track in tracks],
            facts=_facts(result, document),
            file_ref=file_ref,
            **names,
        )
        if not standing or standing[0].get("attempt") != result.attempt:
            await self._link.query(_REMOVE_OWN, **names)
        return list(standing)

    async def _file(self, result: JobResult) -> str:
        """The row of the recording, by its name in SurrealQL."""
        source = result.source
        new = hashlib.sha256(repr((source.bucket, source.name)).encode()).hexdigest()[:24]
        *_, (ref,) = await self._link.query(
            _FILE,
            bucket=source.bucket,
            key=storable(source.key or source.path),
            is_ours=source.bucket in ("", self._bucket),
            new=RecordID("file", new),
        )
        return str(ref)


@asynccontextmanager
async def open_results(settings: Settings) -> AsyncIterator[SurrealResults]:
    async with open_surreal(surreal_config(settings)) as link:
        await define(link, _KEY_INDEX)
        yield SurrealResults(link, bucket=settings.s3_bucket_name)


def _is_former(standing: dict[str, Any], result: JobResult) -> bool:
    """Whether another one takes its place. What is no number was not written by us."""
    accepted_at = standing.get("accepted_at")
    if not isinstance(accepted_at, int | float):
        return True
    return accepted_at <= result.accepted_at and standing.get("attempt") != result.attempt


def _tracks(document: dict[str, Any]) -> Iterator[_Track]:
    if isinstance(rows := document.get("segments"), list):
        yield _Track(name="", facts={}, rows=rows)
    for number, facts in enumerate(document.get("renditions", ())):
        rows = facts.get("segments", [])
        yield _Track(name=facts.get("name") or str(number), facts=facts, rows=rows)


def _without_rows(document: dict[str, Any]) -> dict[str, Any]:
    """The number of segments stands where they stood."""
    found = _counted(document)
    if "renditions" in found:
        found["renditions"] = [_counted(facts) for facts in found["renditions"]]
    return found


def _counted(facts: dict[str, Any]) -> dict[str, Any]:
    rows = facts.get("segments")
    return facts | {"segments": len(rows)} if isinstance(rows, list) else dict(facts)


def _rendition(track: _Track, document: dict[str, Any]) -> dict[str, Any]:
    facts = track.facts
    folder = posixpath.dirname(document.get("master_key") or "")
    playlist = facts.get("playlist")
    return {
        "name": track.name,
        "kind": facts.get("kind"),
        "key": posixpath.join(folder, playlist) if playlist else None,
        "bucket": document.get("bucket"),
        "size": facts.get("bytes"),
        "segments": len(track.rows),
        "meta": {
            "duration": facts.get("duration_seconds"),
            **{
                name: facts.get(name)
                for name in ("width", "height", "fps", "codec", "encoder", "hdr", "language")
            },
        },
    }


def _segment(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """What a later version adds to a row goes to `meta`."""
    rest = {
        name: value for name, value in row.items() if name not in ("key", "bucket", "bytes", "size")
    }
    width, _, height = str(row.get("size") or "").partition("x")
    start, end = row.get("start"), row.get("end")
    if isinstance(start, int | float) and isinstance(end, int | float):
        rest["duration"] = round(end - start, 6)
    if width.isdecimal() and height.isdecimal():
        rest |= {"width": int(width), "height": int(height)}
    return {
        "n": number,
        "key": row.get("key"),
        "bucket": row.get("bucket"),
        "size": row.get("bytes"),
        "meta": rest,
    }


def _facts(result: JobResult, document: dict[str, Any]) -> dict[str, Any]:
    """Of the recording, as far as they are known: what is not leaves the row as it is."""
    source = result.source
    facts = {
        "size": source.size,
        "etag": source.etag,
        "duration": document.get("duration_seconds"),
        "stream_id": result.subject,
    }
    return {name: value for name, value in facts.items() if value}
