"""Where to watch what a job made, as commands tell it."""

from cefmp4.config.settings import Settings
from cefmp4.model.job import Job, JobKind
from cefmp4.web.address import watch_url


def watch_url_of(settings: Settings, job: Job | None) -> str | None:
    """None while there is nothing to watch."""
    if job is None or job.kind is not JobKind.HLS or not job.is_complete:
        return None
    return watch_url(settings.http_host, settings.prom_port, job.spec.subject)
