"""GPU and CPU slots of this host: a job takes one before it begins, and the preferred one first."""

from collections.abc import Mapping

from cefmp4 import metrics
from cefmp4.model.job import SLOTS, Lane, SlotKind

UNSLOTTED = 2  # jobs of lanes that need no slot, at the same moment


class Slots:
    def __init__(
        self,
        totals: Mapping[SlotKind, int],
        needs: Mapping[Lane, tuple[SlotKind, ...]] = SLOTS,
    ) -> None:
        self._free = dict(totals)
        self._needs = needs
        self._unslotted = 0
        for slot, count in totals.items():
            metrics.job_slots.labels(slot).set(count)

    def __repr__(self) -> str:
        return f"<Slots free: {self}>"

    def __str__(self) -> str:
        return " ".join(f"{kind}={count}" for kind, count in self._free.items())

    def room(self, lane: Lane) -> int:
        needs = self._needs[lane]
        if not needs:
            return UNSLOTTED - self._unslotted
        return sum(self._free.get(slot, 0) for slot in needs)

    def take(self, lane: Lane) -> SlotKind | None:
        """None only for a lane that needs none. Ask for `room` first."""
        for slot in self._needs[lane]:
            if self._free.get(slot, 0) > 0:
                self._free[slot] -= 1
                metrics.job_slots_in_use.labels(slot).inc()
                return slot
        self._unslotted += 1
        return None

    def give(self, slot: SlotKind | None) -> None:
        if slot is None:
            self._unslotted -= 1
            return
        self._free[slot] += 1
        metrics.job_slots_in_use.labels(slot).dec()
