"""GPU and CPU slots of this host: an encode takes one, and the GPU's first."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cefmp4 import metrics
from cefmp4.model.job import SlotKind


class Slots:
    """Ask for no more than `total` at the same moment."""

    def __init__(self, totals: Mapping[SlotKind, int]) -> None:
        self._free = {slot: totals.get(slot, 0) for slot in SlotKind}  # in the order of preference
        self.total = sum(self._free.values())
        for slot, count in self._free.items():
            metrics.job_slots.labels(slot).set(count)

    def __repr__(self) -> str:
        return f"<Slots free: {self}>"

    def __str__(self) -> str:
        return " ".join(f"{slot}={count}" for slot, count in self._free.items())

    @contextmanager
    def taken(self) -> Iterator[SlotKind]:
        slot = next(slot for slot, free in self._free.items() if free > 0)
        self._free[slot] -= 1
        metrics.job_slots_in_use.labels(slot).inc()
        try:
            yield slot
        finally:
            self._free[slot] += 1
            metrics.job_slots_in_use.labels(slot).dec()
