"""A table of jobs on the real Postgres, two pollers with pools of their own, and its users, who
have one, too."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb
from tests.support.source_backend import Seen

from cefmp4.jobs.sources.postgres import PostgresSource
from cefmp4.ports.sources import JobSource
from cefmp4.storage.postgres.job_rows import Names, open_job_rows
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres

POLL_S = 0.2


@dataclass
class PostgresBackend:
    """`names` as in POSTGRES_JOBS_NAMES."""

    users: Postgres
    sources: Sequence[PostgresSource]
    table: sql.Identifier
    names: Names

    @property
    def pollers(self) -> list[JobSource]:
        return list(self.sources)

    async def put(self, asked: dict[str, Any]) -> str:
        columns = [sql.Identifier(self.names.columns[ours]) for ours in asked]
        (row,) = await self.users.fetch(
            sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING {}::text AS ref").format(
                self.table,
                sql.SQL(", ").join(columns),
                sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
                self._at("id"),
            ),
            list(asked.values()),
        )
        return str(row["ref"])

    async def put_nonsense(self) -> str:
        return await self.put({"key": ""})

    async def row(self, ref: str) -> dict[str, Any]:
        """By our names."""
        (row,) = await self.users.fetch(
            sql.SQL("SELECT * FROM {} WHERE {}::text = %s").format(self.table, self._at("id")),
            [ref],
        )
        return {ours: row[theirs] for ours, theirs in self.names.columns.items()}

    async def seen(self, ref: str) -> Seen:
        row = await self.row(ref)
        ours = {theirs: ours for ours, theirs in self.names.states.items()}
        return Seen(
            ours[row["status"]], row.get("error") or "", row.get("attempts", 0), row.get("result")
        )

    async def put_back(self, ref: str) -> None:
        await self.change(ref, status=self.names.states["pending"])

    async def change(self, ref: str, **values: Any) -> None:
        sets = [sql.SQL("{} = %s").format(self._at(name)) for name in values]
        await self.users.execute(
            sql.SQL("UPDATE {} SET {} WHERE {}::text = %s").format(
                self.table, sql.SQL(", ").join(sets), self._at("id")
            ),
            [*(Jsonb(one) if isinstance(one, dict) else one for one in values.values()), ref],
        )

    async def pass_time(self) -> None:
        """What is claimed is free as soon as its transaction ends."""

    def _at(self, name: str) -> sql.Identifier:
        return sql.Identifier(self.names.columns[name])


@asynccontextmanager
async def jobs_in_postgres(
    url: str, *, table: str = "jobs", names: Sequence[str] = (), poll_s: float = POLL_S
) -> AsyncIterator[PostgresBackend]:
    async with AsyncExitStack() as stack:

        async def opened(pool_size: int) -> Postgres:
            config = PostgresConfig(url=url, pool_size=pool_size, timeout_s=10)
            return await stack.enter_async_context(open_postgres(config))

        sources = []
        for _ in range(2):
            postgres = await opened(3)
            rows = await open_job_rows(postgres, table=table, names=names)
            source = PostgresSource(postgres, rows, poll_s=poll_s)
            stack.push_async_callback(source.stop_listening)
            sources.append(source)
        yield PostgresBackend(
            await opened(2), sources, sql.Identifier(*table.split(".")), Names.of(names)
        )
