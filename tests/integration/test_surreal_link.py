"""The connection to SurrealDB: who signs in how, what breaks, and one process for each folder."""

import asyncio
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from surrealdb import RecordID
from surrealdb.cbor import CBORTag, dumps
from tests.support.surreal_backend import config_of, embedded_config
from tests.support.surreal_server import (
    DATABASE,
    NAMESPACE,
    PASSWORD,
    SurrealServer,
    serving_surreal,
)

from cefmp4.errors import (
    AccessDeniedError,
    PermanentError,
    ServerUnreachableError,
    SettingsError,
    TransientError,
)
from cefmp4.reachability import SURREALDB
from cefmp4.storage.surreal import link as link_module
from cefmp4.storage.surreal.client import Unreadable
from cefmp4.storage.surreal.errors import ConflictError, InUseError
from cefmp4.storage.surreal.link import SurrealConfig, SurrealLink, define, open_surreal

pytestmark = pytest.mark.integration

LEVELS = [{}, {"ns": NAMESPACE}, {"ns": NAMESPACE, "db": DATABASE}]


async def answer(link: SurrealLink) -> Any:
    (found,) = await link.query("RETURN 7")
    return found


@pytest.mark.parametrize("level", LEVELS, ids=["root", "namespace", "database"])
async def test_a_user_of_any_level_signs_in_and_again_after_a_restart(
    level: dict[str, str],
) -> None:
    async with serving_surreal(level=level) as server, open_surreal(config_of(server)) as link:
        assert server.signins == 1 + LEVELS.index(level)
        await server.stop()
        await server.start()
        assert await answer(link) == 7
        assert server.signins == 2 + LEVELS.index(level)  # it knows the level by then


async def test_nobody_signs_in_where_nobody_is_asked() -> None:
    async with serving_surreal(asks_for_user=False) as server:
        async with open_surreal(config_of(server)) as link:
            assert await answer(link) == 7
        assert server.signins == 0


@pytest.mark.parametrize("changes", [{"password": "wrong-one"}, {"username": "nobody"}])
async def test_a_stranger_is_told_which_settings_to_look_at(changes: dict[str, str]) -> None:
    async with serving_surreal() as server:
        with pytest.raises(SettingsError, match="SURREAL_USERNAME=") as caught:
            async with open_surreal(config_of(server, **changes)):
                pass
    told = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in told
    assert "wrong-one" not in told


async def test_without_a_user_it_says_what_is_missing() -> None:
    async with serving_surreal() as server:
        config = SurrealConfig(endpoint=server.address, namespace=NAMESPACE, database=DATABASE)
        with pytest.raises(SettingsError, match="SURREAL_USERNAME"):
            async with open_surreal(config):
                pass


async def test_no_text_of_it_has_the_password() -> None:
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        assert PASSWORD not in repr(link) + repr(link.config) + str(vars(link))


async def test_a_password_that_is_changed_meanwhile_is_waited_for() -> None:
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        server.level = {"ns": "another"}
        await server.stop()
        await server.start()
        with pytest.raises(AccessDeniedError):
            await answer(link)
        assert SURREALDB.troubles
        server.level = {}
        assert await answer(link) == 7
        assert not SURREALDB.troubles


async def test_a_server_that_is_not_there() -> None:
    server = SurrealServer()
    config = config_of(server, patience_s=0.1)
    with pytest.raises(ServerUnreachableError, match="check SURREAL_ENDPOINT"):
        async with open_surreal(config):
            pass


async def test_a_server_that_speaks_something_else() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.lan ESMTP\r\n")
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        with pytest.raises(ServerUnreachableError, match="out of reach"):
            async with open_surreal(
                SurrealConfig(endpoint=f"ws://127.0.0.1:{port}", namespace="n", database="d")
            ):
                pass


async def test_a_connection_that_breaks_in_mid_answer_is_made_anew() -> None:
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        server.is_silent = True
        asked = [asyncio.create_task(answer(link)) for _ in range(5)]
        await asyncio.sleep(0.05)
        await server.stop()
        server.is_silent = False
        await server.start()
        assert await asyncio.gather(*asked) == [7] * 5


async def test_who_gives_up_harms_nobody_else() -> None:
    """The answer comes after all, and finds nobody."""
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        for _ in range(50):
            asked = [asyncio.create_task(answer(link)) for _ in range(4)]
            await asyncio.sleep(0)
            asked[0].cancel()
            await asyncio.sleep(0.001)
            asked[1].cancel()
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert found[2:] == [7, 7]
            assert all(one == 7 or isinstance(one, asyncio.CancelledError) for one in found)
        assert server.signins == 1


async def test_a_server_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        monkeypatch.setattr(link_module, "REQUEST_TIMEOUT_S", 0.2)
        server.is_silent = True
        with pytest.raises(ServerUnreachableError, match="does not answer"):
            await answer(link)
        server.is_silent = False
        assert await answer(link) == 7


async def test_answers_that_are_none_break_the_connection_only() -> None:
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        for garbage in (b"\xff\x00", dumps([1]), b"\x1b"):
            server.garbage = garbage
            assert await answer(link) == 7


