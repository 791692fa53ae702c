"""The part plan by its invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cefmp4.model.part import (
    GIB,
    MAX_PART_BYTES,
    MAX_PARTS,
    MIB,
    MIN_PART_BYTES,
    PartPlan,
    PartSizing,
    plan_for,
)

TIB = 1024 * GIB
bases = st.integers(MIN_PART_BYTES, 64 * MIB)
plans = st.builds(PartPlan, bases, st.sampled_from(PartSizing))


def test_ten_thousand_parts_reach_forty_tebibytes_from_ten_mebibytes() -> None:
    assert PartPlan(10 * MIB).capacity >= 40 * TIB


def test_first_parts_have_the_configured_size() -> None:
    plan = PartPlan(10 * MIB)
    assert [plan.range_of(n).size for n in (1, 2, 100)] == [10 * MIB] * 3


@given(plans, st.integers(1, MAX_PARTS))
def test_every_part_has_a_size_that_s3_takes(plan: PartPlan, number: int) -> None:
    assert MIN_PART_BYTES <= plan.range_of(number).size <= MAX_PART_BYTES


@given(plans, st.integers(1, MAX_PARTS - 1))
def test_parts_follow_each_other_and_never_shrink(plan: PartPlan, number: int) -> None:
    part, following = plan.range_of(number), plan.range_of(number + 1)
    assert part.end == following.start
    assert part.size <= following.size


@given(plans, st.integers(1, MAX_PARTS))
def test_a_part_is_small_beside_what_lies_before_it(plan: PartPlan, number: int) -> None:
    part = plan.range_of(number)
    assert part.size <= max(plan.base, part.start / 256)


@given(plans, st.integers(0, 40 * TIB))
def test_number_at_finds_the_part_of_an_offset(plan: PartPlan, offset: int) -> None:
    if offset >= plan.capacity:
        return
    part = plan.range_of(plan.number_at(offset))
    assert part.start <= offset < part.end


@given(plans, st.integers(0, 3 * GIB))
def test_ranges_cover_a_file_exactly(plan: PartPlan, size: int) -> None:
    ranges = plan.ranges_for(size)
    assert sum(part.size for part in ranges) == size
    assert [part.number for part in ranges] == list(range(1, len(ranges) + 1))
    assert all(part.size > 0 for part in ranges)


def test_an_empty_file_has_no_parts() -> None:
    assert PartPlan(10 * MIB).ranges_for(0) == []


def test_equal_parts_are_chosen_big_enough_for_twice_the_size() -> None:
    plan = plan_for(200 * GIB, 10 * MIB, PartSizing.EQUAL)
    assert plan.capacity >= 400 * GIB
    assert len({plan.range_of(n).size for n in (1, 2, 9999)}) == 1


def test_what_does_not_fit_is_refused() -> None:
    plan = PartPlan(MIN_PART_BYTES, PartSizing.EQUAL)
    with pytest.raises(ValueError, match="do not fit"):
        plan.ranges_for(plan.capacity + 1)


@given(st.integers(0, 3 * GIB), bases)
def test_the_parts_of_a_backlog_are_fewer_but_bounded(size: int, base: int) -> None:
    plan = plan_for(size, base, PartSizing.GROW, is_backlog=True)
    assert base <= plan.base <= max(base, 64 * MIB)
    assert len(plan.ranges_for(size)) <= len(PartPlan(base).ranges_for(size))
