"""The end of every run: is each finished file stored once, byte for byte, and is nothing left?"""

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awscrt import checksums
from redis.asyncio import Redis

SUFFIX = ".metadata.json"
PROBE_PREFIX = ".cefmp4-probe/"
FINAL = frozenset({"described", "handed_over", "failed", "dropped"})
ALARMS = (
    "Traceback (most recent call last)",
    "never retrieved",
    "never awaited",
    "ResourceWarning",
)


@dataclass(slots=True)
class Verdict:
    losses: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    kills: int = 0
    skipped: str = ""  # why it did not run

    @property
    def is_clean(self) -> bool:
        return not (self.losses or self.duplicates or self.stuck or self.leaks)

    def __str__(self) -> str:
        groups = (
            ("LOSS", self.losses),
            ("DUPLICATE", self.duplicates),
            ("STUCK", self.stuck),
            ("LEAK", self.leaks),
        )
        return "; ".join(f"{kind}: {line}" for kind, lines in groups for line in lines[:4])


@dataclass(frozen=True, slots=True)
class Wanted:
    """A finished version of a file. Where `has_interim`, earlier versions may be stored too."""

    relpath: str
    sha256: str
    size: int
    has_interim: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    key: str
    size: int
    sha256: str
    crc64: str
    document: dict[str, Any] | None

    @property
    def path(self) -> str:
        return str((self.document or {}).get("relative_path", ""))


class Judge:
    """Looks at the server itself, past every proxy, with a client that is not the product's."""

    def __init__(self, client: Any, bucket: str, redis_url: str) -> None:
        self._client = client
        self._bucket = bucket
        self._redis_url = redis_url
        self._contents: dict[tuple[str, str], tuple[int, str, str]] = {}
        self._documents: dict[tuple[str, str], dict[str, Any]] = {}

    async def look(self, wanted: Iterable[Wanted], *, apart: str = "") -> Verdict:
        """Reads every object that it has not read before. Of what lies below `apart` nobody knows
        beforehand what is to be stored; but what is said of it must be true."""
        verdict = await self.glance()
        _compare(list(wanted), await self._held(), verdict, apart)
        return verdict

    async def digests_of(self, keys: Iterable[str]) -> dict[str, str]:
        """The SHA-256 of those objects that are there. One look at the whole bucket, and a reading
        of what was not read before: ask once a turn, not for each of them."""
        etags = await self.keys()
        return {key: (await self._content(key, etags[key]))[1] for key in keys if key in etags}

    async def glance(self) -> Verdict:
        """What can be seen without reading any object."""
        verdict = Verdict()
        for key in await self._open_uploads():
            verdict.leaks.append(f"open upload of {key}")
        for record in await self.records():
            if record.get("state", "discovered") not in FINAL:
                verdict.stuck.append(f"{record.get('relpath')!r} is {record.get('state')}")
        return verdict

    async def records(self) -> list[dict[str, Any]]:
        async with Redis.from_url(self._redis_url) as client:
            raw: Any = await client.hgetall("cefmp4:streams")
        return [json.loads(record.decode("utf-8", "surrogateescape")) for record in raw.values()]

    async def knows_folders(self) -> bool:
        """Whether Redis remembers which folder was watched, and recordings in it."""
        async with Redis.from_url(self._redis_url) as client:
            places = [place async for place in client.scan_iter("cefmp4:memo:folder:*")]
        return bool(places and await self.records())

    async def keys(self) -> dict[str, str]:
        """Key and ETag of every object."""
        found: dict[str, str] = {}
        query: dict[str, str] = {}
        while True:
            page = await self._client.list_objects_v2(Bucket=self._bucket, **query)
            found |= {entry["Key"]: entry["ETag"] for entry in page.get("Contents", [])}
            if not page.get("IsTruncated"):
                return found
            query = {"ContinuationToken": page["NextContinuationToken"]}

    @property
    def digests(self) -> set[str]:
        """The SHA-256 of every object that was read."""
        return {digest for _, digest, _ in self._contents.values()}

    async def documents(self) -> list[dict[str, Any]]:
        """The metadata of every object."""
        return [held.document for held in await self._held() if held.document is not None]

    async def clear(self) -> None:
        for key in await self.keys():
            await self._client.delete_object(Bucket=self._bucket, Key=key)

    async def _open_uploads(self) -> list[str]:
        """But for what a kill in mid-probe leaves: a start removes it once it is ten minutes old,
        and no run takes that long."""
        page = await self._client.list_multipart_uploads(Bucket=self._bucket)
        keys = [str(upload["Key"]) for upload in page.get("Uploads", [])]
        return [key for key in keys if not key.startswith(PROBE_PREFIX)]

    async def _held(self) -> list[Held]:
        etags = await self.keys()
        return [
            Held(key, *await self._content(key, etag), await self._document(key, etags))
            for key, etag in etags.items()
            if not key.endswith(SUFFIX) and not key.startswith(PROBE_PREFIX)
        ]

    async def _content(self, key: str, etag: str) -> tuple[int, str, str]:
        if (key, etag) not in self._contents:
            reply = await self._client.get_object(Bucket=self._bucket, Key=key)
            size, digest, crc64 = 0, hashlib.sha256(), 0
            async with reply["Body"] as body:
                async for block in body.content.iter_chunked(1024 * 1024):
                    size += len(block)
                    digest.update(block)
                    crc64 = checksums.crc64nvme(block, crc64)
            spelt = base64.b64encode(crc64.to_bytes(8, "big")).decode()
            self._contents[key, etag] = (size, digest.hexdigest(), spelt)
        return self._contents[key, etag]

    async def _document(self, key: str, etags: dict[str, str]) -> dict[str, Any] | None:
        etag = etags.get(key + SUFFIX)
        if etag is None:
            return None
        if (key, etag) not in self._documents:
            reply = await self._client.get_object(Bucket=self._bucket, Key=key + SUFFIX)
            async with reply["Body"] as body:
                self._documents[key, etag] = json.loads(await body.read())
        return self._documents[key, etag]


