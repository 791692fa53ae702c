"""The connections to a real Postgres: bounded, reconnecting, and saying plainly what is wrong."""

import asyncio
import os
import signal
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.ports import free_port
from tests.support.postgres_server import PASSWORD, PostgresServer

from cefmp4.errors import (
    AccessDeniedError,
    CefError,
    PermanentError,
    ServerUnreachableError,
    SettingsError,
)
from cefmp4.metrics import server_up
from cefmp4.reachability import POSTGRES
from cefmp4.storage.postgres.link import Postgres, PostgresConfig, open_postgres

pytestmark = pytest.mark.integration


def opened(url: str, *, pool_size: int = 5, timeout_s: float = 10) -> Any:
    return open_postgres(PostgresConfig(url=url, pool_size=pool_size, timeout_s=timeout_s))


def is_up() -> bool:
    return bool(server_up.labels("postgres")._value.get())


async def eventually(question: Any, *, within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not await question():  # noqa: ASYNC110  # the server tells nobody
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[PostgresServer]:
    """To hurt."""
    server = PostgresServer(tmp_path / "state")
    await server.start()
    yield server
    await server.stop()


# What it does.


async def test_rows_are_dictionaries_and_changes_are_counted(postgres: Postgres) -> None:
    await postgres.execute("CREATE TABLE films (id int, name text)")
    assert await postgres.execute("INSERT INTO films VALUES (1, %s), (2, 'b')", ["a'b"]) == 2
    assert await postgres.fetch("SELECT id, name FROM films WHERE id < %s", [2]) == [
        {"id": 1, "name": "a'b"}
    ]


async def test_a_transaction_is_all_or_nothing(postgres: Postgres) -> None:
    await postgres.execute("CREATE TABLE films (id int)")
    with suppress(ZeroDivisionError):
        async with postgres.transaction() as connection:
            await connection.execute("INSERT INTO films VALUES (1)")
            raise ZeroDivisionError
    async with postgres.transaction() as connection:
        await connection.execute("INSERT INTO films VALUES (2)")
    assert await postgres.fetch("SELECT id FROM films") == [{"id": 2}]


async def test_no_more_connections_than_allowed_whatever_is_asked(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    async with opened(postgres_url, pool_size=3) as postgres:
        asked = [
            postgres.fetch("SELECT pg_backend_pid() AS pid, pg_sleep(0.01)") for _ in range(60)
        ]
        rows = await asyncio.gather(*asked)
    assert 1 <= len({row["pid"] for (row,) in rows}) <= 3


async def test_nothing_is_connected_before_it_is_asked() -> None:
    async with opened(f"postgresql://nobody@127.0.0.1:{free_port()}/films") as postgres:
        assert "0 of 5 connections" in repr(postgres)


async def test_a_request_that_is_cancelled_leaves_its_connection_fit_for_use(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, pool_size=1) as postgres:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await postgres.fetch("SELECT pg_sleep(30)")
            assert await postgres.fetch("SELECT 1 AS one") == [{"one": 1}]


async def test_who_is_cancelled_while_waiting_for_a_connection_takes_none(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, pool_size=1) as postgres:
        async with postgres.connection():
            waiting = [asyncio.create_task(postgres.fetch("SELECT 1")) for _ in range(5)]
            await asyncio.sleep(0)
            for one in waiting:
                one.cancel()
            await asyncio.wait(waiting)
        assert await postgres.fetch("SELECT 1 AS one") == [{"one": 1}]


# What cannot be.


async def told(request: Awaitable[object]) -> CefError:
    with pytest.raises(CefError) as raised:
        await request
    shown = "".join(traceback.format_exception(raised.value))
    assert PASSWORD not in shown
    assert "of-the-tests" not in shown
    assert "\n" not in str(raised.value)
    return raised.value


async def test_a_wrong_password(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(await postgres_server.new_database(), password="of-the-tests-wrong")
    async with opened(url) as postgres:
        began = time.monotonic()
        error = await told(postgres.fetch("SELECT 1"))
    assert time.monotonic() - began < 5
    assert isinstance(error, AccessDeniedError)
    assert error.is_stranger
    assert "password authentication failed" in str(error)
    assert "check user and password in DATABASE_URL" in str(error)
    assert any("Postgres refuses us" in trouble for trouble in POSTGRES.troubles)


async def test_an_unknown_user(postgres_server: PostgresServer) -> None:
    async with opened(postgres_server.url("postgres", user="stranger")) as postgres:
        error = await told(postgres.fetch("SELECT 1"))
    assert isinstance(error, AccessDeniedError)


async def test_a_missing_database(postgres_server: PostgresServer) -> None:
    async with opened(postgres_server.url("nowhere")) as postgres:
        error = await told(postgres.fetch("SELECT 1"))
    assert isinstance(error, SettingsError)
    assert "DATABASE_URL=***: the database nowhere does not exist" in str(error)


async def test_a_missing_table_is_named_with_who_names_it(postgres: Postgres) -> None:
    error = await told(postgres.fetch("SELECT FROM films"))
    assert isinstance(error, PermanentError)
    assert 'relation "films" does not exist' in str(error)
    assert "POSTGRES_JOBS_TABLE" in str(error)
    error = await told(postgres.fetch("SELECT FROM cefmp4.results"))
    assert "is DATABASE_URL the right database?" in str(error)


async def test_a_missing_column(postgres: Postgres) -> None:
    await postgres.execute("CREATE TABLE jobs (id int)")
    error = await told(postgres.fetch("SELECT key FROM jobs"))
    assert isinstance(error, PermanentError)
    assert 'column "key" does not exist' in str(error)


async def test_a_missing_right(postgres: Postgres) -> None:
    error = await told(postgres.fetch("SELECT * FROM pg_authid"))
    assert isinstance(error, AccessDeniedError)
    assert not error.is_stranger
    assert "permission denied for table pg_authid" in str(error)


@pytest.mark.parametrize("value", ["name-\udcff.mp4", "null\0byte"])
async def test_text_that_is_none(postgres: Postgres, value: str) -> None:
    assert isinstance(await told(postgres.fetch("SELECT %s AS name", [value])), PermanentError)


async def test_a_standby_takes_no_writes(postgres: Postgres) -> None:
    async def write() -> None:
        async with postgres.transaction() as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute("CREATE TABLE films ()")

    with pytest.raises(ServerUnreachableError, match="read-only transaction"):
        await write()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://recorder:of-the-tests@host:of-the-tests/films",
        "postgresql://recorder:of-the-tests%zz@host/films",
        "postgresql://recorder@host/films?of-the-tests=1",
        "host=db password='of-the-tests",
        "of-the-tests",
    ],
)
async def test_an_address_that_is_none_is_not_repeated(url: str) -> None:
    async def use() -> None:
        async with opened(url) as postgres:
            await postgres.fetch("SELECT 1")

    error = await told(use())
    assert isinstance(error, SettingsError)
    assert "DATABASE_URL=***" in str(error)


async def test_a_value_in_the_address_that_the_driver_refuses(postgres_url: str) -> None:
    async with opened(f"{postgres_url}?sslmode=sometimes") as postgres:
        error = await told(postgres.fetch("SELECT 1"))
    assert isinstance(error, SettingsError)
    assert "sometimes" in str(error)


def test_nothing_that_is_printed_holds_the_password(postgres_url: str) -> None:
    assert "of-the-tests" not in repr(PostgresConfig(url=postgres_url))


# What takes too long.


async def test_when_all_are_in_use_somebody_waits_and_is_told_which_setting(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, pool_size=2, timeout_s=1) as postgres:
        async with postgres.connection(), postgres.connection():
            began = time.monotonic()
            error = await told(postgres.fetch("SELECT 1"))
            assert 0.9 < time.monotonic() - began < 5
        assert isinstance(error, ServerUnreachableError)
        assert "the 2 connections to Postgres were in use" in str(error)
        assert "POSTGRES_POOL_SIZE" in str(error)
        assert is_up()  # we were the busy ones
        assert await postgres.fetch("SELECT 1 AS one") == [{"one": 1}]


async def test_a_request_that_takes_too_long_is_given_up_on_the_server_too(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, timeout_s=1) as postgres:
        error = await told(postgres.fetch("SELECT pg_sleep(60)"))
        assert isinstance(error, ServerUnreachableError)
        assert "did not answer within 1 s (POSTGRES_TIMEOUT" in str(error)

        async def is_over() -> bool:
            return not await postgres.fetch(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' "
                "AND state = 'active' AND datname = current_database()"
            )

        await eventually(is_over)


async def test_a_row_that_another_has_locked(postgres_url: str) -> None:
    async with opened(postgres_url, timeout_s=1) as postgres:
        await postgres.execute("CREATE TABLE films AS SELECT 1 AS id")
        async with postgres.transaction() as connection:
            await connection.execute("UPDATE films SET id = 2")
            error = await told(postgres.execute("UPDATE films SET id = 3"))
        assert isinstance(error, ServerUnreachableError)
        assert await postgres.fetch("SELECT id FROM films") == [{"id": 2}]


async def test_two_that_wait_for_each_other_may_try_again(postgres: Postgres) -> None:
    await postgres.execute("CREATE TABLE films AS SELECT 1 AS id UNION SELECT 2")
    both_have_one = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with postgres.transaction() as connection:
            await connection.execute("SELECT FROM films WHERE id = %s FOR UPDATE", [first])
            await both_have_one.wait()
            await connection.execute("SELECT FROM films WHERE id = %s FOR UPDATE", [second])

    ends = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    (error,) = [end for end in ends if end]
    assert "could not do two things at once" in str(error)


@pytest.mark.faults
async def test_a_server_that_hangs_is_given_up(own_server: PostgresServer) -> None:
    url = own_server.url(await own_server.new_database())
    async with opened(url, pool_size=1, timeout_s=2) as postgres:
        async with postgres.connection() as connection:
            pid = connection.info.backend_pid
            os.kill(pid, signal.SIGSTOP)
            own_server.pause()
            async with asyncio.timeout(20):
                with pytest.raises(ServerUnreachableError, match="within 2 s"):
                    await connection.execute("SELECT 1")
        async with asyncio.timeout(20):
            error = await told(postgres.fetch("SELECT 1"))
        assert isinstance(error, ServerUnreachableError)
        assert not is_up()
        os.kill(pid, signal.SIGCONT)
        own_server.resume()
        assert await postgres.fetch("SELECT 1 AS one") == [{"one": 1}]
        assert is_up()


# What comes and goes.


@pytest.mark.faults
async def test_a_server_that_was_killed_is_found_again(own_server: PostgresServer) -> None:
    url = own_server.url(await own_server.new_database())
    async with opened(url, timeout_s=10) as postgres:
        await postgres.execute("CREATE TABLE films AS SELECT 1 AS id")
        async with postgres.connection(), postgres.connection():
            pass  # two that are idle when it dies
        own_server.kill()
        for _ in range(3):
            began = time.monotonic()
            error = await told(postgres.fetch("SELECT id FROM films"))
            assert isinstance(error, ServerUnreachableError)
            assert time.monotonic() - began < 5
        assert not is_up()
        assert POSTGRES.troubles == ["Postgres does not answer"]
        await own_server.start()
        assert await postgres.fetch("SELECT id FROM films") == [{"id": 1}]
        assert is_up()


@pytest.mark.faults
async def test_a_kill_in_the_midst_of_a_transaction(own_server: PostgresServer) -> None:
    url = own_server.url(await own_server.new_database())
    async with opened(url) as postgres:
        await postgres.execute("CREATE TABLE films AS SELECT 1 AS id")

        async def change_twice() -> None:
            async with postgres.transaction() as connection:
                await connection.execute("UPDATE films SET id = 2")
                own_server.kill()
                await connection.execute("SELECT pg_sleep(20)")  # its process notices meanwhile

        with pytest.raises(ServerUnreachableError):
            await change_twice()
        await own_server.start()
        assert await postgres.fetch("SELECT id FROM films") == [{"id": 1}]


async def test_a_connection_that_the_server_ended_is_replaced_unnoticed(
    postgres: Postgres, postgres_server: PostgresServer
) -> None:
    (row,) = await postgres.fetch("SELECT pg_backend_pid() AS pid")
    await postgres_server.ask("SELECT pg_terminate_backend(%s, 5000)", [row["pid"]])
    assert await postgres.fetch("SELECT 1 AS one") == [{"one": 1}]


async def test_a_server_with_no_connection_left_lets_us_use_those_we_have(
    postgres_server: PostgresServer,
) -> None:
    database = await postgres_server.new_database()
    await postgres_server.say("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 2")
    try:
        async with opened(postgres_server.url(database, user="few", password="few")) as postgres:
            asked = [postgres.fetch("SELECT 1 AS one, pg_sleep(0.05)") for _ in range(20)]
            assert len(await asyncio.gather(*asked)) == 20
            async with (
                opened(postgres_server.url(database, user="few", password="few")) as another,
                postgres.connection(),
                postgres.connection(),
            ):
                error = await told(another.fetch("SELECT 1"))
            assert isinstance(error, ServerUnreachableError)
            assert "no connection left" in str(error)
        url = postgres_server.url(database, user="few", password="few")
        async with opened(url, timeout_s=2) as postgres:
            async with postgres.connection(), postgres.connection():
                error = await told(postgres.fetch("SELECT 1"))  # of ours none became free
            assert "no connection left" in str(error)
    finally:
        await postgres_server.say("DROP ROLE few")


async def test_an_outage_of_somebody_else_is_none_of_ours(postgres: Postgres) -> None:
    async def store() -> None:
        async with postgres.transaction():
            raise ServerUnreachableError("S3 is away")

    await postgres.fetch("SELECT 1")
    assert "S3 is away" in str(await told(store()))
    assert is_up()


async def test_who_hangs_in_a_transaction_lets_go_of_what_he_locked(postgres_url: str) -> None:
    """As a worker that is frozen: here it only says nothing."""
    async with opened(postgres_url, timeout_s=1) as frozen, opened(postgres_url) as postgres:
        await postgres.execute("CREATE TABLE films AS SELECT 1 AS id")

        async def hang() -> None:
            async with frozen.transaction() as connection:
                await connection.execute("UPDATE films SET id = 2")
                assert await postgres.execute("UPDATE films SET id = 3") == 1
                await connection.execute("UPDATE films SET id = 4")

        error = await told(hang())
        assert isinstance(error, ServerUnreachableError)
        assert await postgres.fetch("SELECT id FROM films") == [{"id": 3}]


# What is told by others.


@asynccontextmanager
async def listening(postgres: Postgres, channel: str) -> AsyncIterator[AsyncGenerator[str, None]]:
    told = postgres.listen(channel)
    try:
        async with asyncio.timeout(30):
            yield told
    finally:
        await told.aclose()


async def test_hears_what_is_notified_also_under_an_odd_name(postgres: Postgres) -> None:
    async with listening(postgres, 'Odd "name"; --') as told:
        assert await anext(told) == ""
        await postgres.execute("SELECT pg_notify('Odd \"name\"; --', 'one')")
        assert await anext(told) == "one"


async def test_listens_again_and_says_that_it_may_have_missed_something(
    postgres: Postgres, postgres_server: PostgresServer
) -> None:
    async with listening(postgres, "films") as told:
        assert await anext(told) == ""
        await postgres_server.say(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE query LIKE 'LISTEN%'"
        )
        assert await anext(told) == ""
        await postgres.execute("NOTIFY films, 'two'")
        assert await anext(told) == "two"


async def test_listening_takes_none_of_the_connections(postgres_url: str) -> None:
    async with (
        opened(postgres_url, pool_size=1, timeout_s=2) as postgres,
        listening(postgres, "films") as told,
    ):
        assert await anext(told) == ""
        assert await postgres.fetch("SELECT 1 AS one") == [{"one": 1}]
