"""The table that people put jobs into, where they have none of their own yet. Its name is theirs to
choose; one that is there already is left as it is."""

import structlog
from psycopg import sql

from cefmp4.errors import CefError, PermanentError, SettingsError
from cefmp4.storage.postgres.link import Postgres
from cefmp4.storage.postgres.migrate import one_at_a_time

log = structlog.get_logger()

CHANNEL = "cefmp4_jobs"  # told of each job that waits
SETTING = "POSTGRES_JOBS_TABLE"
_LONGEST_NAME = 63

_TABLE = sql.SQL("""
CREATE TABLE {table} (
    id bigserial PRIMARY KEY,
    key text NOT NULL,
    bucket text,
    kind text NOT NULL DEFAULT 'hls',
    priority integer NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'done', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    error text,
    result jsonb,
    job_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
)""")
_INDEX = sql.SQL("CREATE INDEX ON {table} (status, priority DESC, id)")
_FUNCTION = """
CREATE OR REPLACE FUNCTION cefmp4.tell_of_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('cefmp4_jobs', '');
    RETURN NULL;
END $$"""
_TRIGGERS = (
    sql.SQL(
        "CREATE TRIGGER cefmp4_added AFTER INSERT ON {table} FOR EACH ROW "
        "WHEN (NEW.status = 'pending') EXECUTE FUNCTION cefmp4.tell_of_jobs()"
    ),
    sql.SQL(
        "CREATE TRIGGER cefmp4_again AFTER UPDATE OF status ON {table} FOR EACH ROW "
        "WHEN (NEW.status = 'pending' AND OLD.status IS DISTINCT FROM 'pending') "
        "EXECUTE FUNCTION cefmp4.tell_of_jobs()"
    ),
)


def table_named(name: str) -> sql.Identifier:
    """`jobs`, or `schema.jobs`, as POSTGRES_JOBS_TABLE has it."""
    parts = name.split(".")
    if len(parts) > 2 or not all(0 < len(part.encode()) <= _LONGEST_NAME for part in parts):
        raise SettingsError(f"{SETTING}={name}: it must be a table, or a schema, a dot and a table")
    return sql.Identifier(*parts)


async def make_jobs_table(postgres: Postgres, name: str = "jobs") -> bool:
    """Answers whether there was none. Call `migrate` before."""
    table = table_named(name)
    if await has_table(postgres, name):
        return False
    try:
        async with postgres.transaction() as connection:
            await one_at_a_time(connection)
            quoted = table.as_string(connection)
            found = await connection.execute("SELECT to_regclass(%s) AS known", [quoted])
            if ((await found.fetchone()) or {}).get("known"):
                return False
            await connection.execute(_FUNCTION)
            for statement in (_TABLE, _INDEX, *_TRIGGERS):
                await connection.execute(statement.format(table=table))
    except PermanentError as error:
        raise _not_made(name, error) from error
    log.info("table of jobs made", table=name)
    return True


async def has_table(postgres: Postgres, name: str) -> bool:
    quoted = table_named(name).as_string(None)
    (row,) = await postgres.fetch("SELECT to_regclass(%s) IS NOT NULL AS is_there", [quoted])
    return bool(row["is_there"])


def _not_made(name: str, error: CefError) -> CefError:
    return type(error)(f"{SETTING}={name}: it cannot be made: {error.args[0]}", hint=error.hint)
