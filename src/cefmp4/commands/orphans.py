"""`cefmp4 streams ls --orphans`: open uploads that no stream claims. It aborts none."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from cefmp4.app.clients import open_redis, open_store
from cefmp4.commands.display import plain, show_list, size_text, time_text
from cefmp4.config.settings import Settings
from cefmp4.errors import UploadGoneError
from cefmp4.ingest.recover.orphans import OrphanSweeper
from cefmp4.model import names
from cefmp4.model.object import OpenUpload
from cefmp4.ports.store import ObjectStore


@dataclass(frozen=True, slots=True)
class _Listed:
    upload: OpenUpload
    size: int | None  # None: it went while we looked
    is_old: bool

    @property
    def fate(self) -> str:
        if not self.upload.is_ours:
            return "stays: its key has no stream id"
        return "is aborted soon" if self.is_old else "is aborted after ORPHAN_GRACE_SECONDS"


async def list_orphans(settings: Settings, *, limit: int, as_json: bool) -> None:
    async with open_redis(settings) as checkpoints, open_store(settings, checkpoints) as store:
        sweeper = OrphanSweeper(
            store=store,
            checkpoints=checkpoints,
            prefix=names.static_prefix(settings.s3_key_template),
            grace_s=settings.orphan_grace_seconds,
        )
        oldest = sorted(await sweeper.find(), key=lambda upload: upload.initiated_at)[:limit]
        now = time.time()
        listed = [_Listed(one, await _size(store, one), sweeper.is_old(one, now)) for one in oldest]
    show_list(
        listed,
        fields=lambda one: _fields(one, now),
        table=_table_of,
        none="no orphans",
        as_json=as_json,
    )


async def _size(store: ObjectStore, upload: OpenUpload) -> int | None:
    try:
        parts = await store.list_parts(upload.key, upload.upload_id)
    except UploadGoneError:
        return None
    return sum(part.size for part in parts)


def _fields(one: _Listed, now: float) -> dict[str, object]:
    upload = one.upload
    return {
        "key": upload.key,
        "upload_id": upload.upload_id,
        "initiated_at": upload.initiated_at,
        "age_seconds": round(max(0.0, now - upload.initiated_at), 1),
        "size": one.size,
        "is_ours": upload.is_ours,
    }


def _table_of(listed: Sequence[_Listed]) -> Table:
    table = Table("begun", "size", "what becomes of it", box=None)
    table.add_column("key", overflow="fold")
    for one in listed:
        size = "gone" if one.size is None else size_text(one.size)
        table.add_row(
            Text(time_text(one.upload.initiated_at)),
            Text(size),
            Text(one.fate),
            plain(one.upload.key),
        )
    return table
