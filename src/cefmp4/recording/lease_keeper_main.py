"""Holds read leases for the service, in a process of its own: a service that is frozen (SIGSTOP, a
swapped machine) would leave a recorder waiting in open() until the kernel takes the lease away.

Run by its path and without `site`, so that it stays small: it imports nothing of ours. It ends with
the other end of its socket, the first argument.

A request is one letter and a token of eight bytes, with the descriptor for HOLD and PROBE. The
answer is a state and the token; BROKEN and a token come unasked. A lease belongs to the open file,
which both processes share: either may give it up, and ask whether it is being broken."""

import fcntl
import os
import select
import signal
import socket
import sys

HOLD, PROBE, RELEASE = b"H", b"P", b"R"
READY, FREE, WRITER, REFUSED, BROKEN = b"!", b"F", b"W", b"N", b"B"
TOKEN_BYTES = 8
LOOK_AGAIN_MS = 1000  # in case that a signal got lost
WAKES_AT_ONCE = 4096


class LeaseKeeper:
    def __init__(self, service: socket.socket) -> None:
        self._service = service
        self._held: dict[bytes, int] = {}

    def run(self) -> None:
        signal.signal(signal.SIGIO, lambda *_: self._let_waiting_in())  # it may stand for many
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # they are meant for the service
        self._tell(READY)
        woken = _wake_on_signals()
        waiting = select.poll()
        waiting.register(self._service, select.POLLIN)
        waiting.register(woken, select.POLLIN)
        while True:
            ready = waiting.poll(LOOK_AGAIN_MS if self._held else None)
            if not ready:
                self._let_waiting_in()
            if (woken, select.POLLIN) in ready:
                os.read(woken, WAKES_AT_ONCE)
            if not any(fd != woken for fd, _ in ready):
                continue
            try:
                request, fds, _, _ = socket.recv_fds(
                    self._service, 1 + TOKEN_BYTES, 1, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                continue
            except OSError:
                return
            if not request:
                return
            self._serve(request[:1], request[1:], fds)

    def _serve(self, what: bytes, token: bytes, fds: list[int]) -> None:
        if what == RELEASE:
            self._drop(token)
            return
        (fd,) = fds
        state, reason = take(fd)
        if what == HOLD and state == FREE:
            self._held[token] = fd
            self._tell(state + token)
            self._let_in_if_waiting(token, fd)  # a signal before it was noted found nothing
            return
        if state == FREE:
            let_go(fd)
        os.close(fd)
        self._tell(state + token + reason.encode())

    def _let_waiting_in(self) -> None:
        for token, fd in list(self._held.items()):
            self._let_in_if_waiting(token, fd)

    def _let_in_if_waiting(self, token: bytes, fd: int) -> None:
        """The signal handler may come in between: who takes a token out of the dictionary is the
        one who closes its descriptor."""
        if has_waiting_writer(fd) and token in self._held:
            let_go(fd)
            self._drop(token)
            self._tell(BROKEN + token, socket.MSG_DONTWAIT)

    def _drop(self, token: bytes) -> None:
        fd = self._held.pop(token, None)
        if fd is not None:
            os.close(fd)

    def _tell(self, message: bytes, flags: int = 0) -> None:
        """Whoever asked is reading; should the queue be full, signals are handled meanwhile. What
        comes unasked never waits for a service that is frozen: what it misses, the kernel tells."""
        try:
            self._service.send(message, flags)
        except OSError:
            return


def _wake_on_signals() -> int:
    """A descriptor that can be read after a signal: one that comes just before `poll` begins would
    be handled only when that ends."""
    woken, waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    return woken


def take(fd: int) -> tuple[bytes, str]:
    try:
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())  # its first holder would be signalled for ever
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return WRITER, ""
    except OSError as error:
        return REFUSED, str(error.strerror)
    return FREE, ""


def let_go(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return  # the service did it, or the kernel


def has_waiting_writer(fd: int) -> bool:
    """While a writer waits, F_GETLEASE tells what the lease must become. A descriptor that was
    closed under us guards nothing any more, which counts as broken."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK
    except OSError:
        return True


if __name__ == "__main__":
    LeaseKeeper(socket.socket(fileno=int(sys.argv[1]))).run()
