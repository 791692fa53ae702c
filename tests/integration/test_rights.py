"""Users of fewer rights, at real servers: what `cefmp4 doctor` tells of them, which commands end,
and that nothing is "ready" which may not write."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from tests.faults.s3_faults import refused, swallowed
from tests.faults.s3_proxy import Request, Rule, S3Proxy, _operation
from tests.support.ports import free_port
from tests.support.servers import SwiftServer, ValkeyServer

from cefmp4.doctor.redis import examine_redis
from cefmp4.doctor.s3 import examine_s3
from cefmp4.model.diagnosis import Diagnosis, Level

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

STORAGE_FORMAT = Path(__file__).parents[2] / "docs/storage-format.md"
READER, READER_SECRET = "cefmp4:reader", "reader-secret"
# The same server, with one more user, whom nothing is allowed but what a bucket allows it.
WITH_READER = f"""
from cefmp4.embedded import swift_config, swift_server
whole = swift_config.proxy_conf
more = " .admin\\nuser_cefmp4_reader = {READER_SECRET}\\n"
swift_config.proxy_conf = lambda *keys, **rest: whole(*keys, **rest).replace(" .admin\\n", more, 1)
swift_server.main()
"""


@dataclass
class Asked(Rule):
    """Picks by operation, also what is tried out on the keys that the proxy leaves alone."""

    times: int = 1000
    fault: Any = field(default_factory=lambda: refused(403, "AccessDenied"))

    def picks(self, request: Request) -> bool:
        place = urlsplit(request.target)
        query = parse_qs(place.query, keep_blank_values=True)
        key = "x" if request.key else ""
        operation = _operation(request.method, key, query, request.headers)
        return super().picks(replace(request, operation=operation))


@dataclass(frozen=True, slots=True)
class Place:
    server: SwiftServer
    proxy: S3Proxy
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.proxy.port}"
        return {
            **self.server.environment,
            "S3_ENDPOINT_URL": endpoint,
            "S3_BUCKET_NAME": self.bucket,
            "HANDOVER_JOBS": "none",
        }

    async def examined(self, **changed: Any) -> dict[str, Diagnosis]:
        config = replace(
            self.server.config(self.bucket),
            endpoint_url=f"http://127.0.0.1:{self.proxy.port}",
            **changed,
        )
        found = await examine_s3(config, key_prefix="streams/")
        return {diagnosis.subject: diagnosis for diagnosis in found}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def swift(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SwiftServer]:
    server = SwiftServer(tmp_path_factory.mktemp("s3"))
    server.process._command = ["-c", WITH_READER, *server.process._command[2:]]
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def place(swift: SwiftServer) -> AsyncIterator[Place]:
    proxy = S3Proxy(swift.port)
    await proxy.start()
    yield Place(swift, proxy, await swift.new_bucket())
    await proxy.stop()


async def let_read(server: SwiftServer, bucket: str) -> None:
    """By the bucket's own list, which S3 clients cannot set here."""
    login = {"X-Storage-User": server.access_key, "X-Storage-Pass": server.secret_key}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.endpoint_url}/auth/v1.0", headers=login) as reply:
            token, url = reply.headers["X-Auth-Token"], reply.headers["X-Storage-Url"]
        headers = {"X-Auth-Token": token, "X-Container-Read": f"{READER},.rlistings"}
        async with session.post(f"{url}/{bucket}", headers=headers) as reply:
            assert reply.status == 204


async def test_a_user_who_may_only_read(place: Place) -> None:
    await let_read(place.server, place.bucket)
    found = await place.examined(access_key=READER, secret=READER_SECRET)
    failed = {subject: entry for subject, entry in found.items() if entry.level is Level.FAIL}
    assert {"S3 PutObject", "S3 CreateMultipartUpload"} <= set(failed)
    assert "PutObject failed" in failed["S3 PutObject"].detail
    assert failed["S3 PutObject"].advice.startswith("allow s3:PutObject on ")
    assert not any("GetObject" in f"{entry}" for entry in found.values())
    assert not any(": None" in f"{entry.detail}{entry.advice}" for entry in found.values())
    assert not any(entry.is_setting for entry in found.values())


