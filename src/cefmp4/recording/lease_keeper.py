"""Takes leases by a process that holds them; lease_keeper_main tells why it is one. Where that is
not there, or does not answer, they are taken here."""

import asyncio
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count

import structlog

from cefmp4.proc import start_lasting
from cefmp4.recording import lease_keeper_main
from cefmp4.recording.lease_keeper_main import (
    BROKEN,
    FREE,
    HOLD,
    PROBE,
    READY,
    RELEASE,
    TOKEN_BYTES,
    let_go,
    take,
)
from cefmp4.tasks import comes

log = structlog.get_logger()

START_S = 5.0
ANSWER_S = 1.0  # takes 50 microseconds
RESTART_PAUSE_S = 2.0
_MESSAGE_BYTES = 256


class Keeper:
    """`on_broken` is told the token of a lease that was given up for a writer; None: the process is
    gone, and nobody looks after the leases that it held. In the event loop."""

    def __init__(self, on_broken: Callable[[bytes | None], None]) -> None:
        self._on_broken = on_broken
        self._tokens = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_ready = False
        self._settled = asyncio.Event()  # whether it starts or not is known
        self._start_again_at = 0.0

    def __repr__(self) -> str:
        return f"<Keeper pid={self.pid} ready={self._is_ready}>"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def open(self) -> None:
        """Gives it a moment; what is asked before it is ready is done without it."""
        self._start()
        if not await comes(self._settled, within_s=START_S):
            log.debug("the process that holds leases takes long to start")

    def close(self) -> None:
        """What it held is given up with it."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._is_ready = False

    def release(self, token: bytes) -> None:
        """The lease is given up already; this closes the other descriptor."""
        if self._socket is None:
            return
        try:
            _send(self._socket, RELEASE + token)
        except OSError as error:
            self._lose(str(error))

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        program = [sys.executable, "-I", "-S", lease_keeper_main.__file__, str(its.fileno())]
        try:
            self._process = start_lasting(program, pass_fds=[its.fileno()])
        except OSError as error:
            log.debug("no process to hold leases", reason=str(error))
            ours.close()
            self._start_again_at = time.monotonic() + RESTART_PAUSE_S
            self._settled.set()
            return
        finally:
            its.close()
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._read)

    def take(self, fd: int, *, holds: bool) -> tuple[bytes, str, bytes | None]:
        """The state, why there is no lease, and the token of one that the process holds now. With
        `holds` a lease that was got is kept."""
        if (answer := self._ask(fd, holds=holds)) is not None:
            return answer
        let_go(fd)  # it may have got as far as taking it
        state, reason = take(fd)
        if state == FREE and not holds:
            let_go(fd)
        return state, reason, None

    def _ask(self, fd: int, *, holds: bool) -> tuple[bytes, str, bytes | None] | None:
        if self._process is None and time.monotonic() >= self._start_again_at:
            self._start()
        if self._socket is None or not self._is_ready:
            return None
        token = next(self._tokens).to_bytes(TOKEN_BYTES, "big")
        try:
            _send(self._socket, (HOLD if holds else PROBE) + token, [fd])
            answer = self._answer_to(token)
        except OSError as error:
            self._lose(str(error))
            return None
        state, reason = answer[:1], answer[1 + TOKEN_BYTES :].decode()
        return state, reason, token if holds and state == FREE else None

    def _answer_to(self, token: bytes) -> bytes:
        """Blocks for as long as a system call takes."""
        assert self._socket is not None
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        deadline = time.monotonic() + ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            if not waiting.poll(left * 1000):
                break
            message = self._socket.recv(_MESSAGE_BYTES)
            if not message:
                raise ConnectionResetError("it ended")
            if message[:1] != BROKEN and message[1 : 1 + TOKEN_BYTES] == token:
                return message
            asyncio.get_running_loop().call_soon(self._take, message)
        raise TimeoutError("it does not answer")

    def _read(self) -> None:
        while self._socket is not None:
            try:
                message = self._socket.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(str(error))
                return
            if not message:
                self._lose("it ended")
                return
            self._take(message)

    def _take(self, message: bytes) -> None:
        if message == READY:
            self._is_ready = True
            self._settled.set()
        elif message[:1] == BROKEN:
            self._on_broken(message[1:])

    def _lose(self, reason: str) -> None:
        was_ready = self._is_ready
        self.close()
        self._settled.set()
        if was_ready:
            log.warning("the process that holds leases is lost, another follows", reason=reason)
        self._start_again_at = time.monotonic() + RESTART_PAUSE_S
        self._on_broken(None)


def _send(to: socket.socket, request: bytes, fds: Sequence[int] = ()) -> None:
    """Many files at once fill the queue; a process that hangs leaves it full."""
    waiting = select.poll()
    waiting.register(to, select.POLLOUT)
    if not waiting.poll(ANSWER_S * 1000):
        raise TimeoutError("it does not read")
    socket.send_fds(to, [request], fds)