def _compare(wanted: list[Wanted], held: list[Held], verdict: Verdict, apart: str) -> None:
    for stored in held:
        _compare_document(stored, verdict)
    held = [one for one in held if not (apart and one.path.startswith(apart))]
    copies = Counter((one.sha256, one.size) for one in held)
    needed = Counter((one.sha256, one.size) for one in wanted)
    for one in {(want.sha256, want.size): want for want in wanted}.values():
        count, due = copies[one.sha256, one.size], needed[one.sha256, one.size]
        if count < due:
            verdict.losses.append(f"{one.relpath!r}: stored {count} times instead of {due}")
        elif count > due:
            verdict.duplicates.append(f"{one.relpath!r}: stored {count} times instead of {due}")
    changing = {one.relpath for one in wanted if one.has_interim}
    for stored in held:
        if not needed[stored.sha256, stored.size] and stored.path not in changing:
            verdict.duplicates.append(f"{stored.key} holds what nobody finished: {stored.path!r}")


def _compare_document(stored: Held, verdict: Verdict) -> None:
    if stored.document is None:
        verdict.losses.append(f"{stored.key} has no metadata")
        return
    said = stored.document
    told = (said["sha256"], said["total_size_bytes"], said["crc64nvme"])
    if told != (stored.sha256, stored.size, stored.crc64):
        verdict.losses.append(f"metadata of {stored.key} is not true: {told}")


async def examine_log(path: Path) -> list[str]:
    """Errors that nobody handled."""
    text = await asyncio.to_thread(path.read_text, errors="replace")
    found = [f"{path.name}: {alarm}" for alarm in ALARMS if alarm in text]
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            if line.strip() and not line.startswith("error: "):
                found.append(f"{path.name}: {line[:200]}")
            continue
        if isinstance(record, dict) and (
            "exception" in record or record.get("event") == "stream crashed"
        ):
            found.append(f"{path.name}: {str(record)[-300:]}")
    return found
