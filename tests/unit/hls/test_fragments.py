"""Fragmented MP4 out of a pipe, whole, in pieces, and hostile."""

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hls_parts import INIT, TIMESCALE, box, fed, fragment, parsed

from cefmp4.hls.fragments import Fragment, FragmentParser, SegmentCutter, key_frames
from cefmp4.media.mp4_boxes import BrokenMediaError


def segments(durations_s: list[float], target_s: float = 6) -> list[list[Fragment]]:
    cutter, at, closed = SegmentCutter(target_s), 0, list[list[Fragment]]()
    for seconds in durations_s:
        (piece,) = parsed(INIT + fragment(at, round(seconds * 30)))
        closed.append(cutter.add(piece))
        at += round(seconds * 30) * 1000
    closed.append(cutter.close())
    return [segment for segment in closed if segment]


def length(segment: list[Fragment]) -> int:
    return segment[-1].end - segment[0].start


def frames_of(segment: list[Fragment]) -> int:
    return sum(len(fragment.samples) for fragment in segment)


@pytest.mark.parametrize("size", range(1, 10))
def test_the_last_frame_may_be_tiny(size: int) -> None:
    """Silence in AAC takes seven bytes."""
    *_, last = parsed(INIT + fragment(0) + fragment(60_000, 1, sizes=size))
    assert len(last.first_sample) == size


def test_an_init_and_two_fragments() -> None:
    first, second = parsed(INIT + fragment(0) + fragment(60_000))
    assert first.init is second.init
    assert first.init.data == INIT
    header = first.init.header
    assert (header.codec, header.width, header.height) == ("avc1.64001F", 320, 180)
    assert (first.start, first.end, second.start) == (0, 60_000, 60_000)
    assert [sample.is_sync for sample in first.samples[:2]] == [True, False]
    assert len(first.first_sample) == 10


@given(st.lists(st.integers(1, 200), max_size=60))
def test_it_does_not_matter_how_the_bytes_come(cuts: list[int]) -> None:
    data, parser, found, at = INIT + fragment(0) + fragment(60_000), FragmentParser(), [], 0
    for size in [*cuts, len(data)]:
        found += fed(parser, data[at : at + size])
        at += size
    parser.close()
    assert found == parsed(data)


def test_boxes_may_have_long_lengths_and_others_between_them() -> None:
    whole = fragment(0)
    moof = int.from_bytes(whole[:4], "big")
    long = struct.pack(">I4sQ", 1, b"mdat", len(whole) - moof + 8) + whole[moof + 8 :]
    at = whole.index(b"trun") + 12
    whole = whole[:at] + struct.pack(">i", moof + 16) + whole[at + 4 : moof]
    (found,) = parsed(INIT + box("free") + whole + long + box("free", bytes(9)))
    assert found.first_sample == bytes(10)
    assert found.data == whole + long


@pytest.mark.parametrize("kept", [3, 12, len(INIT) - 5, len(INIT) + 20])
def test_a_torn_stream_is_noticed(kept: int) -> None:
    with pytest.raises(BrokenMediaError):
        parsed((INIT + fragment(0))[:kept])


def test_a_moof_without_its_mdat_is_torn() -> None:
    whole = fragment(0)
    with pytest.raises(BrokenMediaError, match="middle"):
        parsed(INIT + whole[: int.from_bytes(whole[:4], "big")])


def test_lengths_that_lie() -> None:
    whole = bytearray(fragment(0))
    whole[-600 - 8 : -600 - 4] = struct.pack(">I", 8 + 300)  # an mdat of half its samples
    with pytest.raises(BrokenMediaError):
        parsed(INIT + bytes(whole))


def test_a_box_that_claims_gigabytes_is_not_waited_for() -> None:
    with pytest.raises(BrokenMediaError, match="a box of"):
        fed(FragmentParser(), INIT + struct.pack(">I4s", 0xFFFFFFFF, b"mdat") + bytes(20))


def test_a_run_that_claims_millions_of_samples() -> None:
    whole = fragment(0)
    lied = whole.replace(struct.pack(">II", 0x205, 60), struct.pack(">II", 0x205, 0x7FFFFFFF))
    with pytest.raises(BrokenMediaError, match="does not fit"):
        parsed(INIT + lied)


@given(st.integers(0, 2**32))
def test_hostile_bytes_raise_only_our_error(seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(INIT + fragment(0) + fragment(60_000))
    for _ in range(dice.randrange(1, 12)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    try:
        parsed(bytes(data))
    except BrokenMediaError:
        return


def test_three_groups_make_a_segment() -> None:
    cut = segments([2.0] * 7)
    assert [length(segment) for segment in cut] == [180_000, 180_000, 60_000]
    assert [frames_of(segment) for segment in cut] == [180, 180, 60]


def test_a_rate_that_just_misses_the_target_does_not_drift() -> None:
    lengths = [length(segment) / TIMESCALE for segment in segments([59 / 30] * 12)]
    assert lengths == pytest.approx([5.9] * 4)


def test_uneven_groups_stay_near_the_target() -> None:
    lengths = [length(segment) / TIMESCALE for segment in segments([5.0, 5.0, 1.0, 4.0, 4.0])]
    assert lengths == pytest.approx([5.0, 6.0, 4.0, 4.0])


@given(st.lists(st.integers(1, 190), min_size=1, max_size=40))
def test_segments_are_contiguous_and_complete(frames: list[int]) -> None:
    cut = segments([count / 30 for count in frames])
    assert cut[0][0].start == 0
    assert cut[-1][-1].end == sum(frames) * 1000
    assert all(before[-1].end == after[0].start for before, after in pairwise(cut))
    assert sum(map(frames_of, cut)) == sum(frames)


def test_key_frames_are_ranges_that_begin_with_a_moof() -> None:
    (segment,) = segments([2.0, 2.0, 1.0])
    data, found = b"".join(fragment.data for fragment in segment), list(key_frames(segment))
    assert [frame.duration for frame in found] == [60_000, 60_000, 30_000]
    for frame in found:
        assert data[frame.offset + 4 : frame.offset + 8] == b"moof"


def test_a_hole_is_refused() -> None:
    cutter = SegmentCutter(6)
    first, second = parsed(INIT + fragment(0) + fragment(90_000))
    cutter.add(first)
    with pytest.raises(BrokenMediaError, match=r"a hole of 1\.000 s"):
        cutter.add(second)


def test_a_fragment_without_a_key_frame_is_refused() -> None:
    (piece,) = parsed(INIT + fragment(0, is_sync=False))
    with pytest.raises(BrokenMediaError, match="key frame"):
        SegmentCutter(6).add(piece)
