"""Asks Temporal about what jobs need of it, and who else may use it. Loads its client library."""

from collections.abc import Iterable

from cefmp4.config.engine import EngineSettings
from cefmp4.errors import CefError
from cefmp4.model.diagnosis import Diagnosis, fail_of, ok, warn
from cefmp4.model.job import OFFERED_KINDS, JobKind
from cefmp4.temporal.asking import kept_days, version_of
from cefmp4.temporal.connect import EngineClient
from cefmp4.temporal.desk import Desk
from cefmp4.web.access import is_loopback

LEAST_DAYS = 7


async def examine_temporal(
    client: EngineClient, settings: EngineSettings, kinds: Iterable[JobKind] = OFFERED_KINDS
) -> list[Diagnosis]:
    """`kinds` of jobs that somebody must do."""
    try:
        version, days = await version_of(client), await kept_days(client)
        workers = {kind: (await Desk(client).queue(kind)).workers for kind in kinds}
    except CefError as error:
        return [fail_of("Temporal", error, "check TEMPORAL_ADDRESS and that the server runs")]
    return [
        ok("Temporal", f"version {version} answers, namespace {client.namespace}"),
        judge_history(days, client.namespace),
        judge_access(settings),
        *(judge_workers(kind, count) for kind, count in workers.items()),
    ]


def judge_history(days: int, namespace: str) -> Diagnosis:
    detail = f"ended jobs are listed for {days} days"
    if days >= LEAST_DAYS:
        return ok("Temporal history", detail)
    advice = f"temporal operator namespace update --namespace {namespace} --retention 30d"
    return warn("Temporal history", detail, advice)


def judge_access(settings: EngineSettings) -> Diagnosis:
    """Whoever gets there may look at jobs and stop them."""
    if settings.temporal_api_key or settings.temporal_tls_client_cert_path:
        return ok("Temporal access", "we show who we are, over TLS")
    if is_loopback(settings.temporal_host):
        return ok(
            "Temporal access",
            "every user of this machine may look at jobs and stop them, and give none",
        )
    detail = "whoever reaches its port may look at jobs and stop them, and give none"
    advice = "TEMPORAL_TLS_CLIENT_CERT_PATH or TEMPORAL_API_KEY, and a server that asks for it"
    return warn("Temporal access", detail, advice)


def judge_workers(kind: JobKind, count: int) -> Diagnosis:
    if count:
        return ok("workers", f"{count} take {kind} jobs")
    return warn("workers", f"none takes {kind} jobs", "start `cefmp4 worker`, or `cefmp4 up`")
