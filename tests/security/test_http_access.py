"""Who reaches the HTTP port without a right to it: other sites' pages in somebody's browser, names
that somebody lets point here, and whoever does not know the token."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from tests.support.http_port import (
    CHANGE,
    GUARDED,
    ID,
    LOOPBACK,
    OPEN,
    PAGES,
    READS,
    TOKEN,
    WIDE,
    WIDE_WITHOUT_TOKEN,
    open_port,
)
from tests.support.servers import SwiftServer
from tests.support.service import open_site

from cefmp4.config.reading import load_settings
from cefmp4.errors import SettingsError
from cefmp4.web import credentials
from cefmp4.web.credentials import Guesses, Sessions, ticket_for

EVIL = "http://evil.example"
BEARER = f"Bearer {TOKEN}"


async def test_a_rebound_name_reads_nothing() -> None:
    for access in (LOOPBACK, GUARDED, WIDE, WIDE_WITHOUT_TOKEN):
        async with open_port(access) as port:
            for host in ("evil.example", f"evil.example:{port.number}", "127.0.0.1.evil.example"):
                for path in (*READS, *PAGES, "/assets/page.js", "/login", "/api/session"):
                    assert await port.status(path, Host=host) == 403, path
                assert await port.status(CHANGE, "POST", Host=host) == 403
                assert await port.status("/api/session", "POST", Host=host) == 403
            for path in OPEN:  # a scraper's name for us
                assert await port.status(path, Host="cefmp4:8000") == 200
            assert port.changes == []


async def test_a_request_without_a_name_reads_nothing() -> None:
    async with open_port(LOOPBACK) as port:
        assert b" 403 " in await port.raw(b"GET /stats HTTP/1.0\r\n\r\n")
        assert b" 200 " in await port.raw(b"GET /healthz HTTP/1.0\r\n\r\n")
        twice = b"GET /stats HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
        assert b" 400 " in await port.raw(twice)
        proxied = b"GET http://localhost/stats HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert b" 400 " in await port.raw(proxied)


async def test_names_that_are_ours() -> None:
    async with open_port(LOOPBACK) as port:
        for host in ("localhost:8000", "LOCALHOST", "[::1]:1", "127.9.9.9", "a.localhost"):
            assert await port.status("/stats", Host=host) == 200
        assert await port.status("/stats", Host="192.168.1.5:8000") == 403
    async with open_port(WIDE) as port:
        for host in ("192.168.1.5:8000", "[fe80::1]:8000", "recorder.lan", "Recorder.LAN.:80"):
            assert await port.status("/stats", Host=host, Authorization=BEARER) == 200
            assert await port.status("/stats", Host=host) == 401


async def test_a_name_of_a_proxy_needs_the_token_even_on_loopback() -> None:
    """What comes under another name comes from elsewhere."""
    proxied = GUARDED.model_copy(update={"http_allowed_hosts": ("recorder.example",)})
    async with open_port(proxied) as port:
        assert await port.status("/stats", Host="recorder.example") == 401
        assert await port.status("/stats", Host="localhost") == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[::1"},
        {"Referer": f"{EVIL}/page"},
    ],
)
async def test_another_site_reads_and_changes_nothing(headers: dict[str, str]) -> None:
    async with open_port(LOOPBACK) as port:
        for path in READS:
            assert await port.status(path, **headers) == 403, path
        assert await port.status(CHANGE, "POST", **headers) == 403
        assert await port.status("/api/session", "POST", **headers) == 403
        assert port.changes == []


async def test_a_link_from_another_site_leads_to_the_page_alone() -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    link |= {"Sec_Fetch_Dest": "document", "Referer": f"{EVIL}/"}
    async with open_port(LOOPBACK) as port:
        for path in PAGES:
            assert await port.status(path, **link) == 200
            assert await port.status(path, Referer=f"{EVIL}/") == 200  # plain HTTP: no Sec-Fetch
        for path in READS:
            assert await port.status(path, **link) == 403
        own = {"Origin": f"http://127.0.0.1:{port.number}", "Sec_Fetch_Site": "same-origin"}
        assert await port.status("/stats", **own) == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_changes_nothing(kind: str) -> None:
    async with open_port(LOOPBACK) as port:
        assert await port.status(CHANGE, "POST", Content_Type=kind) == 415
        assert await port.status(CHANGE, "POST", Content_Type=f"{kind};charset=x") == 415
        assert port.changes == []
        assert await port.status(CHANGE, "POST") == 200


async def test_bound_wide_everything_needs_the_token() -> None:
    async with open_port(WIDE) as port:
        for path in (*READS, *PAGES):
            assert await port.status(path) == 401, path
            assert await port.status(path, Authorization=BEARER) == 200, path
        assert await port.status(CHANGE, "POST") == 401
        for path in OPEN:
            assert await port.status(path) == 200
    async with open_port(WIDE_WITHOUT_TOKEN) as port:
        for path in (*READS, *PAGES):
            assert await port.status(path) == 403, path
        assert await port.status("/stats", Authorization="Bearer ") == 403
        assert (await port.log_in("")).status == 401
        assert await port.status("/metrics") == 200
        assert port.changes == []


async def test_a_login_is_a_new_secret_each_time_and_ends() -> None:
    async with open_port(WIDE) as port:
        host = f"127.0.0.1:{port.number}"
        name = f"cefmp4_session_{port.number}"
        wrong = await port.log_in("wrong")
        assert (wrong.status, wrong.cookies) == (401, {})
        planted = {name: "chosen-by-the-attacker"}
        port.session.cookie_jar.update_cookies(planted, wrong.url.with_path("/"))
        assert await port.status("/stats") == 401
        cookie = (await port.log_in(TOKEN)).cookies[name]
        assert cookie.value not in (TOKEN, "chosen-by-the-attacker")
        assert cookie["httponly"]
        assert (cookie["samesite"], cookie["secure"], cookie["path"]) == ("Strict", "", "/")
        assert 0 < int(cookie["max-age"]) <= 24 * 3600
        assert await port.status("/stats") == 200
        assert await port.status(CHANGE, "POST") == 200
        assert await port.status(CHANGE, "POST", Origin=EVIL) == 403
        again = (await port.log_in(TOKEN, Origin=f"https://{host}")).cookies[name]
        assert again["secure"]
        assert again.value != cookie.value
        port.session.cookie_jar.clear()
        old = {"Cookie": f"{name}={cookie.value}"}
        assert await port.status("/stats", **old) == 401
        new = {"Cookie": f"{name}=chosen-by-the-attacker; {name}={again.value}"}
        assert await port.status("/stats", **new) == 200
        assert await port.status("/api/session", "DELETE", **new) == 200
        assert await port.status("/stats", **new) == 401


async def test_sessions_are_bounded_in_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cefmp4.web.credentials.MAX_SESSIONS", 2)
    now = 0.0
    monkeypatch.setattr(Sessions.__init__, "__defaults__", (lambda: now,))
    async with open_port(WIDE) as port:
        name = f"cefmp4_session_{port.number}"
        values = []
        for _ in range(3):
            port.session.cookie_jar.clear()
            values.append((await port.log_in(TOKEN)).cookies[name].value)
        port.session.cookie_jar.clear()
        seen = [await port.status("/stats", Cookie=f"{name}={value}") for value in values]
        assert seen == [401, 200, 200]
        now = 13 * 3600.0
        assert await port.status("/stats", Cookie=f"{name}={values[2]}") == 401


@pytest.mark.alone
async def test_a_wrong_token_is_answered_late_and_a_right_one_at_once() -> None:
    async with open_port(WIDE) as port:
        started = time.monotonic()
        for _ in range(5):
            assert await port.status("/stats", Authorization="Bearer wrong") == 401
        assert time.monotonic() - started > 1.4
        guessing = [
            asyncio.create_task(port.status("/stats", Authorization=f"Bearer {number}"))
            for number in range(60)
        ]
        await asyncio.wait(guessing, return_when=asyncio.FIRST_COMPLETED)
        started = time.monotonic()
        assert await port.status("/stats", Authorization=BEARER) == 200
        assert await port.status("/healthz") == 200
        assert time.monotonic() - started < 0.9
        answers = [await guess for guess in guessing]
        assert set(answers) == {401, 429}
        assert answers.count(401) <= credentials.MAX_WAITING


async def test_guesses_from_many_addresses_take_no_memory() -> None:
    one = Guesses()
    for number in range(3 * credentials.MAX_ADDRESSES):
        one._delay_after_one_more(f"10.0.{number >> 8}.{number & 255}")
    assert len(one._failures) == credentials.MAX_ADDRESSES
    delays = [
        one._delay_after_one_more(credentials._network(f"2001:db8::{n:x}")) for n in range(12)
    ]
    assert delays[0] < delays[3] < delays[-1] == credentials.LONGEST_S


async def test_an_address_for_a_player_opens_one_recording_for_a_while() -> None:
    async with open_port(WIDE) as port:
        ticket = ticket_for(ID, TOKEN, time.time())
        assert TOKEN not in ticket
        assert await port.status(f"/player/{ticket}/{ID}/master.m3u8") == 200
        other = "20260101T000000Z-00000000"
        late = ticket_for(ID, TOKEN, time.time() - 25 * 3600)
        foreign = ticket_for(ID, "another token", time.time())
        ends_at, _, signature = ticket.partition("-")
        for wrong in (
            f"/player/{ticket}/{other}/master.m3u8",
            f"/player/{late}/{ID}/master.m3u8",
            f"/player/{int(ends_at, 16) + 1:x}-{signature}/{ID}/master.m3u8",
            f"/player/{foreign}/{ID}/master.m3u8",
            f"/player/-/{ID}/master.m3u8",
            f"/player/{signature}/{ID}/master.m3u8",
        ):
            assert await port.status(wrong) == 401, wrong
        assert await port.status(f"/player/{ticket}/{ID}/..%2f..%2fx.m3u8") == 404
        assert await port.status(CHANGE.replace("/api", f"/player/{ticket}"), "POST") in (401, 405)


@pytest.mark.acceptance
async def test_the_service_bound_wide_says_that_it_needs_a_token(
    tmp_path: Path, s3_server: SwiftServer
) -> None:
    """It starts: a recording must not wait for a setting of the page."""
    async with open_site(s3_server, tmp_path, HTTP_HOST="0.0.0.0") as site:
        service, given = site.service, dict(site.service.settings)
        for changes, status in (
            ({}, 403),
            ({"API_TOKEN": TOKEN}, 401),
            ({"PUBLISH_HOST": "127.0.0.1"}, 200),  # as docker compose has it
        ):
            service.settings = given | changes
            await service.start()
            url = f"http://127.0.0.1:{service.port}/stats"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert response.status == status
            await service.stop()
        assert service.log.read_text().count("nobody can use the page: set API_TOKEN") == 1


@pytest.mark.parametrize("token", ["short", "fifteen chars x"])
def test_a_token_that_can_be_guessed_is_refused(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", token)
    with pytest.raises(SettingsError, match=r"API_TOKEN=\*\*\*: .*at least 16 characters"):
        load_settings(None)


@pytest.mark.parametrize("names", ["http://recorder.lan", "recorder.lan:8000", "*", "a b"])
def test_what_is_no_host_name_is_refused(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_ALLOWED_HOSTS", names)
    with pytest.raises(SettingsError, match=r"HTTP_ALLOWED_HOSTS=.*host names"):
        load_settings(None)
