"""Asks Postgres about what would keep jobs or results out of it. Loads its driver."""

from typing import Any

from cefmp4.config.settings import Settings
from cefmp4.config.sources import SourceType
from cefmp4.errors import CefError
from cefmp4.model.diagnosis import Diagnosis, fail, fail_of, ok, warn
from cefmp4.storage.postgres.job_rows import find_job_rows
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres
from cefmp4.storage.postgres.migrate import shipped, version_in
from cefmp4.storage.postgres.vectors import Vectors, look_for_vectors

_OLDEST_VERSION = 13
_TIMEOUT_S = 10.0

_FACTS = """
SELECT current_setting('server_version_num')::int / 10000 AS version,
       current_setting('server_version') AS release,
       current_database() AS database,
       current_user AS us,
       current_setting('transaction_read_only')::bool AS takes_no_writes,
       coalesce(has_schema_privilege(to_regnamespace('cefmp4'), 'USAGE, CREATE'), false)
           OR to_regnamespace('cefmp4') IS NULL
              AND has_database_privilege(current_database(), 'CREATE') AS may_make_tables,
       current_setting('max_connections')::int
           - current_setting('superuser_reserved_connections')::int AS places,
       (SELECT sum(numbackends)::int - 1 FROM pg_stat_database) AS taken,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS limit_of_user,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database())
           AS limit_of_database
"""


async def examine_postgres(settings: Settings) -> list[Diagnosis]:
    config = PostgresConfig(
        url=settings.needed_database_address,
        pool_size=1,
        timeout_s=min(settings.postgres_timeout, _TIMEOUT_S),
    )
    try:
        async with open_postgres(config) as postgres:
            (facts,) = await postgres.fetch(_FACTS)
            return [
                judge_version(facts),
                judge_role(facts),
                judge_tables(facts, await version_in(postgres), len(shipped())),
                judge_connections(facts, settings.postgres_pool_size),
                *await _jobs(postgres, settings),
                await _vectors(postgres),
            ]
    except CefError as error:
        return [fail_of("Postgres", error, "check DATABASE_URL and that the server runs")]


def judge_version(facts: dict[str, Any]) -> Diagnosis:
    if facts["version"] < _OLDEST_VERSION:
        advice = f"use Postgres {_OLDEST_VERSION} or newer"
        return fail("Postgres", f"version {facts['release']}", advice)
    return ok("Postgres", f"version {facts['release']} answers, database {facts['database']}")


def judge_role(facts: dict[str, Any]) -> Diagnosis:
    if facts["takes_no_writes"]:
        advice = "point DATABASE_URL at the primary; ?target_session_attrs=read-write finds it"
        return fail("Postgres role", "it takes no writes: a standby", advice)
    return ok("Postgres role", "it takes writes")


def judge_tables(facts: dict[str, Any], version: int, known: int) -> Diagnosis:
    subject = "Postgres tables"
    if version > known:
        detail = f"they are of a newer CefMP4: version {version}, this one knows {known}"
        return fail(subject, detail, "update CefMP4, or name another database in DATABASE_URL")
    if version == known:
        return ok(subject, f"schema cefmp4, version {version}")
    if facts["may_make_tables"]:
        return ok(subject, f"version {known} of schema cefmp4 is made at the next start")
    advice = f"CREATE SCHEMA cefmp4 AUTHORIZATION {facts['us']}, as its administrator"
    if version:
        advice = f"GRANT USAGE, CREATE ON SCHEMA cefmp4 TO {facts['us']}"
    detail = f"version {version} of {known}, and {facts['us']} may not make the rest"
    return fail(subject, detail, advice)


def judge_connections(facts: dict[str, Any], pool_size: int) -> Diagnosis:
    """Of each process; and one that listens."""
    subject, wanted = "Postgres connections", pool_size + 1
    limits = {
        "max_connections": facts["places"],
        f"the limit of user {facts['us']}": facts["limit_of_user"],
        f"the limit of database {facts['database']}": facts["limit_of_database"],
    }
    name, least = min(
        ((name, limit) for name, limit in limits.items() if limit is not None and limit >= 0),
        key=lambda one: one[1],
    )
    free = min(least, facts["places"] - facts["taken"])
    detail = f"each of our processes may want {wanted}"
    if free >= wanted:
        return ok(subject, f"{detail}, {free} of {facts['places']} are free")
    if free == least:
        return warn(
            subject, f"{detail}, {name} is {least}", "raise it, or lower POSTGRES_POOL_SIZE"
        )
    advice = "raise max_connections, lower POSTGRES_POOL_SIZE, or put a pooler in front of it"
    return warn(subject, f"{detail}, {free} of {facts['places']} are free", advice)


async def _jobs(postgres: Postgres, settings: Settings) -> list[Diagnosis]:
    if SourceType.POSTGRES not in settings.job_source_type:
        return []
    subject, table = "Postgres jobs", settings.postgres_jobs_table
    try:
        rows = await find_job_rows(postgres, table=table, names=settings.postgres_jobs_names)
    except CefError as error:
        return [fail_of(subject, error, "docs/sources.md tells what it must be")]
    if rows is None:
        return [ok(subject, f"the table {table} is made at the next start")]
    return [ok(subject, f"{await rows.count_pending()} wait in {rows.place}")]


async def _vectors(postgres: Postgres) -> Diagnosis:
    return judge_vectors(await look_for_vectors(postgres))


def judge_vectors(found: Vectors) -> Diagnosis:
    """Nothing fails without them."""
    subject = "Postgres vectors"
    match found:
        case Vectors.INSTALLED:
            return ok(subject, "pgvector is installed")
        case Vectors.OFFERED:
            return ok(subject, "pgvector is there, and is added when it is needed")
        case Vectors.FORBIDDEN:
            advice = "CREATE EXTENSION vector, as the administrator of the database"
            return warn(subject, "pgvector is there, and we may not add it", advice)
        case Vectors.ABSENT:
            advice = "install pgvector on the server where searching by meaning is wanted"
            return warn(subject, "the server has no pgvector", advice)
