"""Brings the tables of schema `cefmp4` to the version that this program knows. However many start
at once, each migration is applied once; one that breaks leaves nothing behind."""

import re
from dataclasses import dataclass
from pathlib import Path

import structlog

from cefmp4.errors import AccessDeniedError, PermanentError, SettingsError
from cefmp4.storage.postgres.errors import SCHEMA
from cefmp4.storage.postgres.link import Connection, Postgres

log = structlog.get_logger()

# Whoever else takes advisory locks in this database takes other ones. One that lasts as long as its
# transaction is let go by a crash, and passes through poolers.
_LOCK = 0x0CEF_3A94
_FOLDER = Path(__file__).parent / "migrations"
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    version: int
    name: str
    statements: str


def shipped(folder: Path = _FOLDER) -> list[Migration]:
    """In order, without a gap."""
    found = [
        Migration(version=int(named[1]), name=named[2], statements=path.read_text())
        for path in sorted(folder.iterdir())
        if (named := _FILE.fullmatch(path.name))
    ]
    if [one.version for one in found] != [*range(1, len(found) + 1)]:
        raise ValueError(f"the migrations in {folder} are not numbered one by one")
    return found


async def migrate(postgres: Postgres, known: list[Migration] | None = None) -> None:
    """Raises SettingsError where the database is of a newer CefMP4, and AccessDeniedError where we
    may not make what it lacks. Where it lacks nothing, no right to make tables is needed."""
    known = shipped() if known is None else known
    version = await version_in(postgres)
    check_not_newer(version, known)
    while version < len(known):
        version = await _apply(postgres, known, version)


async def version_in(postgres: Postgres) -> int:
    """Of the last migration that was applied; 0 where there is none."""
    async with postgres.connection() as connection:
        return await _version(connection)


def check_not_newer(version: int, known: list[Migration]) -> None:
    if version > len(known):
        raise SettingsError(
            "DATABASE_URL=***: its tables are of a newer CefMP4 "
            f"(version {version}, this one knows {len(known)})",
            hint="update CefMP4, or name another database",
        )


async def _apply(postgres: Postgres, known: list[Migration], version: int) -> int:
    """The next one. Answers the version that is there then."""
    try:
        async with postgres.transaction() as connection:
            await one_at_a_time(connection)
            version = await _version(connection)  # another may have been faster
            if version >= len(known):
                return version
            if version == 0:
                await _begin(connection)
            migration = known[version]
            await connection.execute(migration.statements.encode())
            await connection.execute(
                "INSERT INTO cefmp4.cefmp4_migrations (version, name) VALUES (%s, %s)",
                [migration.version, migration.name],
            )
    except AccessDeniedError as error:
        if error.is_stranger:
            raise
        raise AccessDeniedError(
            error.args[0],
            hint="let the user in DATABASE_URL make tables: GRANT CREATE ON DATABASE …, or "
            f"CREATE SCHEMA {SCHEMA} AUTHORIZATION …",
        ) from error
    except PermanentError as error:
        raise PermanentError(
            f"migration {known[version].version} ({known[version].name}) failed: {error.args[0]}"
        ) from error
    log.info("database migrated", version=migration.version, name=migration.name)
    return migration.version


async def one_at_a_time(connection: Connection) -> None:
    """Until the end of its transaction. What another made meanwhile, a session may not notice
    before it opens a table: the second statement is there for that."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    await connection.execute("SELECT FROM pg_namespace LIMIT 0")


async def _begin(connection: Connection) -> None:
    """A schema that is there may be one that we could not make ourselves."""
    row = await (
        await connection.execute("SELECT to_regnamespace('cefmp4') IS NULL AS is_missing")
    ).fetchone()
    if row and row["is_missing"]:
        await connection.execute("CREATE SCHEMA cefmp4")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS cefmp4.cefmp4_migrations ("
        "version integer PRIMARY KEY, name text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT now())"
    )


async def _version(connection: Connection) -> int:
    row = await (
        await connection.execute("SELECT to_regclass('cefmp4.cefmp4_migrations') AS known")
    ).fetchone()
    if row is None or row["known"] is None:
        return 0
    row = await (
        await connection.execute("SELECT max(version) AS version FROM cefmp4.cefmp4_migrations")
    ).fetchone()
    return int((row and row["version"]) or 0)
