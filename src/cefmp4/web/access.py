"""Who may ask for what: the rules, without I/O."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from cefmp4.config.page import PageSettings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a form of another site can send without asking us first.
SIMPLE_TYPES = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})


def knows(settings: PageSettings, host: str) -> bool:
    """A site that lets its own name point to us still sends that name. An address cannot be
    somebody else's name, so where we are reached from outside any will do."""
    ours = (*settings.http_allowed_hosts, _plain(settings.reached_at))
    if is_loopback(host) or host in ours:
        return True
    return not is_loopback(settings.reached_at) and _address_of(host) is not None


def is_free_for(settings: PageSettings, host: str) -> bool:
    """Whether reading needs no token: on this machine, asked as this machine. Another name means
    that something passes on to us what comes from elsewhere."""
    return is_loopback(settings.reached_at) and is_loopback(host)


def is_loopback(host: str) -> bool:
    name = _plain(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address_of(name)
    return address is not None and address.is_loopback


def host_of(netloc: str) -> str:
    """Without the port; empty for what is none."""
    try:
        return _plain(urlsplit(f"//{netloc}").hostname or "")
    except ValueError:
        return ""


def is_of_another_site(headers: Mapping[str, str], *, is_page: bool) -> bool:
    """As far as the browser tells. A link from elsewhere may lead to a page of ours."""
    site, host = headers.get("Sec-Fetch-Site"), headers.get("Host", "").lower()
    if site is not None and site not in ("same-origin", "none"):
        is_link = headers.get("Sec-Fetch-Dest") == "document"
        return not (is_page and is_link)
    origin = headers.get("Origin")
    if origin is not None:
        return _netloc(origin) != host
    if site is not None or is_page:
        return False
    referer = headers.get("Referer")
    return referer is not None and _netloc(referer) != host


def _netloc(url: str) -> str:
    """`null` has none; and it must not be that of a request without Host."""
    try:
        return urlsplit(url).netloc.lower() or "?"
    except ValueError:
        return "?"


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
