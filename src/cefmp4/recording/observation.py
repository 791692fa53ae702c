"""What is known of one local file over time: when it last changed, whether it is still there."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cefmp4.model.stream import FileStamp
from cefmp4.recording.file import FileSample

# A file whose change time lies so far back was at rest before we came. Clocks are set by seconds
# while a machine runs; a younger file is watched for as long as any other.
AT_REST_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Durations are measured on the monotonic clock. The wall clock may be set at any time, and is
    asked for moments that are written down, and for the age of a file that is seen first."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    _apart: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_apart", self.wall() - self.monotonic())

    def age_of(self, stamp: FileStamp) -> float:
        """Seconds since the file changed, at least: what the wall clock was set forward since we
        run counts for nothing. What it was set before that, nobody can tell."""
        set_forward = self.wall() - self.monotonic() - self._apart
        return self.wall() - stamp.ctime_ns / 1e9 - max(0.0, set_forward)


class Observation:
    """Fed with looks at the disk; decides nothing. How long a file is quiet is what we have seen
    ourselves of it, whatever its change time says: that comes from a clock which may be set, or is
    another machine's."""

    def __init__(self, *, clocks: Clocks, trusts_ctime: bool) -> None:
        self._clocks = clocks
        self._trusts_ctime = trusts_ctime
        self._changed_at = 0.0
        self._gone_since: float | None = None
        self._unsent_since: float | None = None
        self.stamp: FileStamp | None = None
        self.was_at_rest = False  # long before it was first seen, and it has not changed since
        self.saw_close = False  # since the last change
        self.is_replaced = False

    def __repr__(self) -> str:
        return f"<Observation {self.stamp} quiet={self.quiet_s:.1f}s gone={self.is_gone}>"

    def take(self, look: FileSample) -> bool:
        """Whether anything is new."""
        now = self._clocks.monotonic()
        self.is_replaced = look.is_replaced
        was_gone = self.is_gone
        if look.in_place:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = now
        if look.stamp == self.stamp:
            return self.is_gone != was_gone
        is_first = self.stamp is None and self._trusts_ctime
        self.was_at_rest = is_first and self._clocks.age_of(look.stamp) >= AT_REST_S
        self._changed_at = now
        self.stamp = look.stamp
        self.saw_close = False
        if self._unsent_since is None:
            self._unsent_since = now
        return True

    def renamed(self) -> None:
        self._gone_since = None

    def parts_sent(self) -> None:
        self._unsent_since = self._clocks.monotonic()

    @property
    def quiet_s(self) -> float:
        return self._clocks.monotonic() - self._changed_at

    @property
    def is_gone(self) -> bool:
        return self._gone_since is not None

    @property
    def gone_s(self) -> float:
        return 0.0 if self._gone_since is None else self._clocks.monotonic() - self._gone_since

    @property
    def unsent_s(self) -> float:
        """How long bytes may have been on the disk that were not sent."""
        return 0.0 if self._unsent_since is None else self._clocks.monotonic() - self._unsent_since
