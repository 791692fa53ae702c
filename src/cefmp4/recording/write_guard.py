"""Tells whether a local writer has a file open, and notices one that comes, by the kernel's read
leases (fcntl F_SETLEASE). A writer that opens the file waits until the lease is given up, so a
process of its own does that at once, even while this one is frozen; without it, we do."""

import asyncio
import signal
from collections.abc import Callable
from enum import Enum
from typing import Self

import structlog

from cefmp4.errors import InvariantError
from cefmp4.recording import lease_keeper_main
from cefmp4.recording.lease_keeper import Keeper
from cefmp4.recording.lease_keeper_main import has_waiting_writer, let_go
from cefmp4.recording.mounts import fs_type_of_fd, has_hidden_writers, is_remote

log = structlog.get_logger()

ANSWER_S = 10.0  # of a loop that is busy


class WriteGuardState(Enum):
    FREE = lease_keeper_main.FREE  # nobody has the file open for writing, nor mapped writable
    WRITER = lease_keeper_main.WRITER  # somebody has
    # Nobody can tell: another owner's file, or a file system that does not know.
    BLIND = lease_keeper_main.REFUSED


class WriteGuard:
    """One open file that is guarded. Always released; what `is_broken` says stays after that."""

    def __init__(
        self,
        owner: "WriteGuards",
        fd: int,
        state: WriteGuardState,
        on_broken: Callable[[], None] | None,
        token: bytes | None,
    ) -> None:
        self.fd = fd
        self.state = state
        self.token = token  # of the other process, where that holds the lease
        self._owner = owner
        self._on_broken = on_broken
        self._is_held = state is WriteGuardState.FREE
        self._was_broken = False

    def __repr__(self) -> str:
        state = self.state.name
        return f"<WriteGuard fd={self.fd} {state} held={self._is_held} broken={self.is_broken}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def is_broken(self) -> bool:
        """Whether a writer tried to open it since it is held. It asks the kernel, so it is right
        in any thread and before the signal was handled."""
        return self._was_broken or (self._is_held and has_waiting_writer(self.fd))

    def release(self) -> None:
        if not self._is_held:
            return
        self._was_broken = self.is_broken
        self._is_held = False
        self._owner.forget(self)
        let_go(self.fd)

    def let_writer_in(self) -> None:
        self._was_broken = True
        self.release()
        if self._on_broken is not None:
            self._on_broken()


class WriteGuards:
    """Owns SIGIO of the process: without a handler that signal would end it at the first writer.

    Enter it in the main thread, before the first `hold`."""

    def __init__(self) -> None:
        self._held: dict[int, WriteGuard] = {}
        self._keeper = Keeper(self._on_broken)
        self._loop: asyncio.AbstractEventLoop | None = None  # while it is entered

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGIO, self._on_signal)
        await self._keeper.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        """The handler stays until the loop closes: a signal may still be on its way, and the
        default action is to end the process."""
        for guard in list(self._held.values()):
            guard.release()
        self._keeper.close()
        self._loop = None

    @property
    def keeper_pid(self) -> int | None:
        """The process that holds leases for us, if it lives."""
        return self._keeper.pid

    def hold(self, fd: int, on_broken: Callable[[], None] | None = None) -> WriteGuard:
        """`fd` must be open read-only. `on_broken` is called in the event loop."""
        if fd in self._held:
            raise InvariantError(f"descriptor {fd} has a write guard already")
        state, token = self._take(fd)
        guard = WriteGuard(self, fd, state, on_broken, token)
        if state is WriteGuardState.FREE:
            self._held[fd] = guard
        return guard

    def writer_state(self, fd: int) -> WriteGuardState:
        """What is so at this moment: 50 microseconds."""
        held = self._held.get(fd)
        if held is not None:
            return WriteGuardState.WRITER if held.is_broken else WriteGuardState.FREE
        return self._take(fd, holds=False)[0]

    def has_writer(self, fd: int) -> bool:
        """For any other thread than the loop's: whether somebody surely has it open for writing."""
        if self._loop is None:
            return False
        asked = asyncio.run_coroutine_threadsafe(self._writer_state(fd), self._loop)
        return asked.result(ANSWER_S) is WriteGuardState.WRITER

    async def _writer_state(self, fd: int) -> WriteGuardState:
        return self.writer_state(fd)

    def forget(self, guard: WriteGuard) -> None:
        self._held.pop(guard.fd, None)
        if guard.token is not None:
            self._keeper.release(guard.token)

    def _on_signal(self) -> None:
        """One signal may stand for many files, so all are asked."""
        for guard in list(self._held.values()):
            if guard.is_broken:
                guard.let_writer_in()

    def _on_broken(self, token: bytes | None) -> None:
        """None: nobody would let a writer in, so all that was held is given up, as if one had
        come."""
        for guard in list(self._held.values()):
            if guard.token is not None and token in (None, guard.token):
                guard.let_writer_in()

    def _take(self, fd: int, *, holds: bool = True) -> tuple[WriteGuardState, bytes | None]:
        if self._loop is None:
            return WriteGuardState.BLIND, None
        try:
            fs_type = fs_type_of_fd(fd)
        except OSError as error:  # renamed or removed below the mount
            log.debug("no write guard", fd=fd, reason=str(error))
            return WriteGuardState.BLIND, None
        has_hidden = has_hidden_writers(fs_type)
        if is_remote(fs_type) and not has_hidden:
            return WriteGuardState.BLIND, None  # NFS says "busy" whenever it has no delegation
        answer, reason, token = self._keeper.take(fd, holds=holds and not has_hidden)
        if reason:
            log.debug("no write guard", fd=fd, reason=reason)
        state = WriteGuardState(answer)
        if has_hidden and state is WriteGuardState.FREE:
            return WriteGuardState.BLIND, None
        return state, token
