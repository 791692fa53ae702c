"""Who is dead is known, or the owner counts as alive."""

import os
import subprocess
import sys

import pytest

from cefmp4.storage.redis.owner import host_of, is_dead, owner_id

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def with_field(owner: str, place: int, value: str) -> str:
    fields = owner.rsplit("|", 4)
    fields[place] = value
    return "|".join(fields)


def test_we_are_alive() -> None:
    owner = owner_id("a|b")
    assert not is_dead(owner)
    assert host_of(owner) == "a|b"
    assert owner == owner_id("a|b", os.getpid())


def test_a_process_that_ended_is_dead() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = owner_id("h", process.pid)
        assert not is_dead(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)  # while it is a zombie
    assert is_dead(owner)  # and after


def test_another_process_with_the_same_number_is_not_the_owner() -> None:
    assert is_dead(with_field(owner_id("h"), 4, "1"))


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, "another-boot"), (1, ""), (2, "pid:[1]"), (2, ""), (3, "x"), (3, ""), (4, "")],
)
def test_where_nothing_is_certain_the_owner_is_alive(place: int, value: str) -> None:
    dead = with_field(owner_id("h"), 4, "1")
    assert not is_dead(with_field(dead, place, value))


@pytest.mark.parametrize("owner", ["", "h", "a|b|c", "||||"])
def test_what_is_no_owner_is_not_dead(owner: str) -> None:
    assert not is_dead(owner)
