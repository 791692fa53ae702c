"""What is seen of one open recording over time, for as many readers as there are.

Each look at the file goes into its tap, once. A reader waits for what it needs:

    while await tap.until(lambda: tap.stamp != seen or tap.is_gone):
        ...  # read on from where it was, up to tap.stamp.size

It ends when nobody looks at the file any more.
There is one latest state and no queue. So a reader that is slow misses only what is past, costs no
memory, and holds nobody up. The processor of a stream makes the tap, and is its first reader."""

import asyncio
from collections.abc import Callable

from cefmp4.model.stream import FileStamp
from cefmp4.recording.clocks import Clocks
from cefmp4.recording.file import FileSample

# A file whose change time lies so far back was at rest before we came. Clocks are set by seconds
# while a machine runs; a younger file is watched for as long as any other.
AT_REST_S = 30.0


class GrowthTap:
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
        self.is_over = False
        self._news = asyncio.Event()  # of the next change; each change has its own

    def __repr__(self) -> str:
        return f"<GrowthTap {self.stamp} quiet={self.quiet_s:.1f}s gone={self.is_gone}>"

    def take(self, look: FileSample) -> bool:
        """Whether anything is new."""
        now = self._clocks.monotonic()
        self.is_replaced = look.is_replaced
        was_gone = self.is_gone
        if look.in_place:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = now
        is_new = look.stamp != self.stamp
        if is_new:
            self._note_change(look.stamp, now)
        if is_new or self.is_gone != was_gone:
            self._tell()
            return True
        return False

    def _note_change(self, stamp: FileStamp, now: float) -> None:
        is_first = self.stamp is None and self._trusts_ctime
        self.was_at_rest = is_first and self._clocks.age_of(stamp) >= AT_REST_S
        self._changed_at = now
        self.stamp = stamp
        self.saw_close = False
        if self._unsent_since is None:
            self._unsent_since = now

    def renamed(self) -> None:
        self._gone_since = None
        self._tell()

    def end(self) -> None:
        """Nobody looks at the file any more: its stream has ended, or was taken over."""
        self.is_over = True
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def until(self, is_so: Callable[[], bool]) -> bool:
        """Waits for it; asked again after each change. False where it is over before."""
        while not is_so():
            if self.is_over:
                return False
            await self._news.wait()
        return True

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
