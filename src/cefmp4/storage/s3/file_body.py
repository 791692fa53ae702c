"""Request bodies made of a range of an open file. None of them ever holds more than a window of
the range in memory, and none relies on the position of the file, which others share."""

import asyncio
import io
import os
from typing import Any

from aiohttp import ClientConnectionResetError, Payload
from aiohttp.abc import AbstractStreamWriter

from cefmp4.errors import SourceError
from cefmp4.model.object import FileRange

READ_WINDOW = 256 * 1024
# One call of sendfile. Between two of them an early reply of the server is read, and each must end
# within the stall timeout: it starts small, so that a slow line is not taken for a dead one.
FIRST_SEND_WINDOW = 64 * 1024
SEND_WINDOW = 2 * 1024 * 1024
STALL_TIMEOUT_S = 30.0
BECAME_SHORTER = "the file became shorter while it was sent"
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class _Descriptor:
    """What `loop.sendfile` takes for a file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


class RangePayload(Payload):
    """Sends a range by sendfile over plain HTTP, else by bounded reads. `is_short` tells that the
    file ended before the range did, `is_sent` that every byte has left, `failure` that it was the
    file that failed and not the connection."""

    def __init__(self, body: FileRange, *, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        super().__init__(body)
        self._range = body
        self._size = body.size
        self._stall_timeout_s = stall_timeout_s
        self._sent = 0
        self.is_short = False
        self.failure: SourceError | None = None

    @property
    def is_sent(self) -> bool:
        return self._sent == self._range.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("the range of a file is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        # aiohttp calls this a second time where a kept-alive connection turned out to be dead.
        self._sent = 0
        self.is_short = False
        writer.send_headers()
        transport = writer.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        try:
            if transport.get_extra_info("sslcontext") is None:
                await self._send_file(transport)
            await self._send_reads(writer)
        except OSError:
            self.failure = await asyncio.to_thread(_failure_of, self._range)
            # The reply that explains why the server hung up may have arrived: let it be read first.
            await _let_reply_in()
            raise

    async def _send_file(self, transport: asyncio.WriteTransport) -> None:
        loop = asyncio.get_running_loop()
        file: Any = _Descriptor(self._range.fd)
        window = FIRST_SEND_WINDOW
        while not self.is_sent:
            count = min(window, self._range.size - self._sent)
            offset = self._range.offset + self._sent
            started = loop.time()
            try:
                async with asyncio.timeout(self._stall_timeout_s):
                    # asyncio's own fallback would read through the shared file position
                    sent = await loop.sendfile(transport, file, offset, count, fallback=False)
            except (asyncio.SendfileNotAvailableError, NotImplementedError):
                return  # this file system or loop has no sendfile; a lost connection shows there
            except RuntimeError:
                raise ClientConnectionResetError("Cannot write to closing transport") from None
            self._sent += sent
            if sent < count:
                self._end_short()
            is_slow = loop.time() - started > self._stall_timeout_s / 10
            window = FIRST_SEND_WINDOW if is_slow else min(window * 4, SEND_WINDOW)
            await _let_reply_in()

    async def _send_reads(self, writer: AbstractStreamWriter) -> None:
        while not self.is_sent:
            data = await read_window(
                self._range.fd,
                self._range.offset + self._sent,
                min(READ_WINDOW, self._range.size - self._sent),
            )
            if not data:
                self._end_short()
            async with asyncio.timeout(self._stall_timeout_s):
                await writer.write(data)
            self._sent += len(data)

    def _end_short(self) -> None:
        self.is_short = True
        raise OSError(BECAME_SHORTER)


def _failure_of(body: FileRange) -> SourceError | None:
    """sendfile does not tell which of its two ends failed."""
    try:
        os.pread(body.fd, 1, body.offset)
    except OSError as error:
        return unreadable(error)
    return None


def unreadable(error: OSError) -> SourceError:
    return SourceError(f"the file cannot be read: {error.strerror}")


async def _let_reply_in() -> None:
    # sendfile pauses reading; one turn of the loop registers the reader again, the next one reads
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def read_window(fd: int, offset: int, size: int) -> bytes | bytearray:
    """Bytes that are in the page cache, as those just hashed are, cost no thread; others do, so
    that a slow disk never stops the loop."""
    if _NOWAIT:
        buffer = bytearray(size)
        try:
            if os.preadv(fd, [buffer], offset, _NOWAIT) == size:
                return buffer
        except OSError:
            pass  # EAGAIN: not cached; EOPNOTSUPP: this file system cannot tell
    return await asyncio.to_thread(os.pread, fd, size, offset)


class RangeFile(io.RawIOBase):
    """The range as a seekable file, for the client library. It never reads past the range."""

    def __init__(self, body: FileRange, *, sha256: str = "") -> None:
        super().__init__()
        self._range = body
        self._position = 0
        self.sha256 = sha256
        self.failure: SourceError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __len__(self) -> int:
        return self._range.size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._range.size}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(0, self._range.size - self._position))
        if not count:
            return 0
        try:
            count = os.preadv(self._range.fd, [view[:count]], self._range.offset + self._position)
        except OSError as error:
            self.failure = unreadable(error)
            raise
        self._position += count
        return count
