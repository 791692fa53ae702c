"""How long a file is quiet, while clocks are set."""

from dataclasses import dataclass, replace

import pytest

from cefmp4.model.stream import FileStamp
from cefmp4.recording.file import FileSample
from cefmp4.recording.observation import AT_REST_S, Clocks, Observation

NS = 1_000_000_000
STEPS = [-3600.0, -7.0, 0.0, 7.0, 25.0]


@dataclass
class Time:
    """`wall` runs with `monotonic`, until somebody sets it."""

    monotonic: float = 500.0
    wall: float = 1_700_000_000.0

    def __post_init__(self) -> None:
        self.clocks = Clocks(monotonic=lambda: self.monotonic, wall=lambda: self.wall)

    def go_on(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def look(self, size: int = 1) -> FileSample:
        """At a file that was written just now."""
        return FileSample(FileStamp(1, size, 0, int(self.wall * NS)), in_place=True)


@pytest.mark.parametrize("trusts_ctime", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_is_set_makes_no_file_quiet(step: float, trusts_ctime: bool) -> None:
    time = Time()
    file = Observation(clocks=time.clocks, trusts_ctime=trusts_ctime)
    for size in range(1, 20):
        look = time.look(size)
        time.wall += step  # between the write and the look at it
        file.take(look)
        assert (file.quiet_s, file.was_at_rest) == (0.0, False)
        time.go_on(1.0)
        assert file.quiet_s == pytest.approx(1.0)


@pytest.mark.parametrize("step", STEPS)
def test_one_that_was_written_before_we_came_is_watched_for_a_while(step: float) -> None:
    """Even if the clock was set before that, when nobody could know."""
    time = Time()
    look = time.look()
    time.wall += step
    time = Time(wall=time.wall)
    file = Observation(clocks=time.clocks, trusts_ctime=True)
    file.take(look)
    assert (file.quiet_s, file.was_at_rest) == (0.0, False)


@pytest.mark.parametrize(("age", "is_at_rest"), [(AT_REST_S + 1, True), (AT_REST_S - 1, False)])
def test_an_old_file_was_at_rest_until_it_changes(age: float, is_at_rest: bool) -> None:
    time = Time()
    look = time.look()
    time.go_on(age)
    file = Observation(clocks=time.clocks, trusts_ctime=True)
    file.take(look)
    assert file.was_at_rest is is_at_rest
    file.take(replace(look, in_place=False))
    assert file.was_at_rest is is_at_rest
    file.take(time.look(2))
    assert not file.was_at_rest


def test_where_change_times_are_of_another_machine_no_file_was_at_rest() -> None:
    time = Time()
    look = time.look()
    time.go_on(1000)
    file = Observation(clocks=time.clocks, trusts_ctime=False)
    file.take(look)
    assert not file.was_at_rest
