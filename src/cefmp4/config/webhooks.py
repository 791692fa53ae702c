"""Webhooks: the jobs that others order over HTTP, and who is called back."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import SecretStr

from cefmp4.config import values
from cefmp4.config.section import Section, hidden, setting


class WebhookSettings(Section):
    webhook_secret: Annotated[SecretStr, hidden(values.check_webhook_secrets)] | None = setting(
        None, "secrets of at least 16 characters, with commas between them, that sign POST /jobs and what is sent "
        "to WEBHOOK_URL: any of them may have signed what comes, the first signs what goes; base64 "
        "behind whsec_, any other text as it is; empty: no jobs from there",
    )  # fmt: skip
    webhook_port: int | None = setting(
        None, "port that answers POST /jobs and GET /jobs/ID and nothing else, beside PROM_PORT; 0: any free one; "
        "empty: none. A `cefmp4 worker` has it, too, where JOB_SOURCE_TYPE names webhook",
        ge=0, le=65535,
    )  # fmt: skip
    webhook_max_queued: int = setting(
        10_000, "jobs that may wait for workers before POST /jobs answers 503 and asks to come again",
        small="senders are turned away while workers could keep up", big="jobs wait for days", ge=1, le=10_000_000,
    )  # fmt: skip
    webhook_url: Annotated[SecretStr, hidden(values.check_webhook_url)] | None = setting(
        None, "http:// or https:// address that is told of each stored recording and of each job that ended, "
        "signed with WEBHOOK_SECRET; needs Temporal, and the same on every worker",
    )  # fmt: skip

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        text = self.webhook_secret.get_secret_value() if self.webhook_secret else ""
        return values.webhook_secrets(text)

    @property
    def webhook_address(self) -> str:
        """Empty where nobody is called back."""
        return self.webhook_url.get_secret_value() if self.webhook_url else ""

    @property
    def webhook_place(self) -> str:
        """For messages: user, path and query may be secrets."""
        url = urlsplit(self.webhook_address)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
