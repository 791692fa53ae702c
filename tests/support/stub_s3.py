"""An S3 server whose virtues and faults a test chooses: what it checks, what it answers, and when
it hangs up. It keeps everything in memory, looks at no signature, and knows one bucket."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from xml.etree import ElementTree

from aiohttp import web
from awscrt.checksums import crc64nvme

from cefmp4.recording.digests import md5_of, multipart_etag, spell_crc64, spell_md5

_LISTINGS = ("ListMultipartUploads", "ListParts")
_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass(slots=True)
class Traits:
    checks_crc: bool = True
    checks_md5: bool = True
    etag_is_md5: bool = True
    checks_whole: bool = True  # a FULL_OBJECT checksum at Complete
    takes_crc_for_request: bool = False  # ... but compares it with the checksum of the request
    knows_crc_header: bool = True  # else any such header is "not implemented"
    refuses_presigned: bool = False
    loses_a_byte: bool = False  # when it puts the parts together
    knows_absent: bool = True  # If-None-Match of a PUT; else "not implemented"
    minds_absent: bool = True  # If-None-Match at Complete; else it is not heard
    replaces_parts: bool = True  # else "not implemented"
    keeps_first_part: bool = False  # although it takes another
    ends_upload_at_bad_part: bool = False
    keeps_metadata: bool = True
    lists_uploads: bool = False


@dataclass(slots=True)
class Reply:
    """What one request is answered instead. `hangs_up`: no answer at all; `is_early`: before the
    body was read; `takes_effect`: the request is carried out all the same; `keeps_uploads`: but
    what it closes stays open."""

    status: int = 200
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: bool = False
    is_early: bool = False
    takes_effect: bool = False
    keeps_uploads: bool = False


@dataclass(slots=True)
class _Stored:
    data: bytes
    etag: str
    headers: dict[str, str]


class StubS3:
    def __init__(self, traits: Traits | None = None) -> None:
        self.traits = traits or Traits()
        self.endpoint_url = ""
        self.seen: list[str] = []  # operations in order
        self.requests: list[web.Request] = []
        self.objects: dict[str, _Stored] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self._upload_headers: dict[str, dict[str, str]] = {}
        self._upload_keys: dict[str, str] = {}
        self._replies: dict[str, list[Reply]] = {}

    def answer(self, operation: str, *replies: Reply) -> None:
        self._replies.setdefault(operation, []).extend(replies)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["StubS3"]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{bucket}/{key:.*}", self._serve)
        app.router.add_route("*", "/{bucket}", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.endpoint_url = f"http://{host}:{port}"
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        operation = _operation(request)
        self.seen.append(operation)
        self.requests.append(request)
        scripted = self._replies.get(operation)
        reply = scripted.pop(0) if scripted else None
        if reply and reply.is_early:
            return _error(reply.status, reply.code, reply.headers)
        body = await request.read()
        before = dict(self.uploads)
        done = (
            self._carry_out(operation, request, body) if not reply or reply.takes_effect else None
        )
        if reply and reply.keeps_uploads:
            self.uploads |= before
        if reply and reply.hangs_up:
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(0)
        if reply:
            return _error(reply.status, reply.code, reply.headers)
        assert done is not None
        return done

    def _carry_out(self, operation: str, request: web.Request, body: bytes) -> web.Response:
        key, upload_id = request.match_info.get("key", ""), request.query.get("uploadId", "")
        presigned = "X-Amz-Signature" in request.query
        if self.traits.refuses_presigned and presigned:
            return _error(403, "AccessDenied")
        if upload_id and upload_id not in self.uploads:
            return _error(404, "NoSuchUpload")
        if operation in _LISTINGS:
            return _xml(f"<{operation}Result>{self._listed(operation)}</{operation}Result>")
        match operation:
            case "CreateMultipartUpload":
                return self._begin(request)
            case "UploadPart" | "PutObject":
                refused = self._check(request, body) or self._check_absent(request, key)
                if refused is not None and self.traits.ends_upload_at_bad_part:
                    self.uploads.pop(upload_id, None)
                return refused or self._put(request, key, upload_id, body)
            case "CompleteMultipartUpload":
                return self._complete(request, key, upload_id, body)
            case "AbortMultipartUpload" | "DeleteObject":
                self.uploads.pop(upload_id, None)
                if not upload_id:
                    self.objects.pop(key, None)
                return web.Response(status=204)
        return self._get(key)

    def _begin(self, request: web.Request) -> web.Response:
        if not self.traits.knows_crc_header and "x-amz-checksum-algorithm" in request.headers:
            return _error(501, "NotImplemented")
        upload_id = f"upload-{len(self._upload_headers)}"
        self.uploads[upload_id] = {}
        self._upload_headers[upload_id] = self._kept(request)
        self._upload_keys[upload_id] = request.match_info["key"]
        return _xml(f"<R><UploadId>{upload_id}</UploadId></R>")

    def _listed(self, operation: str) -> str:
        if operation == "ListParts" or not self.traits.lists_uploads:
            return ""
        return "".join(
            f"<Upload><Key>{self._upload_keys[one]}</Key><UploadId>{one}</UploadId>"
            f"<Initiated>2026-01-01T00:00:00Z</Initiated></Upload>"
            for one in self.uploads
        )

    def _check(self, request: web.Request, body: bytes) -> web.Response | None:
        crc = request.headers.get("x-amz-checksum-crc64nvme")
        if crc and not self.traits.knows_crc_header:
            return _error(501, "NotImplemented")
        if crc and self.traits.checks_crc and crc != spell_crc64(crc64nvme(body)):
            return _error(400, "BadDigest")
        md5 = request.headers.get("Content-MD5")
        if md5 and self.traits.checks_md5 and md5 != spell_md5(md5_of(body)):
            return _error(400, "BadDigest")
        return None

    def _check_absent(self, request: web.Request, key: str) -> web.Response | None:
        if "If-None-Match" not in request.headers:
            return None
        is_put = request.method == "PUT"
        if is_put and not self.traits.knows_absent:
            return _error(501, "NotImplemented")
        if key in self.objects and (is_put or self.traits.minds_absent):
            return _error(412, "PreconditionFailed")
        return None

    def _put(self, request: web.Request, key: str, upload_id: str, body: bytes) -> web.Response:
        if upload_id:
            number, parts = int(request.query["partNumber"]), self.uploads[upload_id]
            if number in parts and not self.traits.replaces_parts:
                return _error(501, "NotImplemented")
            if number not in parts or not self.traits.keeps_first_part:
                parts[number] = body
        else:
            self.objects[key] = _Stored(body, self._etag(body), self._kept(request))
        return web.Response(headers={"ETag": f'"{self._etag(body)}"'})

    def _complete(
        self, request: web.Request, key: str, upload_id: str, body: bytes
    ) -> web.Response:
        if (taken := self._check_absent(request, key)) is not None:
            return taken
        parts = self.uploads[upload_id]
        numbers = [
            int(n.text or 0) for n in ElementTree.fromstring(body).iter() if "Number" in n.tag
        ]
        data = b"".join(parts[number] for number in numbers)
        if self.traits.loses_a_byte:
            data = data[:-1]
        headers = dict(self._upload_headers[upload_id])
        given = request.headers.get("x-amz-checksum-crc64nvme")
        if given and self.traits.takes_crc_for_request and given != spell_crc64(crc64nvme(body)):
            return _error(400, "BadDigest")
        if given and self.traits.checks_whole:
            if given != spell_crc64(crc64nvme(data)):
                return _error(400, "BadDigest")
            headers["x-amz-checksum-crc64nvme"] = given
        etag = f"{self._etag(data)}-{len(numbers)}"
        if self.traits.etag_is_md5:
            etag = multipart_etag([self._etag(parts[number]) for number in numbers])
        del self.uploads[upload_id]
        self.objects[key] = _Stored(data, etag, headers)
        return _xml(f"<R><ETag>{etag}</ETag></R>")

    def _get(self, key: str) -> web.Response:
        stored = self.objects.get(key)
        if stored is None:
            return _error(404, "NoSuchKey")
        headers = {**stored.headers, "ETag": f'"{stored.etag}"', "Last-Modified": _DATE}
        return web.Response(body=stored.data, headers=headers)

    def _kept(self, request: web.Request) -> dict[str, str]:
        wanted = ("content-type", *(("x-amz-meta-",) if self.traits.keeps_metadata else ()))
        return {n: value for n, value in request.headers.items() if n.lower().startswith(wanted)}

    def _etag(self, data: bytes) -> str:
        md5 = hashlib.md5(data).hexdigest()
        return md5 if self.traits.etag_is_md5 else md5[::-1]


def _operation(request: web.Request) -> str:
    has_upload = "uploadId" in request.query
    match request.method:
        case "PUT":
            return "UploadPart" if has_upload else "PutObject"
        case "POST":
            return "CompleteMultipartUpload" if has_upload else "CreateMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload" if has_upload else "DeleteObject"
        case "HEAD":
            return "HeadObject"
    if has_upload:
        return "ListParts"
    return "ListMultipartUploads" if "uploads" in request.query else "GetObject"


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml", headers=headers)
