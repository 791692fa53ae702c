"""What health checks are told. `app` fills it in; this says what follows from it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """`stalled` names the loops that have stopped turning: only a restart helps. `waiting_for` says
    why work cannot go on now, such as a server that is out of reach or a recovery that runs."""

    stalled: tuple[str, ...] = field(default=())
    waiting_for: tuple[str, ...] = field(default=())

    @property
    def is_live(self) -> bool:
        return not self.stalled

    @property
    def is_ready(self) -> bool:
        return not self.stalled and not self.waiting_for

    @property
    def reasons(self) -> list[str]:
        return [f"{name} has stopped" for name in self.stalled] + list(self.waiting_for)
