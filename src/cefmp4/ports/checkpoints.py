"""What is remembered between runs, and who may work on what."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cefmp4.model.part import Part
from cefmp4.model.stream import Stream
from cefmp4.model.view import StreamView


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may work on a stream: `fence` grows with every owner, so a late writer is refused."""

    stream_id: str
    owner: str
    fence: int


class CheckpointStore(Protocol):
    """What Redis remembers. It is a hint that makes a restart cheap; S3 and the disk are the truth.

    Raises ServerUnreachableError while Redis cannot be used (gone, loading, read-only, full), and
    LeaseLostError from every call that takes a lease which is no longer ours."""

    async def is_fresh(self, folder: str = "") -> bool:
        """True where nothing of that folder was ever remembered: a first start, or Redis was
        emptied."""
        ...

    async def mark_used(self, folder: str = "") -> None: ...

    async def load_streams(self, folder: str | None = None) -> list[Stream]:
        """Every stream that is the latest of its path, in any state: those of one watched folder
        ("": those that an older version wrote), or of all."""
        ...

    async def load_displaced(self, folder: str) -> list[Stream]:
        """Those of the folder that are not at their end and whose path another stream has taken.
        They can be claimed, and do not take it back."""
        ...

    async def load_stream(self, stream_id: str) -> Stream | None: ...

    async def load_streams_of_keys(self, keys: Sequence[str]) -> list[Stream]:
        """The streams that hold these object keys."""
        ...

    async def load_stream_at(self, folder: str, relpath: str) -> Stream | None:
        """The latest stream of that path in that folder: what stands in the way when `claim` says
        None."""
        ...

    async def load_parts(self, stream_id: str) -> dict[int, Part]: ...

    async def claim(self, stream: Stream, owner: str) -> Lease | None:
        """Take the stream if nobody else holds it and no other stream holds its path; None where
        another owner does. Claiming again what one holds returns the same fence.

        The key of the stream becomes its own where no other stream holds it; `save` tells.
        Remembers a stream that is new; one that is known keeps its record, which may be newer than
        `stream`: load it again after claiming. A new generation takes the path of its
        `previous_id` over."""
        ...

    async def renew(self, leases: Iterable[Lease]) -> set[str]:
        """Extends the leases; returns the stream ids that are no longer ours."""
        ...

    async def release(self, lease: Lease) -> None:
        """A lease that is no longer ours is no error: we wanted to be rid of it."""
        ...

    async def holder(self, stream_id: str) -> str | None:
        """The owner who holds the stream now."""
        ...

    async def save(
        self, stream: Stream, lease: Lease, *, parts: Iterable[Part] = (), drop: Iterable[int] = ()
    ) -> bool:
        """Writes the stream, adds `parts` and forgets the part numbers in `drop`, all or nothing.
        A stream that was renamed, or has another folder now, lets go of its former path; one that
        has another key now, of its former key. One that failed or was dropped holds no key.

        False, and everything is written all the same: another stream holds the key."""
        ...

    async def forget(self, stream: Stream) -> None:
        """Removes every trace of a stream that nobody works on; the generation before it becomes
        the latest of the path again. LeaseLostError while somebody holds it, ourselves
        included: release first."""
        ...

    async def adopt(self, folder: str, streams: Iterable[Stream]) -> list[Stream]:
        """Puts streams of other folders (of older versions, mostly) into this one, where their
        files lie; returns those, as they are now. One that somebody works on, that is not the
        latest of its path, or whose path has a stream here already, stays where it is."""
        ...

    async def request(self, action: str, stream_id: str) -> None:
        """Tells every running instance that an operator changed a stream's record."""
        ...

    def requests(self) -> AsyncIterator[tuple[str, str]]:
        """What `request` was told, (action, stream id), for as long as one listens."""
        ...

    async def remember(self, name: str, value: str) -> None: ...

    async def recall(self, name: str) -> str | None: ...

    async def publish_views(self, views: list[StreamView], note: str = "") -> None:
        """Shows the commands what this instance works on, and why it cannot work, if so; fades
        within seconds."""
        ...

    async def load_views(self) -> list[StreamView]:
        """What all living instances work on."""
        ...

    async def load_notes(self) -> dict[str, str]:
        """Why living instances cannot work, by their names."""
        ...
