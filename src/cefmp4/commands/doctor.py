"""`cefmp4 doctor`: looks at everything an upload depends on, and says what to do about it."""

import argparse
import asyncio
import json
from collections import Counter

from rich.console import Console
from rich.text import Text

from cefmp4.app.engine import open_engine
from cefmp4.app.extras import load
from cefmp4.app.sources import ADAPTERS
from cefmp4.config.backends import SOURCES
from cefmp4.config.engine import temporal_address_missing
from cefmp4.config.settings import Settings
from cefmp4.config.sources import SourceType
from cefmp4.doctor.exposure import examine_exposure
from cefmp4.doctor.folder import examine_folder
from cefmp4.doctor.programs import examine_media
from cefmp4.doctor.redis import examine_redis
from cefmp4.doctor.s3 import examine_s3
from cefmp4.doctor.webhooks import examine_webhooks
from cefmp4.errors import SettingsError
from cefmp4.log import printable, redact
from cefmp4.model import names
from cefmp4.model.diagnosis import Diagnosis, Level, fail, fail_of, ok, warn
from cefmp4.model.job import OFFERED_KINDS, JobKind
from cefmp4.storage.postgres import check_installed
from cefmp4.storage.s3.connect import s3_config
from cefmp4.web.access import is_loopback

_MARKS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


async def run(args: argparse.Namespace, settings: Settings) -> int:
    found = await examine(settings)
    if args.json:
        for diagnosis in found:
            print(json.dumps(_told(diagnosis, settings)))
    else:
        _show([_told(diagnosis, settings) for diagnosis in found])
    if any(diagnosis.is_setting for diagnosis in found):
        return 2  # as every other command, which would not even start
    return 1 if any(diagnosis.level is Level.FAIL for diagnosis in found) else 0


def _told(diagnosis: Diagnosis, settings: Settings) -> dict[str, str]:
    said = {"subject": diagnosis.subject, "level": str(diagnosis.level)}
    for name, text in (("detail", diagnosis.detail), ("advice", diagnosis.advice)):
        said[name] = redact(settings.as_spelled(text))
    return said


async def examine(settings: Settings) -> list[Diagnosis]:
    groups = await asyncio.gather(
        examine_redis(settings.redis_address),
        examine_s3(
            s3_config(settings, settings.s3_bucket_name),
            key_prefix=names.static_prefix(settings.s3_key_template),
        ),
        asyncio.to_thread(examine_folder, settings),
        asyncio.to_thread(examine_exposure, settings),
        examine_media(settings),
        examine_engine(settings),
        examine_database(settings),
        examine_sources(settings),
        examine_surreal(settings),
        examine_webhooks(settings),
    )
    return [*examine_configuration(settings), *(entry for group in groups for entry in group)]


async def examine_engine(settings: Settings) -> list[Diagnosis]:
    if settings.temporal_address is None:
        if not settings.has_jobs:
            return [ok("Temporal", "not needed: HANDOVER_JOBS=none")]
        error = temporal_address_missing()
        return [fail("Temporal", error.args[0], error.hint)]
    # Here only: it takes longer to load than everything else.
    from cefmp4.doctor.temporal import examine_temporal

    try:
        client = await open_engine(settings)
    except SettingsError as error:
        return [fail_of("Temporal", error, "")]
    called_back = (JobKind.CALLBACK,) if settings.webhook_url else ()
    return await examine_temporal(client, settings, (*OFFERED_KINDS, *called_back))


async def examine_database(settings: Settings) -> list[Diagnosis]:
    if settings.database_address is None and not settings.wants_postgres:
        return []
    try:
        _ = settings.needed_database_address
        check_installed()
    except SettingsError as error:
        return [fail_of("Postgres", error, "")]
    # Here only: most have no database, and perhaps not its driver either.
    from cefmp4.doctor.postgres import examine_postgres

    return await examine_postgres(settings)


async def examine_sources(settings: Settings) -> list[Diagnosis]:
    if SourceType.SQS not in settings.job_source_type:
        return []
    from cefmp4.doctor.sqs import examine_sqs

    return await examine_sqs(settings)


async def examine_surreal(settings: Settings) -> list[Diagnosis]:
    if not settings.uses_surrealdb:
        return []
    try:
        await load(ADAPTERS, SOURCES, SourceType.SURREALDB, "SURREAL_ENDPOINT")
    except SettingsError as error:
        return [fail_of("SurrealDB", error, "")]
    from cefmp4.doctor.surrealdb import examine_surrealdb

    return await examine_surrealdb(settings)


def examine_configuration(settings: Settings) -> list[Diagnosis]:
    reached_at = settings.reached_at
    if is_loopback(reached_at):
        return [ok("settings", "every value can be used")]
    if settings.api_token is None:
        detail = f"the page can be reached at {reached_at}, and nobody may use it without a token"
        return [warn("settings", detail, "set API_TOKEN")]
    detail = f"the page can be reached at {reached_at}, where the token passes unencrypted"
    return [warn("settings", detail, "put a proxy with TLS in front of it, and bind to loopback")]


def _show(found: list[dict[str, str]]) -> None:
    console = Console()
    for entry in found:
        line = Text(f"{entry['level']:<5}", style=_MARKS[Level(entry["level"])])
        line.append(f"{entry['subject']:<28}", style="default not bold")
        line.append(printable(entry["detail"]), style="default not bold")
        console.print(line, soft_wrap=True)
        if entry["advice"]:
            console.print(Text(f"{'':<5}→ {printable(entry['advice'])}"), soft_wrap=True)
    counts = Counter(entry["level"] for entry in found)
    console.print(", ".join(f"{counts[level]} {level}" for level in Level))
