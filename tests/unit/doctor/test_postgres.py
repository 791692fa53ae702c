"""What the doctor makes of what Postgres says of itself."""

from typing import Any

import pytest

from cefmp4.doctor.postgres import (
    judge_connections,
    judge_role,
    judge_tables,
    judge_vectors,
    judge_version,
)
from cefmp4.model.diagnosis import Level
from cefmp4.storage.postgres.vectors import Vectors

FACTS: dict[str, Any] = {
    "version": 16,
    "release": "16.4 (Debian)",
    "database": "films",
    "us": "recorder",
    "takes_no_writes": False,
    "may_make_tables": True,
    "places": 97,
    "taken": 10,
    "limit_of_user": -1,
    "limit_of_database": -1,
}


@pytest.mark.parametrize(("version", "level"), [(12, Level.FAIL), (13, Level.OK), (18, Level.OK)])
def test_version(version: int, level: Level) -> None:
    assert judge_version(FACTS | {"version": version}).level is level


def test_a_standby_takes_nothing() -> None:
    assert judge_role(FACTS).level is Level.OK
    assert "target_session_attrs" in judge_role(FACTS | {"takes_no_writes": True}).advice


@pytest.mark.parametrize(
    ("version", "may", "level", "advice"),
    [
        (2, False, Level.OK, ""),
        (0, True, Level.OK, ""),
        (1, True, Level.OK, ""),
        (0, False, Level.FAIL, "CREATE SCHEMA cefmp4 AUTHORIZATION recorder"),
        (1, False, Level.FAIL, "ON SCHEMA cefmp4 TO recorder"),
        (3, True, Level.FAIL, "update CefMP4"),
    ],
)
def test_tables(version: int, may: bool, level: Level, advice: str) -> None:
    found = judge_tables(FACTS | {"may_make_tables": may}, version, 2)
    assert found.level is level
    assert advice in found.advice


@pytest.mark.parametrize(
    ("changed", "level", "advice"),
    [
        ({}, Level.OK, ""),
        ({"taken": 92}, Level.WARN, "raise max_connections"),
        ({"places": 5, "taken": 0}, Level.WARN, "POSTGRES_POOL_SIZE"),
        ({"limit_of_user": 3}, Level.WARN, "POSTGRES_POOL_SIZE"),
        ({"limit_of_database": 3}, Level.WARN, "POSTGRES_POOL_SIZE"),
        ({"limit_of_user": 6}, Level.OK, ""),
    ],
)
def test_connections(changed: dict[str, int], level: Level, advice: str) -> None:
    found = judge_connections(FACTS | changed, pool_size=5)
    assert found.level is level
    assert advice in found.advice


@pytest.mark.parametrize("found", Vectors)
def test_whether_there_are_vectors_is_no_matter_of_life_and_death(found: Vectors) -> None:
    judged = judge_vectors(found)
    assert judged.level is not Level.FAIL
    assert bool(judged.advice) == (judged.level is Level.WARN)
