"""Jobs in SurrealDB as their own users see them, past the port."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from surrealdb import RecordID
from tests.support.source_backend import Seen
from tests.support.surreal_server import DATABASE, NAMESPACE, PASSWORD, USER, SurrealServer

from cefmp4.jobs.sources.surrealdb import SurrealSource
from cefmp4.ports.sources import JobSource
from cefmp4.storage.surreal.link import SurrealConfig, SurrealLink

_STATES = {
    "queued": "pending",
    "in_progress": "processing",
    "complete": "done",
    "faild": "failed",
}
POLL_S = 0.1


def config_of(server: SurrealServer, **changes: Any) -> SurrealConfig:
    known = {"username": USER, "password": PASSWORD} if server.asks_for_user else {}
    given = {"endpoint": server.address, "namespace": NAMESPACE, "database": DATABASE}
    return SurrealConfig(**{**given, **known, "patience_s": 5.0, **changes})


def embedded_config(endpoint: str = "mem://") -> SurrealConfig:
    return SurrealConfig(endpoint=endpoint, namespace=NAMESPACE, database=DATABASE)


def sources_of(*links: SurrealLink) -> list[JobSource]:
    return [SurrealSource(link, poll_s=POLL_S) for link in links]


@dataclass
class SurrealBackend:
    """`rows` asks one statement of the database, by a connection that nothing else uses."""

    pollers: list[JobSource]
    rows: Callable[..., Awaitable[Any]]
    count: int = field(default=0)

    async def put(self, asked: dict[str, Any]) -> str:
        """Of all shapes: its own key, a link to a file, and odd ids."""
        self.count += 1
        ids = [self.count, f"odd `{self.count}' ⟩ id", ["day", self.count]]
        row_id = RecordID("hls_job", ids[self.count % 3])
        row = {"status": "queued", **asked}
        if self.count % 2:
            key = row.pop("key")
            file = RecordID("file", self.count)
            await self.rows("CREATE $file SET key = $key, size = 5", file=file, key=key)
            row["file"] = file
        (ref,) = await self.rows(
            "CREATE $row_id CONTENT $row RETURN VALUE <string>id", row_id=row_id, row=row
        )
        await self.rows("UPDATE $row_id SET created = time::now(), note = 'theirs'", row_id=row_id)
        return str(ref)

    async def put_nonsense(self) -> str:
        (ref,) = await self.rows(
            "CREATE hls_job SET status = 'queued', key = 5 RETURN VALUE <string>id"
        )
        return str(ref)

    async def row(self, ref: str) -> dict[str, Any]:
        (row,) = await self.rows("SELECT * FROM (<record>$ref)", ref=ref)
        assert isinstance(row, dict)
        return row

    async def seen(self, ref: str) -> Seen:
        row = await self.row(ref)
        return Seen(
            _STATES[row["status"]],
            row.get("error") or "",
            row.get("attempts") or 0,
            row.get("result"),
        )

    async def put_back(self, ref: str) -> None:
        await self.rows("UPDATE (<record>$ref) SET status = 'queued'", ref=ref)

    async def pass_time(self) -> None:
        await self.rows(
            "UPDATE hls_job SET cefmp4_claimed_at = cefmp4_claimed_at - 2m "
            "WHERE cefmp4_claimed_at IS NOT NONE"
        )
