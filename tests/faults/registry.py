"""The list of scenarios: each is a plain async function that hurts a world."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.world import World

Run = Callable[[World], Awaitable[None]]
ACT_S = 150.0  # what most scenarios may take; the end of each has a patience of its own
AROUND_S = 90.0  # servers that start, objects that are read back, services that stop


class CannotRunError(Exception):
    """This machine cannot do what the scenario needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`catches`: a planted bug, whose run must end with a verdict that is not clean."""

    name: str
    group: str
    run: Run
    is_short: bool = False
    runs: int = 1  # of the long form
    act_s: float = ACT_S
    patience_s: float = 40
    catches: bool = False

    @property
    def limit_s(self) -> float:
        """After which a run is given up, whatever hangs."""
        return self.act_s + self.patience_s + AROUND_S


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    group: str,
    *,
    short: bool = False,
    runs: int = 1,
    act_s: float = ACT_S,
    patience_s: float = 40,
    catches: bool = False,
    name: str = "",
) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        title = name or getattr(run, "__name__", "").replace("_", "-")
        SCENARIOS[title] = Scenario(
            name=title,
            group=group,
            run=run,
            is_short=short,
            runs=runs,
            act_s=act_s,
            patience_s=patience_s,
            catches=catches,
        )
        return run

    return register
