"""What is known of one local file over time: when it last changed, whether it is still there."""

from collections.abc import Callable
from dataclasses import dataclass

from cefmp4.ingest.source import Look
from cefmp4.model.stream import FileStamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    monotonic: Callable[[], float]
    wall: Callable[[], float]


class Observation:
    """Fed with looks at the disk; decides nothing."""

    def __init__(self, *, clocks: Clocks, trusts_ctime: bool) -> None:
        self._clocks = clocks
        self._trusts_ctime = trusts_ctime
        self._changed_at = 0.0
        self._observed_at = 0.0
        self._gone_since: float | None = None
        self._unsent_since: float | None = None
        self.stamp: FileStamp | None = None
        self.saw_close = False  # since the last change
        self.is_replaced = False

    def __repr__(self) -> str:
        return f"<Observation {self.stamp} quiet={self.quiet_s:.1f}s gone={self.is_gone}>"

    def take(self, look: Look) -> bool:
        """Whether anything is new."""
        now = self._clocks.monotonic()
        since_last, self._observed_at = now - self._observed_at, now
        self.is_replaced = look.is_replaced
        was_gone = self.is_gone
        if look.in_place:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = now
        if look.stamp == self.stamp:
            return self.is_gone != was_gone
        age = self._age_of(look.stamp)
        self._changed_at = now - (age if self.stamp is None else min(age, since_last))
        self.stamp = look.stamp
        self.saw_close = False
        if self._unsent_since is None:
            self._unsent_since = now
        return True

    def _age_of(self, stamp: FileStamp) -> float:
        """How long ago the change was. The change time cannot be set by anybody, but on a network
        file system it is another machine's clock."""
        if not self._trusts_ctime:
            return 0.0
        return max(0.0, self._clocks.wall() - stamp.ctime_ns / 1e9)

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
