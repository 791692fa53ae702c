"""Tells whether a local writer has a file open, and springs when one comes, by the kernel's read
leases (fcntl F_SETLEASE). A writer that opens the file waits until we let go, so we do at once."""

import asyncio
import fcntl
import signal
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

import structlog

from cefmp4.errors import InvariantError
from cefmp4.watch.mounts import fs_type_of_fd, has_hidden_writers, is_remote

log = structlog.get_logger()

_IS_SUPPORTED = hasattr(fcntl, "F_SETLEASE") and hasattr(signal, "SIGIO")


class TripwireState(StrEnum):
    ARMED = "armed"  # nobody has the file open for writing, nor mapped writable
    WRITER = "writer"  # somebody has
    BLIND = "blind"  # nobody can tell: another owner's file, or a file system that does not know


class Tripwire:
    """One open file that is guarded. Always released; what `is_sprung` says stays after that."""

    def __init__(
        self,
        owner: "Tripwires",
        fd: int,
        state: TripwireState,
        on_sprung: Callable[[], None] | None,
    ) -> None:
        self.fd = fd
        self.state = state
        self._owner = owner
        self._on_sprung = on_sprung
        self._is_held = state is TripwireState.ARMED
        self._was_sprung = False

    def __repr__(self) -> str:
        return f"<Tripwire fd={self.fd} {self.state} held={self._is_held} sprung={self.is_sprung}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def is_sprung(self) -> bool:
        """Whether a writer tried to open it since it was armed. It asks the kernel, so it is right
        in any thread and before the signal was handled."""
        return self._was_sprung or (self._is_held and _is_breaking(self.fd))

    def release(self) -> None:
        if not self._is_held:
            return
        self._was_sprung = self._was_sprung or _is_breaking(self.fd)
        self._is_held = False
        self._owner.forget(self)
        _let_go(self.fd)

    def spring_if_broken(self) -> None:
        if self._is_held and _is_breaking(self.fd):
            self.release()
            if self._on_sprung is not None:
                self._on_sprung()


class Tripwires:
    """Owns SIGIO of the process: without a handler that signal would end it at the first writer.

    Enter it in the main thread, before the first `arm`."""

    def __init__(self) -> None:
        self._held: dict[int, Tripwire] = {}
        self._is_listening = False

    async def __aenter__(self) -> Self:
        if _IS_SUPPORTED:
            asyncio.get_running_loop().add_signal_handler(signal.SIGIO, self._on_signal)
            self._is_listening = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The handler stays until the loop closes: a signal may still be on its way, and the
        default action is to end the process."""
        self._is_listening = False
        for wire in list(self._held.values()):
            wire.release()

    def arm(self, fd: int, on_sprung: Callable[[], None] | None = None) -> Tripwire:
        """`fd` must be open read-only. `on_sprung` is called in the event loop."""
        if fd in self._held:
            raise InvariantError(f"descriptor {fd} has a tripwire already")
        state = self._take(fd)
        wire = Tripwire(self, fd, state, on_sprung)
        if state is TripwireState.ARMED:
            self._held[fd] = wire
        return wire

    def writer_state(self, fd: int) -> TripwireState:
        """What is so at this moment: 10 microseconds."""
        held = self._held.get(fd)
        if held is not None:
            return TripwireState.WRITER if held.is_sprung else TripwireState.ARMED
        with self.arm(fd) as wire:
            return wire.state

    def forget(self, wire: Tripwire) -> None:
        self._held.pop(wire.fd, None)

    def _on_signal(self) -> None:
        """One signal may stand for many files, so all are asked."""
        for wire in list(self._held.values()):
            wire.spring_if_broken()

    def _take(self, fd: int) -> TripwireState:
        if not self._is_listening:
            return TripwireState.BLIND
        fs_type = fs_type_of_fd(fd)
        has_hidden = has_hidden_writers(fs_type)
        if is_remote(fs_type) and not has_hidden:
            return TripwireState.BLIND  # NFS says "busy" whenever it has no delegation
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return TripwireState.WRITER
        except OSError as error:
            log.debug("no tripwire", fd=fd, reason=str(error))
            return TripwireState.BLIND
        if has_hidden:
            _let_go(fd)
            return TripwireState.BLIND
        return TripwireState.ARMED


def _is_breaking(fd: int) -> bool:
    """While a writer waits, F_GETLEASE tells what the lease must become. A descriptor that was
    closed under us guards nothing any more, which counts as sprung."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK
    except OSError:
        return True


def _let_go(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # the kernel took it back, or the file is closed: it is gone
        log.debug("tripwire was gone", fd=fd, reason=str(error))