RIGHTS = {
    "PutObject": "s3:PutObject",
    "GetObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "ListParts": "s3:ListMultipartUploadParts",
    "UploadPartCopy": "s3:GetObject and s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
}


@pytest.mark.parametrize("operation", RIGHTS)
async def test_one_right_that_is_missing(place: Place, operation: str) -> None:
    place.proxy.rules.append(Asked(operation=operation))
    found = await place.examined()
    found.pop("S3 lifecycle")  # for the proxy, it is a listing, too
    bad = [entry for entry in found.values() if entry.level is not Level.OK]
    (entry,) = [entry for entry in bad if entry.subject == f"S3 {operation}"]
    assert entry.advice.startswith(f"allow {RIGHTS[operation]} on ")
    assert len(bad) == 1, bad
    place.proxy.rules.clear()
    assert {entry.level for entry in (await place.examined()).values()} == {Level.OK}


async def test_a_server_that_does_not_replace_parts(place: Place) -> None:
    place.proxy.rules.append(Asked(operation="UploadPart", fault=swallowed, skip=1))
    found = await place.examined()
    assert found["S3 replaced part"].level is Level.FAIL
    assert "not replaced" in found["S3 replaced part"].detail


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://no-such-host.invalid:9000", "no-such-host.invalid: "),
        ("http://127.0.0.1:1", "127.0.0.1"),
    ],
)
async def test_a_server_that_is_not_there_is_named(
    place: Place, tmp_path: Path, url: str, said: str
) -> None:
    config = replace(place.server.config(place.bucket), endpoint_url=url)
    (entry,) = await examine_s3(config, key_prefix="")
    assert said in entry.detail
    assert "None" not in entry.detail
    assert not entry.is_setting
    redis = url.replace("http", "redis")
    (entry,) = await examine_redis(redis)
    assert said.rstrip(": ") in entry.detail
    ended = await cefmp4(tmp_path, "ingest", REDIS_URL=redis, HANDOVER_JOBS="none")
    assert ended.code == 3
    assert ended.err.count("out of reach") <= 2, ended.err  # a warning, and the end
    assert "out of reach: Redis is out of reach" not in ended.err


@dataclass
class Ended:
    code: int
    out: str
    err: str


@asynccontextmanager
async def running(folder: Path, *words: str, **settings: str) -> AsyncIterator[Any]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cefmp4", *words),
        env={
            "PATH": os.environ["PATH"],
            "WATCH_DIR": str(folder),
            "STARTUP_TIMEOUT_SECONDS": "1",
            "PROM_PORT": "0",
            "WORKER_PORT": "0",
            **settings,
        },
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def cefmp4(folder: Path, *words: str, **settings: str) -> Ended:
    async with running(folder, *words, **settings) as child:
        out, err = await asyncio.wait_for(child.communicate(), 60)
        return Ended(child.returncode or 0, out.decode(), err.decode())


COMMANDS = ("ingest", "up", "status", "streams ls", "verify", "doctor")


@pytest.mark.parametrize("words", COMMANDS)
async def test_a_wrong_password_of_redis_is_a_wrong_setting(
    place: Place, redis_server: ValkeyServer, tmp_path: Path, words: str
) -> None:
    url = f"redis://:hidden@127.0.0.1:{redis_server.port}/0"
    ended = await cefmp4(tmp_path, *words.split(), REDIS_URL=url, **place.environment)
    assert ended.code == 2, ended
    assert "REDIS_URL" in ended.out + ended.err
    assert "hidden" not in ended.out + ended.err
    assert "Traceback" not in ended.err


