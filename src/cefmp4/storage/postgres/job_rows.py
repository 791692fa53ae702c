"""The table of jobs as its users have it: under their names, with what they left out. All that is
asked of it is asked here; of columns that we do not know, nothing."""

import re
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from cefmp4.config.values import RENAMED_COLUMNS, RENAMED_STATES
from cefmp4.errors import CefError, PermanentError, SettingsError
from cefmp4.storage.postgres.fit import fit_json, fit_text
from cefmp4.storage.postgres.jobs_table import SETTING, make_jobs_table, table_named
from cefmp4.storage.postgres.link import Connection, Postgres, Row
from cefmp4.storage.postgres.migrate import migrate

USUAL_TABLE = "jobs"
NAMES = "POSTGRES_JOBS_NAMES"
NEEDED = ("id", "key", "status")
LONGEST_KEY, LONGEST_WORD = 1025, 256  # of which we read; more than that is no job anyway
STALE_AFTER = "10 minutes"
MOST_COUNTED = 10_000
_LONGEST_JOB_ID = 64
_OURS = "^w[0-9a-f]{20}-"  # ids of jobs that sources began
_BIGINTS = range(-(2**63), 2**63)
# What the data or a rule of the users says of one row: the others are well.
_OF_ONE_ROW = ("22", "23", "44", "54", "P0")


class RowRefusedError(PermanentError):
    """The database does not take this change of this row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the users call the columns that they have, and the states; by our names."""

    columns: Mapping[str, str]
    states: Mapping[str, str]

    @classmethod
    def of(cls, pairs: Iterable[str] = ()) -> "Names":
        """`ours=yours`, as in POSTGRES_JOBS_NAMES."""
        given = {
            ours.strip(): yours.strip()
            for ours, _, yours in (pair.partition("=") for pair in pairs)
        }
        called = {name: given.get(name, name) for name in (*RENAMED_COLUMNS, *RENAMED_STATES)}
        columns = {name: called[name] for name in RENAMED_COLUMNS if called[name]}
        states = {name: called[name] for name in RENAMED_STATES}
        _check_distinct("column", columns.values())
        _check_distinct("state", states.values())
        return cls(columns=columns, states=states)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`category` as Postgres groups types: S are texts, E enumerations."""

    name: str
    type: str
    category: str
    may_be_null: bool
    most_chars: int | None
    labels: Sequence[str]

    @property
    def is_text(self) -> bool:
        return self.category == "S"

    @property
    def is_number(self) -> bool:
        return self.type in ("int2", "int4", "int8")

    @property
    def is_word(self) -> bool:
        return self.is_text or self.category == "E"

    def can_hold(self, text: str) -> bool:
        if self.category == "E":
            return text in self.labels
        return self.most_chars is None or len(text) <= self.most_chars


def _kinds(column: Column) -> dict[str, tuple[bool, str]]:
    """For each of our columns: whether this one would do, and what would."""
    word = (column.is_word, "a text or an enumeration")
    text = (column.is_text, "a text")
    number = (column.is_number, "an integer")
    is_id = column.is_number or column.is_text or column.type == "uuid"
    is_json = column.type in ("json", "jsonb") or column.is_text
    can_hold_id = column.is_text and column.can_hold("x" * _LONGEST_JOB_ID)
    is_time = column.type in ("timestamptz", "timestamp")
    return {
        "id": (is_id, "an integer, a text or a uuid"),
        "key": text,
        "bucket": text,
        "kind": word,
        "priority": number,
        "status": word,
        "attempts": number,
        "error": text,
        "result": (is_json, "jsonb, json or a text"),
        "job_id": (can_hold_id, f"a text of {_LONGEST_JOB_ID} characters or more"),
        "updated_at": (is_time, "a timestamp"),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRow:
    ref: str
    asked: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the job of a row ended. `state` is ours: done or failed."""

    ref: str
    job_id: str
    state: str
    attempts: int
    error: str
    result: Mapping[str, Any] | None


