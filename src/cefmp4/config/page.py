"""The ports: metrics, health, API, page and webhook, and who may ask."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from cefmp4.config import values
from cefmp4.config.section import Section, hidden, setting


class PageSettings(Section):
    prom_port: int = setting(
        8000, "port of metrics, health, API, page and webhook; 0: any free one", ge=0, le=65535
    )
    worker_port: int = setting(
        8001, "port of metrics and health of `cefmp4 worker`, one for each worker of a host; 0: any free one",
        ge=0, le=65535,
    )  # fmt: skip
    http_host: str = setting(
        "127.0.0.1",
        "address these ports bind to; bound wider than loopback, all but health and metrics needs API_TOKEN",
    )
    publish_host: str = setting(
        "",
        "address at which others reach these ports where a container publishes them, as docker "
        "compose does; it counts instead of HTTP_HOST in what needs API_TOKEN; empty: HTTP_HOST",
    )
    http_allowed_hosts: Annotated[tuple[str, ...], AfterValidator(values.host_names)] = setting(
        (),
        "host names by which browsers may ask, with commas between them, such as those of a proxy in "
        "front; localhost, HTTP_HOST and, bound wider, every IP address are allowed anyway",
    )
    api_token: Annotated[SecretStr, hidden(values.check_secret)] | None = setting(
        None, "token of at least 16 characters that the page asks for, and that requests carry as "
        "'Authorization: Bearer'; on loopback only those that change state need it",
    )  # fmt: skip
    metrics_per_stream: bool = setting(
        True, "label the video_* metrics with stream_id; a series ends soon after its stream"
    )

    @property
    def reached_at(self) -> str:
        """The widest address at which others reach the HTTP ports."""
        return self.publish_host or self.http_host

    @property
    def token(self) -> str | None:
        """The API_TOKEN as requests carry it."""
        return self.api_token.get_secret_value() if self.api_token else None

    @property
    def page_url(self) -> str:
        """Bound to every address, it is named by the one that works on this machine."""
        host = self.http_host.strip("[]")
        try:
            is_any = ipaddress.ip_address(host).is_unspecified
        except ValueError:
            is_any = not host
        named = "127.0.0.1" if is_any else f"[{host}]" if ":" in host else host
        return f"http://{named}:{self.prom_port}/"

    def watch_url(self, subject: str) -> str | None:
        """With PROM_PORT=0 only the running service knows its port."""
        return f"{self.page_url}watch/{subject}" if self.prom_port else None
