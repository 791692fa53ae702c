"""The embedded servers as `up` runs them: start, restart, what survives, who is kept out."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aioboto3
import psutil
import pytest
from botocore.config import Config
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.support.embedded_servers import owner_process, watched

from cefmp4.embedded.state import Connection, load_connection
from cefmp4.embedded.supervisor import EmbeddedServers, embedded_servers
from cefmp4.errors import AccessDeniedError, CefError, ServerUnreachableError, SettingsError
from cefmp4.model.part import MIN_PART_BYTES
from cefmp4.storage.redis.checkpoints import open_checkpoints

pytestmark = pytest.mark.integration

Bringing = AbstractAsyncContextManager[EmbeddedServers]

OWNER = """
import asyncio, sys
from pathlib import Path
from cefmp4.embedded.supervisor import embedded_servers

async def main():
    async with embedded_servers(Path(sys.argv[1]), want_redis=True, want_s3=True, bucket="films"):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def both(state_dir: Path) -> Bringing:
    return embedded_servers(state_dir, want_redis=True, want_s3=True, bucket="films")


def only_redis(state_dir: Path) -> Bringing:
    return embedded_servers(state_dir, want_redis=True, want_s3=False, bucket="films")


def only_s3(state_dir: Path) -> Bringing:
    return embedded_servers(state_dir, want_redis=False, want_s3=True, bucket="films")


@asynccontextmanager
async def s3_client(connection: Connection) -> AsyncIterator[Any]:
    session: Any = aioboto3.Session()  # its types want a literal for every argument
    async with session.client(
        "s3",
        endpoint_url=connection.s3_endpoint_url,
        aws_access_key_id=connection.s3_access_key_id,
        aws_secret_access_key=connection.s3_secret_access_key,
        region_name=connection.s3_region_name,
        config=Config(retries={"total_max_attempts": 1}),
    ) as client:
        yield client


