"""Listings, page by page. Servers differ in how they end: some send one empty page more, some give
no next marker; a page that does not advance ends every listing here."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from cefmp4.errors import TransientError
from cefmp4.model.object import ListedPart, OpenUpload, StoredObject
from cefmp4.storage.s3.calls import S3Calls, etag_in


@contextmanager
def _read(operation: str) -> Iterator[None]:
    try:
        yield
    except KeyError as missing:
        raise TransientError(f"S3 {operation} tells no {missing} of an entry") from None


async def list_parts(calls: S3Calls, key: str, upload_id: str) -> list[ListedPart]:
    """In order of their numbers, which may have holes."""
    parts: dict[int, ListedPart] = {}
    marker = 0
    while True:
        page = await calls.call(
            "ListParts", Key=key, UploadId=upload_id, PartNumberMarker=marker, MaxParts=1000
        )
        for part in page.get("Parts", []):
            with _read("ListParts"):
                number = part["PartNumber"]
                parts[number] = ListedPart(
                    number=number, size=part["Size"], etag=part["ETag"].strip('"')
                )
        last = max(parts, default=0)
        if not page.get("IsTruncated") or last <= marker:
            return [parts[number] for number in sorted(parts)]
        marker = last


async def list_uploads(calls: S3Calls, prefix: str) -> list[OpenUpload]:
    uploads = await _list_uploads(calls, prefix, Prefix=prefix)
    if not uploads and prefix:
        # MinIO lists nothing for a prefix that is not a whole key, but all of them without one.
        uploads = await _list_uploads(calls, prefix)
    return uploads


async def _list_uploads(calls: S3Calls, prefix: str, **query: str) -> list[OpenUpload]:
    uploads: dict[tuple[str, str], OpenUpload] = {}
    markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
    async for upload in _entries(calls, "ListMultipartUploads", "Uploads", query, markers):
        with _read("ListMultipartUploads"):
            found = OpenUpload(
                key=upload["Key"],
                upload_id=upload["UploadId"],
                initiated_at=upload["Initiated"].timestamp(),
            )
        if found.key.startswith(prefix):
            uploads[found.key, found.upload_id] = found
    return list(uploads.values())


async def list_objects(calls: S3Calls, prefix: str) -> AsyncIterator[StoredObject]:
    query, markers = {"Prefix": prefix}, {"ContinuationToken": "NextContinuationToken"}
    async for entry in _entries(calls, "ListObjectsV2", "Contents", query, markers):
        with _read("ListObjectsV2"):
            stored = StoredObject(
                key=entry["Key"],
                size=entry["Size"],
                etag=etag_in(entry),
                modified_at=entry["LastModified"].timestamp(),
            )
        yield stored


async def _entries(
    calls: S3Calls, operation: str, of: str, query: dict[str, str], markers: dict[str, str]
) -> AsyncIterator[dict[str, Any]]:
    """`markers`: what asks for the next page, and what a page calls it."""
    asked: dict[str, str] = {}
    while True:
        page = await calls.call(operation, **query, **asked)
        for entry in page.get(of, []):
            yield entry
        following = {name: page[told] for name, told in markers.items() if page.get(told)}
        if not page.get("IsTruncated") or not following or following == asked:
            return
        asked = following