async def test_a_value_of_a_kind_that_nobody_knows_is_one_value() -> None:
    async with serving_surreal() as server, open_surreal(config_of(server)) as link:
        ids: list[str] = []

        async def spoil(link: SurrealLink) -> None:
            client = await link._connected()
            sent = client.socket.send

            async def send(message: bytes) -> None:
                request_id = message.split(b"id\x78\x24")[1][:36].decode()
                ids.append(request_id)
                strange = [
                    {"status": "OK", "result": [CBORTag(999, 1), 2], "time": ""},
                    {"status": "OK", "result": CBORTag(12, [10**17, 0]), "time": ""},
                ]
                server.garbage = dumps({"id": request_id, "result": strange})
                await sent(message)

            client.socket.send = send

        await spoil(link)
        listed, day = await link.query("RETURN 7; RETURN 8")
        assert isinstance(listed[0], Unreadable)
        assert listed[1] == 2
        assert isinstance(day, Unreadable)


async def all_have_counted(*links: SurrealLink) -> bool:
    await links[0].query("UPSERT counter:1 SET n = 0")
    adding = "UPDATE counter:1 SET n = n + 1 RETURN NONE"
    await asyncio.gather(*[link.query(adding) for link in [*links] * 4])
    (rows,) = await links[0].query("SELECT VALUE n FROM counter:1")
    return bool(rows == [4 * len(links)])


async def test_conflicts_are_tried_again_until_all_have_counted() -> None:
    async with (
        serving_surreal(conflict_every=3) as server,
        open_surreal(config_of(server)) as one,
        open_surreal(config_of(server)) as other,
    ):
        assert await all_have_counted(one, other)
        assert server.queries > 12  # the counting, and what had to be asked again


async def test_the_engine_of_this_process_keeps_every_change() -> None:
    """Left alone, it confirms all and loses some in one of four rounds."""
    async with open_surreal(embedded_config()) as one, open_surreal(embedded_config()) as other:
        for _ in range(100):
            assert await all_have_counted(one, other)


async def test_a_conflict_without_end_is_a_matter_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "ATTEMPTS", 2)
    async with open_surreal(embedded_config()) as link:
        with pytest.raises(ConflictError) as caught:
            await link.query("THROW 'This transaction can be retried'")
    assert isinstance(caught.value, TransientError)


async def test_what_it_refuses_is_one_short_line() -> None:
    async with open_surreal(embedded_config()) as link:
        with pytest.raises(PermanentError) as caught:
            await link.query("THROW $text", text="\x1b[31m\n" + "x" * 5000)
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()
        with pytest.raises(PermanentError, match="refused a request"):
            await link.query("bogus syntax here")
        with pytest.raises(PermanentError):
            await link.query("RETURN $x", x=2**70)
        with pytest.raises(PermanentError):
            await link.query("RETURN $x", x="\ud800")
        assert await answer(link) == 7


# The engine in this process.


async def test_all_in_one_process_have_the_same_database(tmp_path: Path) -> None:
    config = embedded_config(f"surrealkv://{tmp_path}/a b/db")
    async with open_surreal(config) as one:
        async with open_surreal(config) as other:
            await one.query("CREATE $row SET n = 1", row=RecordID("t", "x"))
        assert await other.query("SELECT VALUE n FROM t") == [[1]]
    async with open_surreal(config) as again:
        assert await again.query("SELECT VALUE n FROM t") == [[1]]


async def test_the_last_one_closes_it(tmp_path: Path) -> None:
    config = embedded_config(f"surrealkv://{tmp_path}/db")
    first, second = open_surreal(config), open_surreal(config)
    await first.__aenter__()
    link = await second.__aenter__()
    await first.__aexit__(None, None, None)
    assert await answer(link) == 7
    await second.__aexit__(None, None, None)
    async with open_surreal(config) as again:
        assert await answer(again) == 7


OPENS = """
import asyncio, sys
from cefmp4.errors import SettingsError
from cefmp4.storage.surreal.link import SurrealConfig, open_surreal

async def main():
    try:
        async with open_surreal(SurrealConfig(endpoint=sys.argv[1], namespace="n", database="d")):
            print("open")
    except SettingsError as error:
        print(error)

asyncio.run(main())
"""


async def said_by_another(endpoint: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OPENS, endpoint), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    endpoint = f"surrealkv://{tmp_path}/db"
    async with open_surreal(embedded_config(endpoint)):
        said = await said_by_another(endpoint)
        assert f"SURREAL_ENDPOINT={endpoint}: another process has this database open" in said
        assert "ws://" in said
    assert await said_by_another(endpoint) == "open\n"


async def test_databases_of_one_folder_are_not_opened_side_by_side(tmp_path: Path) -> None:
    config = embedded_config(f"surrealkv://{tmp_path}/db")
    async with open_surreal(config):
        another = SurrealConfig(endpoint=config.endpoint, namespace="x", database="y")
        with pytest.raises(InUseError):
            async with open_surreal(another):
                pass


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    endpoint = f"surrealkv://{tmp_path}/file/db"
    with pytest.raises(SettingsError, match="SURREAL_ENDPOINT=surrealkv://"):
        async with open_surreal(embedded_config(endpoint)):
            pass


async def test_an_index_that_nobody_may_make_is_done_without() -> None:
    async with open_surreal(embedded_config()) as link:
        await define(link, "DEFINE INDEX x ON t FIELDS y", "DEFINE INDEX x ON t FIELDS y")
        assert await answer(link) == 7


async def test_no_link_is_followed_to_lock_something_else(tmp_path: Path) -> None:
    (tmp_path / "db.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match=r"db\.lock: "):
        async with open_surreal(embedded_config(f"surrealkv://{tmp_path}/db")):
            pass
    assert not (tmp_path / "elsewhere").exists()
