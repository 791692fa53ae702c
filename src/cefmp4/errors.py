"""Every error that CefMP4 raises itself. Adapters translate foreign errors into this tree, once."""

from collections.abc import Iterator
from contextlib import contextmanager


class CefError(Exception):
    """Something went wrong; `hint` says what the operator can do about it."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.hint = hint

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} ({self.hint})" if self.hint else text


class SettingsError(CefError):
    """A setting has a value that cannot be used."""


class TransientError(CefError):
    """It may work when tried again."""


class ServerUnreachableError(TransientError):
    """A server did not answer."""


class ThrottledError(TransientError):
    """The server asked us to slow down."""

    def __init__(self, message: str = "", *, hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class StoreFullError(TransientError):
    """The disk of the store is full."""


class PermanentError(CefError):
    """Trying again cannot help."""


class AccessDeniedError(PermanentError):
    """The store refused our credentials or rights."""

    def __init__(self, message: str = "", *, hint: str = "", is_stranger: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_stranger = is_stranger  # it is not a right that is missing: nothing will work


class BucketMissingError(PermanentError):
    """The bucket does not exist."""


class TablesMissingError(PermanentError):
    """A table that we need, or its whole database, is not there."""


class ProgramMissingError(PermanentError):
    """A program we need is not installed."""


class UploadGoneError(CefError):
    """The multipart upload no longer exists in the store."""


class ProofFailedError(CefError):
    """The store holds other bytes than we sent, or refused the checksum of what we sent."""


class KeyTakenError(CefError):
    """Another object lies under the key."""


class LeaseLostError(CefError):
    """Another instance owns this stream now."""


class SourceError(CefError):
    """The local file cannot be read."""


class InvariantError(CefError):
    """A rule that must always hold was broken; this stream stops here."""


class UnknownStreamError(CefError):
    """There is no such stream."""


class RefusedError(CefError):
    """The stream is not in a state in which this can be done."""


class UnknownJobError(CefError):
    """There is no such job."""


@contextmanager
def first_error() -> Iterator[None]:
    """Around a TaskGroup: raises one of its errors as itself, the first of ours if there is any;
    of no others: bugs come out as they are."""
    try:
        yield
    except BaseExceptionGroup as errors:
        leaves = list(_leaves(errors))
        raise next((one for one in leaves if isinstance(one, CefError)), leaves[0]) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
