"""The object store, as the logic sees it."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from cefmp4.model.object import FileRange, ListedPart, OpenUpload, StoredObject, StoreProof
from cefmp4.model.part import Part


class ObjectStore(Protocol):
    """The S3 calls we use. Raises only errors of `cefmp4.errors`. Retries of one request are
    inside; a TransientError that still comes out means that the store is sick for now."""

    @property
    def proof(self) -> StoreProof: ...

    async def put_object(
        self,
        key: str,
        body: FileRange | bytes,
        *,
        content_type: str,
        metadata: dict[str, str],
        crc64: int,
        if_absent: bool = False,
    ) -> str:
        """`if_absent`: KeyTakenError where another object lies under the key. One that has the same
        bytes and the stream id of `metadata` is this very object, whose answer was lost."""
        ...

    async def begin_upload(
        self, key: str, *, content_type: str, metadata: dict[str, str]
    ) -> str: ...

    async def put_part(
        self, key: str, upload_id: str, number: int, body: FileRange, *, crc64: int
    ) -> str:
        """Returns the ETag. ProofFailedError: the bytes changed between hashing and sending."""
        ...

    async def copy_part(
        self, key: str, upload_id: str, number: int, *, source: StoredObject, start: int, end: int
    ) -> str: ...

    async def list_parts(self, key: str, upload_id: str) -> list[ListedPart]: ...

    async def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        crc64: int,
        owner: str = "",
        if_absent: bool = False,
    ) -> str:
        """`parts` in order, without holes. `crc64` is of the whole object. `owner`: the stream id
        that the upload was begun with; "": not known. `if_absent` as for `put_object`.

        Reads back what lies under the key then: ProofFailedError where that is anything else."""
        ...

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """An upload that is gone already is no error."""
        ...

    async def list_uploads(self, prefix: str) -> list[OpenUpload]: ...

    async def head(self, key: str) -> StoredObject | None: ...

    async def read(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> bytes:
        """`etag`: of that object alone; ProofFailedError where another lies there by now."""
        ...

    def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]: ...

    async def delete(self, key: str) -> None: ...
