"""What became of each file, whichever way it went."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cefmp4.errors import CefError
from cefmp4.log import redact
from cefmp4.transfer.check import Known


class Status(StrEnum):
    DONE = "done"
    PRESENT = "present"  # the very bytes were there already
    SKIPPED = "skipped"  # it is nothing that can be moved
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """`path` is local. `bytes`: of the whole; `moved`: of these, what went over the wire this time.
    `proven_by`: what shows that both are the same; "" where they are not."""

    path: str
    key: str
    status: Status
    reason: str = ""
    bytes: int = 0
    moved: int = 0
    proven_by: Known | None = None

    @property
    def has_failed(self) -> bool:
        return self.status is Status.FAILED


Hear = Callable[[Transferred], None]
Count = Callable[[int], None]


def ignore(_heard: object) -> None:
    """Who calls may want to hear of each result, and of bytes on their way, or not."""


def failed(path: str, key: str, why: Exception | str) -> Transferred:
    return Transferred(path=path, key=key, status=Status.FAILED, reason=_words(why))


def _words(why: Exception | str) -> str:
    if isinstance(why, OSError):  # its own text repeats the name
        return why.strerror or type(why).__name__
    return redact(str(why)) if isinstance(why, CefError) else str(why)
