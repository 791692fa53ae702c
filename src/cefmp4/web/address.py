"""The addresses under which people reach the page, from the settings that say where it listens."""

import ipaddress

from cefmp4.config.page import PageSettings
from cefmp4.model.job import Job, JobKind


def page_url(settings: PageSettings) -> str:
    """Bound to every address, it is named by the one that works on this machine."""
    host, port = settings.http_host, settings.prom_port
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f"http://{host or '127.0.0.1'}:{port}/"
    if address.is_unspecified:
        return f"http://127.0.0.1:{port}/"
    return f"http://[{address}]:{port}/" if address.version == 6 else f"http://{address}:{port}/"


def watch_url_of(settings: PageSettings, job: Job | None) -> str | None:
    """None while there is nothing to watch; and with PROM_PORT=0 only the running service knows its
    port."""
    if job is None or job.kind is not JobKind.HLS or not job.is_complete or not settings.prom_port:
        return None
    return f"{page_url(settings)}watch/{job.spec.subject}"
