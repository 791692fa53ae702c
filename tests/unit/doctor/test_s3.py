"""What the doctor makes of a bucket's rules and of the server's clock."""

from typing import Any

import pytest

from cefmp4.doctor.s3 import judge_clock, judge_lifecycle
from cefmp4.model.diagnosis import Level

NOW = 1_795_000_000.0


def reply(date: str) -> dict[str, Any]:
    return {"ResponseMetadata": {"HTTPHeaders": {"date": date}}}


@pytest.mark.parametrize(
    ("now", "level"),
    [
        (1_795_255_200.0, Level.OK),
        (1_795_255_230.0, Level.OK),
        (1_795_255_300.0, Level.WARN),
        (1_795_255_000.0, Level.WARN),
        (1_795_256_200.0, Level.FAIL),
    ],
)
def test_the_clock(now: float, level: Level) -> None:
    diagnosis = judge_clock(reply("Sat, 21 Nov 2026 10:00:00 GMT"), now)
    assert diagnosis.level is level
    assert bool(diagnosis.advice) is (level is not Level.OK)


@pytest.mark.parametrize("answer", [{}, reply("yesterday"), reply("")])
def test_a_server_that_tells_no_time(answer: dict[str, Any]) -> None:
    assert judge_clock(answer, NOW).level is Level.OK


def rule(**changed: Any) -> dict[str, Any]:
    return {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, **changed}


ABORT_AFTER_1 = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}


@pytest.mark.parametrize(
    "given",
    [
        rule(**ABORT_AFTER_1),
        rule(**ABORT_AFTER_1, Filter={"Prefix": "streams/2026/"}),
        rule(**ABORT_AFTER_1, Filter={"Prefix": "str"}),
        rule(**ABORT_AFTER_1, Filter={"And": {"Prefix": "streams/", "Tags": []}}),
        {"Status": "Enabled", "Prefix": "streams/", **ABORT_AFTER_1},
        rule(Expiration={"Days": 30}),
        rule(Expiration={"Date": "2027-01-01"}),
    ],
)
def test_rules_that_work_against_uploads(given: dict[str, Any]) -> None:
    (diagnosis,) = judge_lifecycle([given], "streams/")
    assert diagnosis.level is Level.WARN
    assert diagnosis.advice


@pytest.mark.parametrize(
    "given",
    [
        rule(**ABORT_AFTER_1, Status="Disabled"),
        rule(**ABORT_AFTER_1, Filter={"Prefix": "logs/"}),
        rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}),
        rule(NoncurrentVersionExpiration={"NoncurrentDays": 1}),
        rule(Expiration={"ExpiredObjectDeleteMarker": True}),
    ],
)
def test_rules_that_do_no_harm(given: dict[str, Any]) -> None:
    (diagnosis,) = judge_lifecycle([given], "streams/")
    assert diagnosis.level is Level.OK


def test_both_dangers_of_one_rule_are_told() -> None:
    assert len(judge_lifecycle([rule(**ABORT_AFTER_1, Expiration={"Days": 2})], "")) == 2
