"""What the doctor makes of Redis's own description."""

from typing import Any

import pytest

from cefmp4.doctor.redis import judge_memory, judge_persistence, judge_role, judge_version
from cefmp4.model.diagnosis import Level


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({"redis_version": "7.2.4"}, Level.OK),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, Level.OK),
        ({"redis_version": "6.0.16"}, Level.FAIL),
        ({"redis_version": "strange"}, Level.OK),
        ({}, Level.OK),
    ],
)
def test_version(facts: dict[str, Any], level: Level) -> None:
    assert judge_version(facts).level is level


def test_a_replica_takes_no_checkpoints() -> None:
    assert judge_role({"role": "slave"}).level is Level.FAIL
    assert judge_role({"role": "master"}).level is Level.OK


@pytest.mark.parametrize(
    ("facts", "saves", "level"),
    [
        ({"aof_enabled": 1}, False, Level.OK),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, False, Level.FAIL),
        ({"aof_enabled": 0}, True, Level.WARN),
        ({"aof_enabled": 0}, False, Level.WARN),
        ({"aof_enabled": 0}, None, Level.WARN),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, True, Level.FAIL),
        ({"aof_enabled": "odd"}, True, Level.WARN),
    ],
)
def test_persistence(facts: dict[str, Any], saves: bool | None, level: Level) -> None:
    assert judge_persistence(facts, saves).level is level


@pytest.mark.parametrize(
    ("policy", "used", "level"),
    [
        ("noeviction", 10, Level.OK),
        ("noeviction", 95, Level.WARN),
        ("volatile-lru", 10, Level.WARN),
        ("allkeys-lru", 10, Level.FAIL),
    ],
)
def test_memory(policy: str, used: int, level: Level) -> None:
    facts = {"maxmemory": 100, "used_memory": used, "maxmemory_policy": policy}
    assert judge_memory(facts).level is level


def test_memory_without_a_limit() -> None:
    assert judge_memory({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}).level is Level.OK
