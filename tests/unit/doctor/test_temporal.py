"""What is said of Temporal, by what was found."""

import pytest
from pydantic import SecretStr

from cefmp4.config.engine import EngineSettings
from cefmp4.doctor.temporal import judge_access, judge_history, judge_workers
from cefmp4.model.diagnosis import Level
from cefmp4.model.job import JobKind


@pytest.mark.parametrize(("days", "level"), [(1, Level.WARN), (7, Level.OK), (30, Level.OK)])
def test_a_history_that_is_soon_gone(days: int, level: Level) -> None:
    found = judge_history(days, "films")
    assert found.level is level
    assert ("--namespace films --retention" in found.advice) == (level is Level.WARN)


@pytest.mark.parametrize(
    ("settings", "level", "said"),
    [
        (EngineSettings(temporal_address="127.0.0.1:7233"), Level.OK, "every user of this machine"),
        (EngineSettings(temporal_address="localhost:7233"), Level.OK, "every user of this machine"),
        (
            EngineSettings(
                temporal_address="box:7233", temporal_codec_key=SecretStr("the-key-of-all-hosts")
            ),
            Level.WARN,
            "whoever reaches its port",
        ),
        (
            EngineSettings(
                temporal_address="box:7233",
                temporal_codec_key=SecretStr("the-key-of-all-hosts"),
                temporal_api_key=SecretStr("hidden"),
            ),
            Level.OK,
            "who we are",
        ),
    ],
)
def test_who_else_may_use_it(settings: EngineSettings, level: Level, said: str) -> None:
    found = judge_access(settings)
    assert found.level is level
    assert said in found.detail
    assert bool(found.advice) == (level is Level.WARN)


def test_a_kind_of_jobs_that_nobody_takes() -> None:
    assert judge_workers(JobKind.HLS, 2).level is Level.OK
    assert "cefmp4 worker" in judge_workers(JobKind.HLS, 0).advice
