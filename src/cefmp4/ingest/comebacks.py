"""The paths that must be looked at again although no event will come."""

from dataclasses import dataclass

from cefmp4.retry import Backoff

COMEBACK = Backoff(first_s=2.0, cap_s=60.0)  # for a stream that crashed on a bug, or is unreadable


@dataclass(slots=True)
class _Comeback:
    at: float
    failures: int
    is_growing: bool


class Comebacks:
    def __init__(self) -> None:
        self._of: dict[str, _Comeback] = {}

    def __repr__(self) -> str:
        return f"<Comebacks {len(self._of)}>"

    def __contains__(self, relpath: str) -> bool:
        return relpath in self._of

    def put(
        self, relpath: str, now: float, *, is_growing: bool, pause_s: float | None = None
    ) -> None:
        """Later and later for one that fails again and again, unless `pause_s` says when."""
        before = self._of.get(relpath)
        failures = before.failures + 1 if before else 1
        wait = pause_s if pause_s is not None else COMEBACK.wait_s(failures)
        self._of[relpath] = _Comeback(now + wait, failures, is_growing)

    def discard(self, relpath: str) -> None:
        """It came to something."""
        self._of.pop(relpath, None)

    def due(self, now: float) -> list[tuple[str, bool]]:
        """With whether it was growing. Until `began` they are due."""
        return [(path, one.is_growing) for path, one in self._of.items() if one.at <= now]

    def began(self, relpath: str) -> None:
        self._of[relpath].at = float("inf")
