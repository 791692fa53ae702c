"""The address under which people reach the page, from the settings that say where it listens."""

import ipaddress


def page_url(host: str, port: int) -> str:
    """Bound to every address, it is named by the one that works on this machine."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f"http://{host or '127.0.0.1'}:{port}/"
    if address.is_unspecified:
        return f"http://127.0.0.1:{port}/"
    return f"http://[{address}]:{port}/" if address.version == 6 else f"http://{address}:{port}/"


def watch_url(host: str, port: int, subject: str) -> str | None:
    """None: with PROM_PORT=0 only the running service knows its port."""
    return f"{page_url(host, port)}watch/{subject}" if port else None
