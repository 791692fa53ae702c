from datetime import UTC, datetime
from typing import Any

from cefmp4.storage.s3.calls import S3Calls
from cefmp4.storage.s3.listing import list_objects, list_parts, list_uploads

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class Pages(S3Calls):
    """Answers with the pages given, in order, and keeps what was asked."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        super().__init__(None, "b")
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    async def call(self, operation: str, **params: Any) -> dict[str, Any]:
        self.asked.append(params)
        return self.pages.pop(0)


def parts(*numbers: int) -> list[dict[str, Any]]:
    return [{"PartNumber": n, "Size": n, "ETag": f'"{n}"'} for n in numbers]


def upload(key: str, upload_id: str) -> dict[str, Any]:
    return {"Key": key, "UploadId": upload_id, "Initiated": WHEN}


def entry(key: str) -> dict[str, Any]:
    return {"Key": key, "Size": 1, "ETag": '"e"', "LastModified": WHEN}


async def test_parts_of_all_pages_with_holes() -> None:
    calls = Pages(
        {"Parts": parts(2, 5), "IsTruncated": True, "NextPartNumberMarker": 5},
        {"Parts": parts(9, 7), "IsTruncated": True},
        {"Parts": [], "IsTruncated": True},
    )
    assert [part.number for part in await list_parts(calls, "k", "u")] == [2, 5, 7, 9]
    assert [asked["PartNumberMarker"] for asked in calls.asked] == [0, 5, 9]


async def test_uploads_of_all_pages_even_when_the_last_is_empty() -> None:
    calls = Pages(
        {
            "Uploads": [upload("p/a", "1"), upload("q/a", "2")],  # one that ignores the prefix
            "IsTruncated": True,
            "NextKeyMarker": "p/a",
            "NextUploadIdMarker": "1",
        },
        {"Uploads": [upload("p/b", "3")], "IsTruncated": True, "NextKeyMarker": "p/b"},
        {"IsTruncated": True, "NextKeyMarker": "p/b"},
    )
    found = await list_uploads(calls, "p/")
    assert [(one.key, one.upload_id) for one in found] == [("p/a", "1"), ("p/b", "3")]
    assert calls.asked[1] == {"Prefix": "p/", "KeyMarker": "p/a", "UploadIdMarker": "1"}


async def test_a_server_that_lists_nothing_by_prefix_is_asked_for_all() -> None:
    calls = Pages({}, {"Uploads": [upload("p/a", "1"), upload("q/a", "2")]})
    assert [one.key for one in await list_uploads(calls, "p/")] == ["p/a"]
    assert calls.asked == [{"Prefix": "p/"}, {}]


async def test_objects_of_all_pages() -> None:
    calls = Pages(
        {"Contents": [entry("p/a")], "IsTruncated": True, "NextContinuationToken": "t"},
        {"Contents": [entry("p/b")], "IsTruncated": True, "NextContinuationToken": "t"},
    )
    assert [one.key async for one in list_objects(calls, "p/")] == ["p/a", "p/b"]