async def test_the_older_spelling_is_named(place: Place, tmp_path: Path) -> None:
    environment = {**place.environment, "S3_SECRET_KEY": "hidden"}
    del environment["S3_SECRET_ACCESS_KEY"]
    ended = await cefmp4(tmp_path, "doctor", "--json", **environment)
    assert ended.code == 2
    (entry,) = [json.loads(line) for line in ended.out.splitlines() if '"S3"' in line]
    assert "S3_SECRET_KEY" in entry["advice"]
    assert set(entry) == {"subject", "level", "detail", "advice"}


async def test_users_of_redis_with_fewer_rights(
    place: Place, redis_server: ValkeyServer, tmp_path: Path
) -> None:
    (documented,) = re.findall(
        r"`ACL SETUSER cefmp4 on >PASSWORD (.*?)`", STORAGE_FORMAT.read_text()
    )
    users = {
        "whole": ["on", ">pw", *documented.split()],
        "reader": ["on", ">pw", "~*", "&*", "+@all", "-@write"],
        "blind": ["on", ">pw", "~*", "&*", "+@all", "-info", "-config", "-ping"],
    }
    await let_in(redis_server, users)
    whole = f"redis://whole:pw@127.0.0.1:{redis_server.port}/0"
    assert {entry.level for entry in await examine_redis(whole)} == {Level.OK}
    url = f"redis://reader:pw@127.0.0.1:{redis_server.port}/0"
    found = await examine_redis(url)
    failed = {entry.subject for entry in found if entry.level is Level.FAIL}
    assert {"Redis SET", "Redis HSET", "Redis DEL"} <= failed
    assert not failed & {"Redis GET", "Redis HSCAN"}
    ended = await cefmp4(tmp_path, "ingest", REDIS_URL=url, **place.environment)
    assert ended.code == 2, ended
    assert "rights" in ended.err
    found = await examine_redis(url.replace("reader", "blind"))
    assert [(entry.subject, entry.level) for entry in found] == [
        ("Redis access", Level.OK),
        ("Redis", Level.WARN),
    ]
    assert "+info" in found[-1].advice


async def let_in(redis_server: ValkeyServer, users: dict[str, list[str]]) -> None:
    async with Redis.from_url(redis_server.url) as client:
        for name, rules in users.items():
            await client.execute_command("ACL", "SETUSER", name, *rules)  # type: ignore[no-untyped-call]


async def test_what_may_not_write_is_not_ready(
    place: Place, redis_url: str, tmp_path: Path
) -> None:
    """While it runs, and at a start at which the server is known already."""
    port = str(free_port())
    settings = {
        **place.environment, "REDIS_URL": redis_url, "PROM_PORT": port, "SETTLE_SECONDS": "0.1",
        "HANDOVER_JOBS": "none", "STARTUP_TIMEOUT_SECONDS": "20",
    }  # fmt: skip
    async with running(tmp_path, "ingest", **settings):
        assert (await answer(port, 200))["reasons"] == []
        place.proxy.rules.append(Asked(operation="PutObject"))
        (tmp_path / "small.mp4").write_bytes(os.urandom(1000))
        (reason,) = (await answer(port, 503))["reasons"]
        assert reason.startswith("S3 refuses us: S3 PutObject failed, status 403, AccessDenied")
        place.proxy.rules.clear()
        assert (await answer(port, 200))["reasons"] == []
    place.proxy.rules.append(Asked(operation="CreateMultipartUpload"))
    for command in ("ingest", "worker"):
        ended = await cefmp4(tmp_path, command, TEMPORAL_ADDRESS="127.0.0.1:1", **settings)
        assert ended.code == 2, ended
        assert "S3 CreateMultipartUpload failed, status 403, AccessDenied" in ended.err
    verified = await cefmp4(tmp_path, "verify", **settings)
    assert verified.code == 0, verified  # it only reads


async def answer(port: str, status: int) -> Any:
    async with aiohttp.ClientSession() as session, asyncio.timeout(40):
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as reply:
                    if reply.status == status:
                        return await reply.json()
            except aiohttp.ClientError:
                pass  # it is starting
            await asyncio.sleep(0.1)
