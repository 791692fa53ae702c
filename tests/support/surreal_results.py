"""Results in SurrealDB, read as docs/results.md tells its users to."""

from typing import Any

from surrealdb import RecordID

from cefmp4.storage.surreal.link import SurrealLink

READ = """
    BEGIN;
    LET $hls = (SELECT * FROM $master)[0];
    RETURN {
        master: $hls,
        segments: (
            SELECT * FROM
            hls_segment:[$hls.stream_id, $hls.attempt, NONE]..[$hls.stream_id, $hls.attempt, ..]
        )
    };
    COMMIT;
"""


async def read_rows(link: SurrealLink, subject: str) -> dict[str, Any]:
    *_, found = await link.query(READ, master=RecordID("hls_playlist", subject))
    assert isinstance(found, dict)
    return found


async def read_result(link: SurrealLink, subject: str) -> dict[str, Any] | None:
    """The document as it was kept."""
    found = await read_rows(link, subject)
    if not found["master"]:
        return None
    document: dict[str, Any] = found["master"]["document"]
    for track in [document, *document.get("renditions", [])]:
        if "segments" in track:
            name = "" if track is document else track["name"]
            rows = [_row(row) for row in found["segments"] if row["id"].id[2] == name]
            assert len(rows) == track["segments"]
            track["segments"] = rows
    return document


def _row(row: dict[str, Any]) -> dict[str, Any]:
    meta = row["meta"]
    assert meta["duration"] == round(meta["end"] - meta["start"], 6)
    return {
        "index": meta["index"],
        "start": meta["start"],
        "end": meta["end"],
        "bytes": row["size"],
        "key": row["key"],
        "bucket": row["bucket"],
        "size": f"{meta['width']}x{meta['height']}" if "width" in meta else "",
        "fps": meta.get("fps"),
        "codec": meta["codec"],
    }
