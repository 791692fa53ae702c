"""Asks the queue of AWS_SQS_QUEUE_URL about what jobs need of it. Takes no message."""

from cefmp4.config.settings import Settings
from cefmp4.errors import AccessDeniedError, CefError
from cefmp4.jobs.sources.sqs import LONGEST_CLAIM_S, SHORTEST_CLAIM_S
from cefmp4.jobs.sources.sqs_errors import SETTING
from cefmp4.jobs.sources.sqs_queue import QueueConfig, QueueFacts, open_queue, queue_config
from cefmp4.model.diagnosis import Diagnosis, fail_of, ok, warn

_MANY_RECEIVES = 100


async def examine_sqs(settings: Settings) -> list[Diagnosis]:
    config = queue_config(settings)
    try:
        async with open_queue(config) as queue:
            facts = await queue.facts()
            refused = await queue.refused_rights()
    except CefError as error:
        return [fail_of("SQS", error, f"check {SETTING} and that the server runs")]
    return [
        judge_queue(config, facts),
        *judge_rights(refused),
        judge_redrive(facts),
        judge_visibility(facts),
    ]


def judge_queue(config: QueueConfig, facts: QueueFacts) -> Diagnosis:
    where = config.endpoint_url or f"AWS, {config.region}"
    return ok("SQS", f"queue {config.name} at {where} answers, {facts.waiting} messages wait")


def judge_rights(refused: list[AccessDeniedError]) -> list[Diagnosis]:
    if not refused:
        return [ok("SQS rights", "messages may be received, deleted and hidden")]
    return [fail_of("SQS rights", error, f"check {SETTING}") for error in refused]


def judge_redrive(facts: QueueFacts) -> Diagnosis:
    advice = "give the queue a redrive policy with a maxReceiveCount of about 5"
    if not facts.max_receives:
        held_up = ", and holds its group up" if facts.is_fifo else ""
        detail = f"there is no redrive policy: what is no job comes again until it expires{held_up}"
        return warn("SQS redrive", detail, advice)
    detail = f"what is no job goes to the dead letter queue after {facts.max_receives} times"
    if facts.max_receives == 1:
        # A process that dies with messages in its hands has received them, too.
        return warn("SQS redrive", f"{detail}, and so does what a killed worker had", advice)
    if facts.max_receives > _MANY_RECEIVES:
        return warn("SQS redrive", detail, advice)
    return ok("SQS redrive", detail)


def judge_visibility(facts: QueueFacts) -> Diagnosis:
    detail = f"a message is hidden for {facts.visibility_s} s while its jobs are begun"
    if facts.visibility_s < SHORTEST_CLAIM_S:
        advice = f"set the visibility timeout of the queue to {LONGEST_CLAIM_S} seconds"
        return warn("SQS visibility", f"{detail}: it may come twice", advice)
    if facts.visibility_s > LONGEST_CLAIM_S:
        detail = f"a message is hidden for {LONGEST_CLAIM_S} s, less than the queue says"
    return ok("SQS visibility", detail)
