"""What is said of a queue, by what was found. Real queues: `integration/test_sqs.py`."""

import pytest

from cefmp4.doctor.sqs import judge_queue, judge_redrive, judge_rights, judge_visibility
from cefmp4.errors import AccessDeniedError
from cefmp4.jobs.sources.sqs_queue import QueueConfig, QueueFacts
from cefmp4.model.diagnosis import Level

AWS = QueueConfig(url="https://sqs.eu-west-1.amazonaws.com/1/jobs.fifo", region="eu-west-1")


def facts(*, name: str = "jobs", visibility_s: int = 30, max_receives: int = 5) -> QueueFacts:
    return QueueFacts(
        arn=f"arn:aws:sqs:eu-west-1:1:{name}",
        waiting=3,
        visibility_s=visibility_s,
        max_receives=max_receives,
    )


def test_a_queue_that_answers() -> None:
    assert judge_queue(AWS, facts()).detail == (
        "queue jobs.fifo at AWS, eu-west-1 answers, 3 messages wait"
    )


def test_each_right_that_is_missing_is_told() -> None:
    refused = [AccessDeniedError(f"SQS {right} failed", hint="allow it") for right in ("A", "B")]
    found = judge_rights(refused)
    assert [(one.level, one.detail, one.advice) for one in found] == [
        (Level.FAIL, "SQS A failed", "allow it"),
        (Level.FAIL, "SQS B failed", "allow it"),
    ]
    assert [one.level for one in judge_rights([])] == [Level.OK]


@pytest.mark.parametrize(
    ("receives", "name", "level", "said"),
    [
        (0, "jobs", Level.WARN, "comes again until it expires"),
        (0, "jobs.fifo", Level.WARN, "holds its group up"),
        (1, "jobs", Level.WARN, "what a killed worker had"),
        (5, "jobs", Level.OK, "after 5 times"),
        (1000, "jobs", Level.WARN, "after 1000 times"),
    ],
)
def test_what_becomes_of_messages_that_are_no_jobs(
    receives: int, name: str, level: Level, said: str
) -> None:
    found = judge_redrive(facts(name=name, max_receives=receives))
    assert (found.level, bool(found.advice)) == (level, level is Level.WARN)
    assert said in found.detail


@pytest.mark.parametrize(
    ("seconds", "level", "said"),
    [
        (0, Level.WARN, "may come twice"),
        (9, Level.WARN, "may come twice"),
        (30, Level.OK, "for 30 s"),
        (43_200, Level.OK, "for 60 s, less than the queue says"),
    ],
)
def test_how_long_a_message_is_hidden(seconds: int, level: Level, said: str) -> None:
    found = judge_visibility(facts(visibility_s=seconds))
    assert found.level is level
    assert said in found.detail
