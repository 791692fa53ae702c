"""The lengths of streams, from the times of their packets."""

import math

import pytest

from cefmp4.hls.lengths import lengths_of


def lines(*times: float, index: int = 0) -> bytes:
    return b"".join(b"%d,%.3f\n" % (index, at) for at in times)


def test_each_stream_has_its_own_length_the_last_packet_included() -> None:
    said = lines(1.4, 1.5, 1.6) + lines(7.0, 7.5, index=3)
    assert lengths_of(said, 10.0) == pytest.approx({0: 0.3, 3: 1.0})


@pytest.mark.parametrize("jump_s", [5000.0, -5000.0, -2.5])
def test_a_jump_of_the_clock_takes_no_time(jump_s: float) -> None:
    at = 6000.0
    said = lines(at, at + 1, at + 2, at + 3 + jump_s, at + 4 + jump_s)
    assert lengths_of(said, 10.0) == pytest.approx({0: 5.0})


def test_a_gap_is_part_of_the_length() -> None:
    assert lengths_of(lines(0, 1, 9, 10), 10.0) == pytest.approx({0: 11.0})
    assert lengths_of(lines(0, 1, 91, 92), math.inf) == pytest.approx({0: 93.0})


def test_what_is_no_time_is_left_out() -> None:
    assert lengths_of(b"0,N/A\n0,1.0,\n\n0\nx,y\n0,2.0\xff\n0,2.0\n", 10.0) == {0: 2.0}
    assert lengths_of(b"", 10.0) == {}
