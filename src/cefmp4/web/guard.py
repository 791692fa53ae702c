"""Lets in who may: keeps other sites' pages away, and whoever has no token where the port can be
reached from elsewhere."""

import hmac
import json
import time
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion10, HttpVersion11, web

from cefmp4.config.page import PageSettings
from cefmp4.jobs.webhook_signatures import SIGNATURE
from cefmp4.web import access, page
from cefmp4.web.access import SAFE_METHODS, SIMPLE_TYPES, host_of
from cefmp4.web.credentials import Guesses, Sessions, is_ticket
from cefmp4.web.door import Complaints
from cefmp4.web.questions import read_body

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Scrapers and orchestrators ask by whatever name they know us; there is nothing to steal here.
OPEN_PATHS = frozenset({"/metrics", "/livez", "/readyz", "/healthz"})
# A request that is signed proves by itself that it may: no browser of a stranger can sign. All
# orders must be; questions after one job may be.
ORDERS, ORDER = "/jobs", "/jobs/{id}"
VERSIONS = (HttpVersion10, HttpVersion11)
LOGIN, SESSION = "/login", "/api/session"


class Guard:
    """`has_page`: whether anybody may log in here."""

    def __init__(
        self, settings: PageSettings, complaints: Complaints, *, has_page: bool = True
    ) -> None:
        self._settings = settings
        self._has_page = has_page
        self._token = settings.token
        self._complaints = complaints
        self._guesses = Guesses()
        self._sessions = Sessions()

    def routes(self) -> list[web.AbstractRouteDef]:
        if not self._has_page:
            return []
        return [
            web.get(LOGIN, page.serve_login),
            web.get(SESSION, self._tell),
            web.post(SESSION, self._log_in),
            web.delete(SESSION, self._log_out),
        ]

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.version not in VERSIONS or not request.raw_path.startswith("/"):
            raise web.HTTPBadRequest(text="ask in HTTP/1.1, and for a path: this is no proxy")
        if not self._has_page and request.match_info.http_exception is not None:
            return await handler(request)  # which says that there is nothing
        if request.path in OPEN_PATHS or _is_signed(request) or await self._has_token(request):
            return await handler(request)
        self._check_host(request)
        self._check_site(request)
        if _is_public(request) or self._may(request):
            return await handler(request)
        return self._refuse(request)

    async def _has_token(self, request: web.Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not self._token:
            return False
        return await self._is_right(request, given.strip())

    async def _is_right(self, request: web.Request, given: str) -> bool:
        """Raises where it is not: a wrong token is no reason to look for another one."""
        token = (self._token or "").encode("utf-8", "surrogateescape")
        if token and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token):
            return True
        self._complaints.note("token", request.remote or "")
        if not await self._guesses.failed(request.remote or ""):
            raise web.HTTPTooManyRequests(
                text="too many wrong tokens at the same moment", headers={"Retry-After": "1"}
            )
        raise _unauthorized("this is not the API_TOKEN")

    def _check_host(self, request: web.Request) -> None:
        host = host_of(request.headers.get("Host", ""))
        if not access.knows(self._settings, host):
            self._complaints.note("host", request.remote or "", host)
            raise web.HTTPForbidden(
                text="this host name is not known here: HTTP_ALLOWED_HOSTS lists those that are"
            )

    def _check_site(self, request: web.Request) -> None:
        is_change = request.method not in SAFE_METHODS
        is_page = not is_change and page.is_page(request.path)
        if access.is_of_another_site(request.headers, is_page=is_page):
            self._complaints.note("cross_site", request.remote or "")
            raise web.HTTPForbidden(text="another site may not do this")
        has_type = "Content-Type" in request.headers
        if is_change and has_type and request.content_type in SIMPLE_TYPES:
            raise web.HTTPUnsupportedMediaType(text="send JSON, or nothing")

    def _may(self, request: web.Request) -> bool:
        if self._token and self._sessions.has(request):
            return True
        ticket = request.match_info.get("ticket")
        if self._token and ticket is not None:
            return is_ticket(ticket, request.match_info["id"], self._token, time.time())
        is_free = access.is_free_for(self._settings, host_of(request.headers.get("Host", "")))
        is_change = request.method not in SAFE_METHODS
        return is_free and not (is_change and self._token)

    def _refuse(self, request: web.Request) -> web.Response:
        if not self._token:
            raise web.HTTPForbidden(
                text="this port can be reached from other machines: set API_TOKEN to use it"
            )
        if request.method in SAFE_METHODS and page.is_page(request.path):
            return page.login_page(status=401)
        raise _unauthorized("this needs 'Authorization: Bearer API_TOKEN', or a login at /login")

    async def _tell(self, request: web.Request) -> web.Response:
        return web.json_response({"logged_in": self._sessions.has(request)})

    async def _log_in(self, request: web.Request) -> web.Response:
        await self._is_right(request, _given_token(await read_body(request)))
        response = web.json_response({"logged_in": True})
        self._sessions.open(request, response)
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        response = web.json_response({"logged_in": False})
        self._sessions.close(request, response)
        return response


def _given_token(body: bytes) -> str:
    try:
        given = json.loads(body)["token"]
    except (ValueError, RecursionError, TypeError, KeyError):
        given = None
    if not isinstance(given, str):
        raise web.HTTPBadRequest(text='the body must be {"token": "…"}')
    return given.strip()


def _is_signed(request: web.Request) -> bool:
    """Whether it is rightly, its handler finds out."""
    resource = request.match_info.route.resource
    is_of_an_order = resource is not None and resource.canonical == ORDER
    return request.path == ORDERS or (is_of_an_order and SIGNATURE in request.headers)


def _is_public(request: web.Request) -> bool:
    """What anybody needs in order to log in, and what is in the source anyway."""
    return request.path in (LOGIN, SESSION) or request.path.startswith("/assets/")


def _unauthorized(reason: str) -> web.HTTPUnauthorized:
    return web.HTTPUnauthorized(text=reason, headers={"WWW-Authenticate": "Bearer"})
