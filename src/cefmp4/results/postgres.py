"""Results as rows, in the tables of schema `cefmp4`: one of each recording and job, one of each
playlist and segment. All rows of a result come and go together."""

import posixpath
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any

from cefmp4.config.settings import Settings
from cefmp4.errors import SettingsError
from cefmp4.ports.results import JobResult
from cefmp4.storage.postgres.fit import fit_json, fit_text
from cefmp4.storage.postgres.link import Connection, Postgres
from cefmp4.storage.postgres.migrate import migrate
from cefmp4.storage.postgres.shared import shared_postgres, when_reachable, while_running

MASTER = "master"
_RENDITIONS, _SEGMENTS = "renditions", "segments"
_AT_A_TIME = 10_000  # rows that are sent and checked within the time of one answer
_SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")

# Whoever comes second waits here for the first, and then sees what that has written.
_KEEP = """
INSERT INTO cefmp4.results (job_id, kind, subject, attempt, accepted_at, document)
VALUES (%(job_id)s, %(kind)s, %(subject)s, %(attempt)s, to_timestamp(%(accepted_at)s), %(document)s)
ON CONFLICT (job_id) DO UPDATE SET kind = excluded.kind, subject = excluded.subject,
    attempt = excluded.attempt, accepted_at = excluded.accepted_at, document = excluded.document,
    made_at = now()
WHERE results.accepted_at < excluded.accepted_at
"""
_RECORDING = """
INSERT INTO cefmp4.recordings (subject, path, bucket, key, size, etag, duration_seconds)
VALUES (%(subject)s, %(path)s, %(bucket)s, %(key)s, %(size)s, %(etag)s, %(duration)s)
ON CONFLICT (subject) DO UPDATE SET bucket = excluded.bucket, key = excluded.key,
    path = coalesce(excluded.path, recordings.path),
    size = coalesce(nullif(excluded.size, 0), recordings.size),
    etag = coalesce(excluded.etag, recordings.etag),
    duration_seconds = coalesce(excluded.duration_seconds, recordings.duration_seconds),
    updated_at = now()
"""
_FORGET = "DELETE FROM cefmp4.hls_playlists WHERE subject = %s"  # and with them their segments
_PLAYLIST_COLUMNS = (
    "subject", "name", "job_id", "attempt", "position", "role", "bucket", "key", "bandwidth",
    "codecs", "encoder", "width", "height", "fps", "hdr", "language", "duration_seconds", "bytes",
)  # fmt: skip
_PLAYLIST = (
    f"INSERT INTO cefmp4.hls_playlists ({', '.join(_PLAYLIST_COLUMNS)}) "
    f"VALUES ({', '.join(f'%({name})s' for name in _PLAYLIST_COLUMNS)})"
)
_COPY_SEGMENTS = (
    "COPY cefmp4.hls_segments (subject, playlist, index, bucket, key, bytes, start_seconds,"
    " duration_seconds, width, height, fps, codec) FROM STDIN"
)

Document = Mapping[str, Any]


class PostgresResults:
    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    def __repr__(self) -> str:
        return f"<PostgresResults {self._postgres!r}>"

    async def keep(self, result: JobResult) -> str:
        with while_running():
            place = await self._put(result)
        return f"postgresql://{place} cefmp4.results/{result.job_id}"

    async def _put(self, result: JobResult) -> str:
        async with self._postgres.transaction() as connection:
            if await _stands(connection, result):
                await connection.execute(_RECORDING, _recording(result))
                if _RENDITIONS in result.document:
                    await _put_hls(connection, result)
            return f"{_host_of(connection)}/{connection.info.dbname}"


@asynccontextmanager
async def open_results(settings: Settings) -> AsyncIterator[PostgresResults]:
    async with shared_postgres(settings) as postgres:
        await when_reachable(settings, partial(_prepare, postgres))
        yield PostgresResults(postgres)


