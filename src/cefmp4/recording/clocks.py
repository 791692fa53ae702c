"""The two clocks, and what the change time of a file says by them."""

from collections.abc import Callable

from cefmp4.model.stream import FileStamp


class Clocks:
    """Durations are measured on the monotonic clock. The wall clock may be set at any time, and is
    asked for moments that are written down, and for the age of a file that is seen first."""

    def __init__(self, *, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.wall = wall
        self._apart = wall() - monotonic()

    def age_of(self, stamp: FileStamp) -> float:
        """Seconds since the file changed, at least: what the wall clock was set forward since we
        run counts for nothing. What it was set before that, nobody can tell."""
        set_forward = self.wall() - self.monotonic() - self._apart
        return self.wall() - stamp.ctime_ns / 1e9 - max(0.0, set_forward)
