from cefmp4.jobs.slots import Slots
from cefmp4.model.job import SlotKind


def test_the_gpu_is_preferred() -> None:
    slots = Slots({SlotKind.GPU: 1, SlotKind.CPU: 1})
    assert slots.total == 2
    with slots.taken() as first:
        with slots.taken() as second:
            assert (first, second) == (SlotKind.GPU, SlotKind.CPU)
        with slots.taken() as second:
            assert second is SlotKind.CPU
    with slots.taken() as slot:
        assert slot is SlotKind.GPU


def test_a_host_without_slots_has_none() -> None:
    assert Slots({}).total == 0
