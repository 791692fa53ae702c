"""Who may ask for what: keeps other sites' scripts away from a page on loopback, and changes behind
a token when the port is open wider."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Scrapers and orchestrators ask by whatever name they know us; there is nothing to steal here.
OPEN_PATHS = frozenset({"/metrics", "/livez", "/readyz", "/healthz"})
# Each request proves by itself that it may: no browser of a stranger can sign.
SIGNED_PATHS = frozenset({"/jobs"})
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def guard(bound_to: str, token: str | None) -> Middleware:
    """A site that lets its own name point to 127.0.0.1 still sends that name as Host: on loopback
    only loopback names are answered. A right token is as good as a right name."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        has_token = _carries(request, token)
        if not has_token and request.path not in OPEN_PATHS | SIGNED_PATHS:
            if is_loopback(bound_to) and not is_loopback(_host_name(request)):
                raise _refused(web.HTTPForbidden, "this address is served to this machine only")
            if request.method not in SAFE_METHODS:
                _check_change(request, bound_to, token)
        return await handler(request)

    return check


def _check_change(request: web.Request, bound_to: str, token: str | None) -> None:
    if token:
        raise _refused(web.HTTPUnauthorized, "this needs 'Authorization: Bearer API_TOKEN'")
    if not is_loopback(bound_to):
        raise _refused(web.HTTPForbidden, "set API_TOKEN to allow changes over the network")
    if _is_cross_site(request):
        raise _refused(web.HTTPForbidden, "another site may not do this")


def _is_cross_site(request: web.Request) -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()


def _carries(request: web.Request, token: str | None) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if not token or kind.lower() != "bearer":
        return False
    return hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), token.encode("utf-8", "surrogateescape")
    )


def _host_name(request: web.Request) -> str:
    try:
        return urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return ""


def _refused(kind: type[web.HTTPError], reason: str) -> web.HTTPError:
    headers = {"WWW-Authenticate": "Bearer"} if kind is web.HTTPUnauthorized else None
    return kind(text=reason, headers=headers)