async def _prepare(postgres: Postgres) -> None:
    """What people say and write does not fit into another encoding."""
    (row,) = await postgres.fetch("SHOW server_encoding")
    if row["server_encoding"] != "UTF8":
        raise SettingsError(
            f"DATABASE_URL=***: the encoding of the database is {row['server_encoding']}",
            hint="make it with createdb --encoding=UTF8 --template=template0",
        )
    await migrate(postgres)


async def _stands(connection: Connection, result: JobResult) -> bool:
    """Whether it is news. What is there already came with all of its rows."""
    values = {
        "job_id": result.job_id,
        "kind": result.kind,
        "subject": result.subject,
        "attempt": result.attempt,
        "accepted_at": result.accepted_at,
        "document": fit_json(_without_rows(result.document)),
    }
    return (await connection.execute(_KEEP, values)).rowcount > 0


async def _put_hls(connection: Connection, result: JobResult) -> None:
    await connection.execute(_FORGET, [result.subject])
    async with connection.cursor() as cursor:
        await cursor.executemany(_PLAYLIST, _playlists(result))
        segments = (
            _segment(result.subject, track["name"], row)
            for track in result.document[_RENDITIONS]
            for row in track[_SEGMENTS]
        )
        while some := list(islice(segments, _AT_A_TIME)):
            async with cursor.copy(_COPY_SEGMENTS) as copy:
                for row in some:
                    await copy.write_row(row)


def _without_rows(document: Document) -> Document:
    """Those of a long recording would not fit into one JSON, and are rows anyway."""
    if _RENDITIONS not in document:
        return document
    tracks = [
        {name: value for name, value in track.items() if name != _SEGMENTS}
        for track in document[_RENDITIONS]
    ]
    return {**document, _RENDITIONS: tracks}


def _recording(result: JobResult) -> dict[str, Any]:
    source = result.source
    return {
        "subject": result.subject,
        "path": fit_text(source.path) or None,
        "bucket": fit_text(source.bucket),
        "key": fit_text(source.key),
        "size": source.size,
        "etag": fit_text(source.etag) or None,
        "duration": result.document.get("duration_seconds"),
    }


def _playlists(result: JobResult) -> Sequence[dict[str, Any]]:
    document = result.document
    known = dict.fromkeys(_PLAYLIST_COLUMNS) | {
        "subject": result.subject,
        "job_id": result.job_id,
        "attempt": result.attempt,
        "bucket": document["bucket"],
    }
    master = known | {
        "name": MASTER,
        "role": MASTER,
        "position": 0,
        "key": document["master_key"],
        "duration_seconds": document["duration_seconds"],
        "bytes": document["total_bytes"],
    }
    folder = posixpath.dirname(document["master_key"])
    tracks = [
        known | _playlist(track, folder) | {"position": position}
        for position, track in enumerate(document[_RENDITIONS], 1)
    ]
    return [master, *tracks]


def _playlist(track: Document, folder: str) -> dict[str, Any]:
    seconds = track["duration_seconds"]
    return {
        "name": track["name"],
        "role": track["kind"],
        "key": f"{folder}/{track['playlist']}",
        "bandwidth": round(track["bytes"] * 8 / seconds) if seconds else None,
        "codecs": track["codec"],
        "encoder": track["encoder"] or None,
        "width": track["width"],
        "height": track["height"],
        "fps": track["fps"],
        "hdr": track["hdr"],
        "language": fit_text(track["language"] or "") or None,
        "duration_seconds": seconds,
        "bytes": track["bytes"],
    }


def _segment(subject: str, playlist: str, row: Document) -> tuple[Any, ...]:
    size = _SIZE.fullmatch(row["size"])
    return (
        subject,
        playlist,
        row["index"],
        row["bucket"],
        row["key"],
        row["bytes"],
        row["start"],
        round(row["end"] - row["start"], 6),
        int(size[1]) if size else None,
        int(size[2]) if size else None,
        row["fps"],
        row["codec"],
    )


def _host_of(connection: Connection) -> str:
    """None for a socket; its path is nobody's address."""
    info = connection.info
    if info.host.startswith(("/", "@")):
        return ""
    host = f"[{info.host}]" if ":" in info.host else info.host
    return host if info.port == 5432 else f"{host}:{info.port}"
