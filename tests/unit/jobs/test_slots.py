from cefmp4.jobs.slots import UNSLOTTED, Slots
from cefmp4.model.job import Lane, SlotKind


def test_the_gpu_is_preferred_and_all_slots_are_shared() -> None:
    slots = Slots({SlotKind.GPU: 1, SlotKind.CPU: 1})
    assert slots.room(Lane.HLS_ENCODE) == slots.room(Lane.ANALYSIS) == 2
    assert slots.take(Lane.HLS_ENCODE) is SlotKind.GPU
    assert slots.take(Lane.ANALYSIS) is SlotKind.CPU
    assert slots.room(Lane.HLS_ENCODE) == slots.room(Lane.ANALYSIS) == 0
    slots.give(SlotKind.GPU)
    assert slots.room(Lane.ANALYSIS) == 1
    assert slots.take(Lane.HLS_ENCODE) is SlotKind.GPU


def test_what_needs_no_slot_waits_for_none() -> None:
    slots = Slots({SlotKind.GPU: 0, SlotKind.CPU: 0})
    assert slots.room(Lane.HLS_ENCODE) == 0
    assert slots.room(Lane.HLS_LOOK) == UNSLOTTED
    assert slots.take(Lane.HLS_LOOK) is None
    assert slots.room(Lane.HLS_LOOK) == UNSLOTTED - 1
    slots.give(None)
    assert slots.room(Lane.HLS_LOOK) == UNSLOTTED