def redis_client(connection: Connection) -> Redis:
    assert connection.redis_url
    return Redis.from_url(connection.redis_url)


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = 20
) -> None:
    async with asyncio.timeout(within_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


async def test_brings_up_both_and_tells_other_commands(state_dir: Path) -> None:
    async with both(state_dir) as servers:
        connection = load_connection(state_dir)
        assert connection == servers.connection
        assert connection is not None
        assert connection.bucket == "films"
        async with s3_client(connection) as s3, redis_client(connection) as redis:
            await s3.head_bucket(Bucket="films")
            await redis.set("a", "b")
    assert load_connection(state_dir) is None
    assert not any(process.is_running for process in servers.servers)


async def test_nothing_in_the_folder_is_readable_by_others(state_dir: Path) -> None:
    async with both(state_dir):
        modes = await asyncio.to_thread(_modes, state_dir)
    assert {"connection.json", "credentials.json", "redis.log", "s3.log"} <= set(modes)
    assert [(name, oct(mode)) for name, mode in modes.items() if mode & 0o077] == []


def _modes(folder: Path) -> dict[str, int]:
    # Swift gives its rings a mode of its own; they hold no secret, and their folder is closed.
    paths = [path for path in [folder, *folder.rglob("*")] if path.suffix != ".gz"]
    return {str(path.relative_to(folder)): path.stat().st_mode for path in paths}


async def test_no_secret_in_what_other_users_can_see(state_dir: Path) -> None:
    async with both(state_dir) as servers:
        secrets = json.loads((state_dir / "credentials.json").read_text())
        del secrets["s3_access_key_id"]
        for process in servers.servers:
            seen = psutil.Process(process.pid)
            shown = [*seen.cmdline(), *seen.environ().values(), process.log.read_text()]
            assert not [text for text in shown for secret in secrets.values() if secret in text]


async def test_one_port_of_loopback_and_for_the_rest_socket_files(state_dir: Path) -> None:
    async with both(state_dir) as servers:
        listening = {
            process.name: [
                connection.laddr.ip
                for connection in psutil.Process(process.pid).net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            ]
            for process in servers.servers
        }
    assert listening == {"S3 server": ["127.0.0.1"], "Valkey": []}


async def test_refuses_wrong_keys(state_dir: Path) -> None:
    async with both(state_dir) as servers:
        url = servers.connection.redis_url
        assert url
        wrong = url.replace("unix://:", "unix://:x")
        async with Redis.from_url(wrong) as redis:
            with pytest.raises(RedisConnectionError, match="invalid username-password"):
                await redis.ping()
        async with open_checkpoints(wrong, lease_seconds=10) as checkpoints:
            with pytest.raises(AccessDeniedError, match="check user and password in REDIS_URL"):
                await checkpoints.is_fresh()


async def test_keeps_keys_ports_and_data_over_a_restart(state_dir: Path) -> None:
    async with both(state_dir) as servers:
        first = servers.connection
        async with s3_client(first) as s3, redis_client(first) as redis:
            await s3.put_object(Bucket="films", Key="a.mp4", Body=b"moving pictures")
            await redis.set("position", "42")
    async with both(state_dir) as servers:
        assert servers.connection == first
        async with s3_client(first) as s3, redis_client(first) as redis:
            answer = await s3.get_object(Bucket="films", Key="a.mp4")
            assert await answer["Body"].read() == b"moving pictures"
            assert await redis.get("position") == b"42"


async def test_a_killed_server_comes_back_with_everything(state_dir: Path) -> None:
    first_part, second_part = os.urandom(MIN_PART_BYTES), os.urandom(1000)
    upload: dict[str, str] = {"Bucket": "films", "Key": "long.mp4"}
    async with both(state_dir) as servers, watched(servers):
        connection = servers.connection
        async with s3_client(connection) as s3, redis_client(connection) as redis:
            await redis.set("position", "42")
            await redis.aclose()
            begun = await s3.create_multipart_upload(**upload, Metadata={"who": "me"})
            upload["UploadId"] = begun["UploadId"]
            await s3.upload_part(**upload, PartNumber=1, Body=first_part)

            former = [process.pid for process in servers.servers]
            for process in servers.servers:
                os.kill(process.pid, signal.SIGKILL)
            for process, pid in zip(servers.servers, former, strict=True):
                await eventually(lambda process=process, pid=pid: process.pid != pid)  # type: ignore[misc]
                await process.ready(20)

            assert await redis.get("position") == b"42"
            listed = await s3.list_parts(**upload)
            assert [part["PartNumber"] for part in listed["Parts"]] == [1]
            await s3.upload_part(**upload, PartNumber=2, Body=second_part)
            parts = (await s3.list_parts(**upload))["Parts"]
            await s3.complete_multipart_upload(
                **upload,
                MultipartUpload={
                    "Parts": [{k: p[k] for k in ("PartNumber", "ETag")} for p in parts]
                },
            )
            answer = await s3.get_object(Bucket="films", Key="long.mp4")
            assert await answer["Body"].read() == first_part + second_part
            assert answer["Metadata"] == {"who": "me"}


async def test_gives_up_on_a_server_that_keeps_dying(state_dir: Path) -> None:
    async with only_redis(state_dir) as servers:
        watching = asyncio.create_task(servers.watch(), name="watch")
        (process,) = servers.servers
        while not watching.done():
            if process.is_running:
                os.kill(process.pid, signal.SIGKILL)
            await asyncio.wait([watching], timeout=0.05)
        with pytest.raises(CefError, match="Valkey died 6 times"):
            await watching


async def test_a_second_owner_is_refused(state_dir: Path) -> None:
    async with owner_process(OWNER, state_dir) as owner:
        with pytest.raises(SettingsError, match=rf"another `cefmp4 up` \(process {owner.pid}\)"):
            async with both(state_dir):
                pass
        assert owner.returncode is None
        assert load_connection(state_dir) is not None


async def test_servers_end_with_a_killed_owner_and_the_next_continues(state_dir: Path) -> None:
    async with owner_process(OWNER, state_dir) as owner:
        children = psutil.Process(owner.pid).children(recursive=True)
        assert len(children) == 2
        connection = load_connection(state_dir)
        assert connection
        async with s3_client(connection) as s3, redis_client(connection) as redis:
            await s3.put_object(Bucket="films", Key="a.mp4", Body=b"abc")
            await redis.set("position", "42")
        owner.kill()
        await owner.wait()
        assert load_connection(state_dir) is None

        async with both(state_dir) as servers:  # at once: it waits for the dying ones
            assert not any(_is_alive(child) for child in children)
            async with s3_client(servers.connection) as s3:
                assert (await s3.head_object(Bucket="films", Key="a.mp4"))["ContentLength"] == 3
            async with redis_client(servers.connection) as redis:
                assert await redis.get("position") == b"42"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_a_taken_port_is_left_alone(state_dir: Path) -> None:
    async with only_s3(state_dir) as servers:
        former = servers.connection.s3_endpoint_url
    port = json.loads((state_dir / "ports.json").read_text())["s3"]
    with socket.create_server(("127.0.0.1", port)):
        async with only_s3(state_dir) as servers:
            assert servers.connection.s3_endpoint_url != former


async def test_a_folder_that_was_used_with_a_port_goes_on(state_dir: Path) -> None:
    async with only_redis(state_dir) as servers, redis_client(servers.connection) as redis:
        await redis.set("position", "42")
    (state_dir / "ports.json").write_text(json.dumps({"redis": 6379, "s3": 9000}))
    (state_dir / "redis" / "valkey.conf").write_text("bind 127.0.0.1\nport 6379\n")
    (state_dir / "redis" / "valkey.sock").unlink(missing_ok=True)
    async with only_redis(state_dir) as servers, redis_client(servers.connection) as redis:
        assert await redis.get("position") == b"42"


async def test_only_what_is_wanted_is_started(state_dir: Path) -> None:
    async with only_redis(state_dir) as servers:
        assert [process.name for process in servers.servers] == ["Valkey"]
        assert servers.connection.s3_endpoint_url is None
        assert servers.connection.s3_secret_access_key is None


async def test_a_server_that_cannot_start_names_its_log(state_dir: Path) -> None:
    async with only_redis(state_dir):
        pass
    manifest = state_dir / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("not a manifest\n")
    with pytest.raises(ServerUnreachableError, match=r"Valkey ended with code 1 .*redis\.log"):
        async with only_redis(state_dir):
            pass
    assert not (state_dir / "connection.json").exists()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="STATE_DIR="):
        async with only_redis(tmp_path / "file" / "state"):
            pass


async def test_a_bad_bucket_name_is_a_settings_error(state_dir: Path) -> None:
    with pytest.raises(SettingsError, match="S3_BUCKET_NAME=No_Such"):
        async with embedded_servers(state_dir, want_redis=False, want_s3=True, bucket="No_Such"):
            pass


async def test_a_region_and_a_deep_folder(tmp_path: Path) -> None:
    """The path of a socket may have 107 bytes; a folder may lie far deeper, and be called so."""
    deep = tmp_path / "a folder %(with) a 'name'" / ("x" * 120)
    bringing = embedded_servers(
        deep, want_redis=True, want_s3=True, bucket="films", region="eu-central-1"
    )
    async with bringing as servers, s3_client(servers.connection) as s3:
        await s3.put_object(Bucket="films", Key="a", Body=b"")
        for connection in (servers.connection, load_connection(deep)):
            assert connection
            async with redis_client(connection) as redis:
                assert await redis.ping()


async def test_ports_of_two_folders_differ(tmp_path: Path) -> None:
    async with only_s3(tmp_path / "a") as one, only_s3(tmp_path / "b") as two:
        assert one.connection.s3_endpoint_url != two.connection.s3_endpoint_url
