"""What is said of SurrealDB, by its address."""

from typing import Any

import pytest

from cefmp4.doctor.surrealdb import judge_endpoint, judge_states
from cefmp4.storage.surreal.link import SurrealConfig


@pytest.mark.parametrize(
    ("endpoint", "username", "said"),
    [
        ("ws://127.0.0.1:8000", "", ""),
        ("ws://localhost:8000", "root", ""),
        ("ws://[::1]:8000", "root", ""),
        ("wss://db.lan", "root", ""),
        ("surrealkv:///var/lib/db", "", ""),
        ("ws://db.lan:8000", "root", "unencrypted"),
        ("ws://db.lan", "root", "unencrypted"),
        ("ws://db.lan:8000", "", "whoever reaches its port"),
        ("mem://", "", "forgets everything"),
    ],
)
def test_addresses(endpoint: str, username: str, said: str) -> None:
    config = SurrealConfig(endpoint=endpoint, namespace="n", database="d", username=username)
    found = judge_endpoint(config)
    assert bool(found) == bool(said)
    assert all(said in one.detail for one in found)


def test_both_spellings_of_a_failure_are_one() -> None:
    rows: list[dict[str, Any]] = [
        {"status": "faild", "rows": 2},
        {"status": "failed", "rows": 1},
        {"status": None, "rows": 1},
    ]
    assert judge_states(rows).detail == "1 None, 3 failed"
    assert judge_states([]).detail == "no rows of hls_job"
