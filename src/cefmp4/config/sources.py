"""Where jobs come from, beside the recordings of the watched folder."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator

from cefmp4.config import values
from cefmp4.config.backends import SOURCES, check_known
from cefmp4.config.section import Section, setting


class SourceType(StrEnum):
    INTERNAL = "internal"
    POSTGRES = "postgres"
    SQS = "sqs"
    WEBHOOK = "webhook"
    SURREALDB = "surrealdb"


# Those that are asked for jobs; the others bring them.
POLLED_SOURCES = (SourceType.POSTGRES, SourceType.SQS, SourceType.SURREALDB)


def _known(given: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.lower() for name in given))
    for name in names:
        check_known(name, tuple(SourceType), SOURCES)
    return names


class SourceSettings(Section):
    job_source_type: Annotated[tuple[str, ...], AfterValidator(_known)] = setting(
        (SourceType.INTERNAL.value,),
        "where jobs come from, with commas between them: internal (the recordings stored here), "
        "postgres, sqs, webhook, surrealdb; `cefmp4 up` and `cefmp4 worker --sources` ask the "
        "databases and queues among them",
    )
    worker_poll_ms: int = setting(
        1500, "milliseconds between two questions to a database for jobs, where it tells nothing by itself",
        small="the database answers all day", big="jobs begin that much later", ge=50, le=3_600_000,
    )  # fmt: skip
    postgres_jobs_table: Annotated[str, AfterValidator(values.table)] = setting(
        "jobs", "table of the jobs, or schema.table; `jobs` is made where it is missing"
    )
    postgres_jobs_names: Annotated[tuple[str, ...], AfterValidator(values.renamed)] = setting(
        (),
        "where your table calls them otherwise: ours=yours, with commas between them, of the columns "
        "id, key, bucket, kind, priority, status, attempts, error, result, job_id, updated_at and the "
        "states pending, processing, done, failed; `bucket=` leaves a column out",
    )
    aws_sqs_queue_url: Annotated[str, AfterValidator(values.queue_url)] | None = setting(
        None,
        "address of the SQS queue, as AWS shows it (https://sqs.REGION.amazonaws.com/ACCOUNT/NAME), or of "
        "another server that speaks SQS; a .fifo queue, too. Its keys come from the AWS credential chain: "
        "the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, not from .env), a profile, or a role",
    )
    sqs_max_messages: int = setting(
        10, "messages that are taken at a time", small="more requests", big="", ge=1, le=10
    )
    sqs_wait_time: int = setting(
        20, "seconds that a question to SQS waits for messages; with 0 it does not, and WORKER_POLL_MS says "
        "when the next is asked",
        small="more requests, which are paid for", big="", ge=0, le=20,
    )  # fmt: skip

    @property
    def polled_sources(self) -> tuple[str, ...]:
        """Those of other packages, too."""
        given = self.job_source_type
        return tuple(one for one in given if one in POLLED_SOURCES or one not in tuple(SourceType))
