"""Asks SurrealDB about what its jobs and results need of it. Loads its client library."""

from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from cefmp4.config.settings import Settings
from cefmp4.config.sources import SourceType
from cefmp4.errors import CefError, SettingsError, TransientError
from cefmp4.model.diagnosis import Diagnosis, fail, fail_of, ok, warn
from cefmp4.storage.surreal.errors import InUseError
from cefmp4.storage.surreal.link import SurrealConfig, SurrealLink, open_surreal, surreal_config
from cefmp4.web.access import is_loopback

_STATES = "SELECT status, count() AS rows FROM hls_job GROUP BY status"
# Of what is written for a job and its result; a table with a schema may drop it in silence.
_FIELDS = {
    "hls_job": "status = 'queued', cefmp4_claim = 'doctor'",
    "file": "key = 'doctor', stream_id = 'doctor'",
    "hls_playlist": "key = 'doctor', attempt = 'doctor'",
    "hls_segment": "key = 'doctor', attempt = 'doctor'",
}
_DROPPED, _TAKEN_BACK = "cefmp4 doctor: it was dropped", "cefmp4 doctor: it is taken back"


async def examine_surrealdb(settings: Settings) -> list[Diagnosis]:
    config = replace(surreal_config(settings), patience_s=0.0)
    if (folder := config.folder) is not None and not folder.exists():
        return [ok("SurrealDB", f"{folder} will be made by the first start")]
    try:
        async with open_surreal(config) as link:
            version = await link.version()
            return [
                ok("SurrealDB", f"{version} answers, {config.place}"),
                *judge_endpoint(config),
                *[await _try_to_write(link, table) for table in _FIELDS],
                *(await _rows(link, settings)),
            ]
    except InUseError:
        return [ok("SurrealDB", f"another process of this machine has {config.folder} open")]
    except SettingsError as error:
        return [fail_of("SurrealDB", error, "")]
    except CefError as error:
        return [fail_of("SurrealDB", error, "check SURREAL_ENDPOINT and that the server runs")]


def judge_endpoint(config: SurrealConfig) -> list[Diagnosis]:
    if config.endpoint == "mem://":
        advice = "name a server, or surrealkv:///a/folder"
        return [warn("SurrealDB data", "mem:// forgets everything at the end", advice)]
    host = urlsplit(config.endpoint).hostname or ""
    if not config.endpoint.startswith("ws://") or is_loopback(host):
        return []
    if config.username:
        return [warn("SurrealDB access", "the password passes unencrypted", "use wss://")]
    advice = "set SURREAL_USERNAME and SURREAL_PASSWORD"
    return [warn("SurrealDB access", "whoever reaches its port may read and write", advice)]


async def _try_to_write(link: SurrealLink, table: str) -> Diagnosis:
    subject = f"SurrealDB {table}"
    last = _FIELDS[table].rpartition(", ")[2].partition(" ")[0]
    try:
        await link.query(
            f"""
            BEGIN;
            LET $row = (UPSERT {table}:cefmp4_doctor SET {_FIELDS[table]} RETURN AFTER)[0];
            THROW IF $row.{last} = 'doctor' THEN $taken_back ELSE $dropped END;
            COMMIT;
            """,
            taken_back=_TAKEN_BACK,
            dropped=_DROPPED,
        )
    except TransientError:
        raise
    except CefError as error:
        if _TAKEN_BACK in str(error):
            return ok(subject, "it takes what we write")
        if _DROPPED in str(error):
            advice = f"DEFINE FIELD {last} ON {table} and its like, see docs/sources.md"
            return fail(subject, f"its schema drops the field {last}", advice)
        return fail_of(subject, error, "give the user the role EDITOR, and the table our fields")
    return fail(subject, "it kept what was to be taken back", f"DELETE {table}:cefmp4_doctor")


async def _rows(link: SurrealLink, settings: Settings) -> list[Diagnosis]:
    if SourceType.SURREALDB not in settings.job_source_type:
        return []
    (found,) = await link.query(_STATES)
    return [judge_states(found)]


def judge_states(found: list[dict[str, Any]]) -> Diagnosis:
    counts: Counter[str] = Counter()
    for one in found:
        state = "failed" if one["status"] in ("faild", "failed") else str(one["status"])
        counts[state] += one["rows"]
    told = ", ".join(f"{counts[state]} {state}" for state in sorted(counts))
    return ok("SurrealDB jobs", told or "no rows of hls_job")
