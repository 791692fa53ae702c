"""What is learnt about the writers of a folder: how far behind them parts are safe to send."""

import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from cefmp4.model.part import MIB

MIN_LAG = 4 * MIB
MAX_LAG = 256 * MIB
REWRITER_SHARE = 0.5  # more parts changed at close than this: the writer rewrites its whole file
REMEMBERED = 1000  # folders, those that taught something last; they are made without end
PROBATION = 10  # files that wait for their close before the writer gets another chance


@dataclass(slots=True)
class Habit:
    lag: int = MIN_LAG
    waits: int = 0  # how many more files wait for their writer's close


class FolderHabits:
    """Keyed by folder and suffix: one camera's folder holds one writer's files."""

    def __init__(self) -> None:
        self._habits: dict[str, Habit] = {}

    def lag_for(self, relpath: str) -> int:
        return self._of(relpath).lag

    def waits_for_close(self, relpath: str) -> bool:
        return self._of(relpath).waits > 0

    def learn(self, relpath: str, *, sent_early: int, changed: int, head_changed: bool) -> bool:
        """Called once a stream is proven. Returns whether anything new was learnt."""
        key = _key(relpath)
        habit = self._habits.pop(key, Habit())
        before = (habit.lag, habit.waits)
        if sent_early == 0:
            habit.waits = max(0, habit.waits - 1)
        elif changed > REWRITER_SHARE * sent_early and sent_early >= 2:
            habit.waits = PROBATION
        elif changed > (1 if head_changed else 0):
            habit.lag = min(habit.lag * 2, MAX_LAG)
        if habit != Habit():
            self._habits[key] = habit
            while len(self._habits) > REMEMBERED:
                del self._habits[next(iter(self._habits))]
        return (habit.lag, habit.waits) != before

    def _of(self, relpath: str) -> Habit:
        return self._habits.get(_key(relpath), Habit())

    def to_json(self) -> str:
        return json.dumps({key: asdict(habit) for key, habit in self._habits.items()})

    def load_json(self, text: str) -> None:
        """What was learnt before a restart. It is a hint: what cannot be read is not kept."""
        try:
            stored = json.loads(text)
            self._habits = {
                str(key): Habit(lag=int(habit["lag"]), waits=int(habit["waits"]))
                for key, habit in stored.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            self._habits = {}


def _key(relpath: str) -> str:
    path = PurePosixPath(relpath)
    return f"{path.parent}|{path.suffix.lower()}"