class JobRows:
    """Use `open_job_rows`. `place` names the table, the same wherever it is asked from."""

    def __init__(
        self,
        postgres: Postgres,
        *,
        table: tuple[str, str],
        place: str,
        columns: Mapping[str, Column],
        states: Mapping[str, str],
    ) -> None:
        self.place = place
        self._postgres = postgres
        self._path = table
        self._table = sql.Identifier(*table)
        self._columns = columns
        self._states = states

    def __repr__(self) -> str:
        return f"<JobRows {self.place}>"

    @asynccontextmanager
    async def claimed(
        self, most: int, *, but: Collection[str] = (), with_stale: bool = False
    ) -> AsyncIterator["Claim"]:
        """Some that are pending; `with_stale` also some that we began, and of which nothing was
        heard for long. They are locked until the block ends; if it ends with an error of ours, what
        was said of some of them stands."""
        failure: CefError | None = None
        async with self._postgres.transaction() as connection:
            rows = await self._pending(connection, most, but)
            if with_stale and len(rows) < most:
                rows += await self._stale(connection, most - len(rows), but)
            try:
                yield Claim(rows=rows, table=self, connection=connection)
            except CefError as error:
                failure = error
        if failure:
            raise failure

    async def count_pending(self) -> int:
        """Of very many, so many."""
        query = sql.SQL(
            "SELECT count(*) AS waiting FROM "
            "(SELECT FROM {table} WHERE {status} = %s LIMIT {most}) AS found"
        ).format(table=self._table, status=self._at("status"), most=MOST_COUNTED)
        (row,) = await self._postgres.fetch(query, [self._states["pending"]])
        return int(row["waiting"])

    async def end(self, ending: Ending) -> bool:
        """Whether that was news. A row that is gone, or of another job by now, stays as it is."""
        if not self._is_id(ending.ref):
            return False
        state = self._states[ending.state]
        result = None if ending.result is None else fit_json(ending.result)
        statement, values = self._change(
            status=state, attempts=ending.attempts, error=ending.error or None, result=result
        )
        conditions = [statement, sql.SQL(" AND {} IS DISTINCT FROM %s").format(self._at("status"))]
        values += [ending.ref, state]
        if "job_id" in self._columns:
            conditions.append(
                sql.SQL(" AND ({job} = %s OR {job} IS NULL)").format(job=self._at("job_id"))
            )
            values.append(ending.job_id)
        return await self._postgres.execute(sql.Composed(conditions), values) > 0

    async def begun(self, connection: Connection, ref: str, job_id: str) -> None:
        await self._mark(connection, ref, status=self._states["processing"], job_id=job_id)

    async def refused(self, connection: Connection, ref: str, error: str) -> None:
        await self._mark(connection, ref, status=self._states["failed"], error=error)

    async def _mark(self, connection: Connection, ref: str, **changes: str) -> None:
        """In a savepoint: what one row does not take must not end the transaction of the others."""
        statement, values = self._change(**changes)
        try:
            async with connection.transaction():
                changed = (await connection.execute(statement, [*values, ref])).rowcount
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith(_OF_ONE_ROW):
                raise
            raise RowRefusedError(f"{error.diag.message_primary}") from error
        if not changed:
            raise RowRefusedError("a rule or a trigger of the table keeps it as it is")

    def _change(self, **changes: str | int | None) -> tuple[sql.Composed, list[Any]]:
        """An UPDATE of the row whose id is the next value."""
        known = {name: value for name, value in changes.items() if name in self._columns}
        sets = [sql.SQL("{} = %s").format(self._at(name)) for name in known]
        if "updated_at" in self._columns:
            sets.append(sql.SQL("{} = {}").format(self._at("updated_at"), self._now))
        statement = sql.SQL("UPDATE {table} SET {sets} WHERE {id} = {ref}").format(
            table=self._table, sets=sql.SQL(", ").join(sets), id=self._at("id"), ref=self._as_id
        )
        return statement, [self._fitting(name, value) for name, value in known.items()]

    def _fitting(self, name: str, value: str | int | None) -> str | int | None:
        column = self._columns[name]
        if value is None and not column.may_be_null:
            return "{}" if name == "result" else ""
        if not isinstance(value, str):
            return value
        return fit_text(value)[: column.most_chars] if name == "error" else fit_text(value)

    async def _pending(
        self, connection: Connection, most: int, but: Collection[str]
    ) -> list[ClaimedRow]:
        condition = sql.SQL("{} = %s").format(self._at("status"))
        order = [self._by_priority] if "priority" in self._columns else []
        order.append(self._theirs("id"))
        return await self._locked(
            connection, condition, [self._states["pending"]], order, most=most, but=but
        )

    async def _stale(
        self, connection: Connection, most: int, but: Collection[str]
    ) -> list[ClaimedRow]:
        """The engine may have lost its data; what it knows it is not given twice."""
        if not {"job_id", "updated_at"} <= self._columns.keys():
            return []
        condition = sql.SQL("{status} = %s AND {job} ~ %s AND {at} < {now} - %s::interval").format(
            status=self._at("status"),
            job=self._at("job_id"),
            at=self._at("updated_at"),
            now=self._now,
        )
        values = [self._states["processing"], _OURS, STALE_AFTER]
        order = [self._theirs("updated_at")]
        return await self._locked(connection, condition, values, order, most=most, but=but)

    async def _locked(
        self,
        connection: Connection,
        condition: sql.Composable,
        values: list[Any],
        order: Sequence[sql.Composable],
        *,
        most: int,
        but: Collection[str],
    ) -> list[ClaimedRow]:
        query = sql.SQL(
            "SELECT {read} FROM {table} WHERE {condition} AND {id} IS NOT NULL"
            " AND {id}::text <> ALL(%s::text[]) ORDER BY {order} LIMIT %s FOR UPDATE SKIP LOCKED"
        ).format(
            read=self._read,
            table=self._table,
            condition=condition,
            id=self._at("id"),
            order=sql.SQL(", ").join(order),
        )
        found = await (await connection.execute(query, [*values, list(but), most])).fetchall()
        return [_claimed(row) for row in found]

    @property
    def _read(self) -> sql.Composable:
        columns = [sql.SQL("{}::text AS ref").format(self._at("id"))]
        longest = {"key": LONGEST_KEY, "bucket": LONGEST_WORD, "kind": LONGEST_WORD}
        columns += [
            sql.SQL("left({}::text, {}) AS {}").format(self._at(ours), most, sql.Identifier(ours))
            for ours, most in longest.items()
            if ours in self._columns
        ]
        if "priority" in self._columns:
            columns.append(sql.SQL("{} AS priority").format(self._at("priority")))
        return sql.SQL(", ").join(columns)

    @property
    def _by_priority(self) -> sql.Composable:
        """An index helps only where there is nothing to be read as 0."""
        at = self._theirs("priority")
        order = "coalesce({}, 0) DESC" if self._columns["priority"].may_be_null else "{} DESC"
        return sql.SQL(order).format(at)

    @property
    def _now(self) -> sql.SQL:
        """What has no time zone is taken as UTC."""
        has_zone = self._columns["updated_at"].type == "timestamptz"
        return sql.SQL("now()" if has_zone else "(now() AT TIME ZONE 'UTC')")

    @property
    def _as_id(self) -> sql.SQL:
        column = self._columns["id"]
        if column.is_number:
            return sql.SQL("%s::int8")
        return sql.SQL("%s::uuid" if column.type == "uuid" else "%s")

    def _is_id(self, ref: str) -> bool:
        column = self._columns["id"]
        if column.is_number:
            return re.fullmatch(r"-?[0-9]{1,19}", ref) is not None and int(ref) in _BIGINTS
        if column.type == "uuid":
            return _is_uuid(ref)
        return fit_text(ref) == ref

    def _at(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._columns[name].name)

    def _theirs(self, name: str) -> sql.Identifier:
        """Where what we read may have the same name, and another meaning."""
        return sql.Identifier(*self._path, self._columns[name].name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Rows that are ours until its block ends."""

    rows: Sequence[ClaimedRow]
    table: JobRows
    connection: Connection

    async def begun(self, ref: str, job_id: str) -> None:
        """Raises RowRefusedError; so does `refused`."""
        await self.table.begun(self.connection, ref, job_id)

    async def refused(self, ref: str, error: str) -> None:
        await self.table.refused(self.connection, ref, error)


async def open_job_rows(postgres: Postgres, *, table: str, names: Sequence[str]) -> JobRows:
    """As `find_job_rows`. Where people have no table, and want none of their own, it is made."""
    found = await find_job_rows(postgres, table=table, names=names)
    if found is None:
        await migrate(postgres)  # its trigger lives in the schema that is ours
        await make_jobs_table(postgres, table)
        found = await find_job_rows(postgres, table=table, names=names)
    if found is None:
        raise _no_such_table(table)
    return found


async def find_job_rows(postgres: Postgres, *, table: str, names: Sequence[str]) -> JobRows | None:
    """None where there is no table yet, and one can be made. Raises SettingsError, naming the
    setting, where it is not as it must be."""
    called = Names.of(names)
    found = await _find(postgres, table)
    if found is None:
        if table == USUAL_TABLE and not names:
            return None
        raise _no_such_table(table)
    _check_usable(table, found)
    return JobRows(
        postgres,
        table=(found["schema"], found["name"]),
        place=f"{found['database']}/{found['schema']}.{found['name']}",
        columns=_matched(called, await _columns(postgres, found["oid"]), found["name"]),
        states=called.states,
    )


def _no_such_table(table: str) -> SettingsError:
    return SettingsError(
        f"{SETTING}={table}: there is no such table in the database of DATABASE_URL",
        hint=f"make it; without {NAMES}, the table {USUAL_TABLE} makes itself",
    )


_FIND = """
SELECT c.oid, current_database() AS database, n.nspname AS schema, c.relname AS name,
    c.relkind IN ('r', 'p', 'v', 'f') AS has_rows,
    has_any_column_privilege(c.oid, 'SELECT') AND has_any_column_privilege(c.oid, 'UPDATE')
    AS is_allowed
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""
# Of a domain, what it is made of.
_COLUMNS = """
SELECT a.attname AS name, base.typname AS type, base.typcategory::text AS category,
    NOT (a.attnotnull OR own.typnotnull) AS may_be_null,
    CASE WHEN base.typname IN ('varchar', 'bpchar')
        THEN nullif(greatest(a.atttypmod, own.typtypmod), -1) - 4 END AS most_chars,
    ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = base.oid) AS labels
FROM pg_attribute a
JOIN pg_type own ON own.oid = a.atttypid
JOIN pg_type base ON base.oid = CASE own.typtype WHEN 'd' THEN own.typbasetype ELSE own.oid END
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""


async def _find(postgres: Postgres, table: str) -> Row | None:
    rows = await postgres.fetch(_FIND, [table_named(table).as_string(None)])
    return rows[0] if rows else None


def _check_usable(table: str, found: Row) -> None:
    if not found["has_rows"]:
        raise SettingsError(f"{SETTING}={table}: it is no table")
    if not found["is_allowed"]:
        raise SettingsError(
            f"{SETTING}={table}: the user in DATABASE_URL may not read and change it",
            hint=f"GRANT SELECT, UPDATE ON {table} TO …",
        )


async def _columns(postgres: Postgres, oid: int) -> dict[str, Column]:
    rows = await postgres.fetch(_COLUMNS, [oid])
    return {row["name"]: Column(**row) for row in rows}


def _matched(called: Names, there: Mapping[str, Column], table: str) -> dict[str, Column]:
    columns = {}
    for ours, theirs in called.columns.items():
        if theirs not in there:
            left_out = "" if ours in NEEDED else f", or {ours}= where it has none"
            raise SettingsError(
                f"{NAMES}: the table {table} has no column {theirs}",
                hint=f"say {ours}=its name there{left_out}",
            )
        column = columns[ours] = there[theirs]
        would_do, wanted = _kinds(column)[ours]
        if not would_do:
            raise SettingsError(
                f"{NAMES}: the column {theirs} of {table} is of the type {column.type}, "
                f"and as {ours} it must be {wanted}"
            )
    for ours, theirs in called.states.items():
        if not columns["status"].can_hold(theirs):
            raise SettingsError(
                f"{NAMES}: the column {columns['status'].name} of {table} cannot be {theirs}",
                hint=f"say {ours}=what it is called there",
            )
    return columns


def _check_distinct(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SettingsError(f"{NAMES}: the {what} {name} is named twice")
        seen.add(name)


def _claimed(row: Row) -> ClaimedRow:
    asked = {name: value for name, value in row.items() if name != "ref" and value is not None}
    return ClaimedRow(ref=row["ref"], asked=asked)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
