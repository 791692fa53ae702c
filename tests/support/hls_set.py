"""An HLS set as it lies in the store: what its playlists and its result name, and what is there."""

import json
import re
from dataclasses import dataclass
from typing import Any

from cefmp4.ports.store import ObjectStore

_URI = re.compile(r'URI="([^"]+)"')


@dataclass(frozen=True, slots=True)
class HlsSet:
    sizes: dict[str, int]  # of every object under the prefix, by the rest of its key
    named: set[str]
    rows: list[dict[str, Any]]
    attempt: str

    @classmethod
    async def read(cls, store: ObjectStore, stream_id: str) -> "HlsSet":
        prefix = f"hls/{stream_id}/"
        sizes = {
            stored.key.removeprefix(prefix): stored.size
            async for stored in store.list_objects(prefix)
        }
        document = json.loads(await store.read(f"{prefix}result.json"))
        named = {"master.m3u8", "result.json"}
        for name in _uris((await store.read(f"{prefix}master.m3u8")).decode()):
            named |= {name} | await _named_by(store, prefix, name)
        for key in (document["poster_key"], document["thumbnails_key"]):
            if key:
                named.add(key.removeprefix(prefix))
        if document["thumbnails_key"]:
            text = (await store.read(document["thumbnails_key"])).decode()
            folder = document["thumbnails_key"].removeprefix(prefix).rpartition("/")[0]
            named |= {f"{folder}/{image}" for image in re.findall(r"^(\S+)#xywh", text, re.M)}
        rows = [row for track in document["renditions"] for row in track["segments"]]
        attempt = rows[0]["key"].split("/")[-2].rpartition(".")[2]
        named |= {f"attempt.{attempt}/{name}" for name in ("master.m3u8", "result.json")}
        named |= {row["key"].removeprefix(prefix) for row in rows}
        return cls(sizes, named, rows, attempt)

    def missing(self) -> set[str]:
        return self.named - set(self.sizes)

    def unnamed(self) -> set[str]:
        return set(self.sizes) - self.named

    def differing(self) -> list[dict[str, Any]]:
        """Rows whose size is not that of what is stored."""
        return [
            row for row in self.rows if self.sizes.get(row["key"].split("/", 2)[2]) != row["bytes"]
        ]


async def _named_by(store: ObjectStore, prefix: str, playlist: str) -> set[str]:
    folder = playlist.rpartition("/")[0]
    text = (await store.read(prefix + playlist)).decode()
    return {f"{folder}/{name}" for name in _uris(text)}


def _uris(playlist: str) -> set[str]:
    lines = playlist.splitlines()
    plain = {line for line in lines if line and not line.startswith("#")}
    return plain | {uri for line in lines for uri in _URI.findall(line)}
