"""`BinaryFile`: a file with a position, in bytes, for coroutines."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from collections.abc import Iterable
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from libaio_shim._native import IOCB_CMD_PREAD, IOCB_CMD_PWRITE, ffi, pin
from libaio_shim.asyncio._context import PIECE_BYTES, AsyncContext
from libaio_shim.asyncio._hosts import current_host
from libaio_shim.asyncio._lines import Lines, size_argument

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

# What is read ahead for lines.
BLOCK_BYTES = 64 * 1024


def _offset(fd: int) -> int | None:
    """Where the descriptor's own offset is; None for a pipe and the like, which has none."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return None


def _pwrite_all(fd: int, data: memoryview, offset: int, done: list[int]) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        done[0] += count
        offset += count
        data = data[count:]


class AsyncFile:
    """What `BinaryFile` and `TextFile` have in common: a descriptor, its position, its end.

    One task at a time may use the position (`read`, `write`, `seek`...); `pread` and `pwrite` any number.
    Every write goes to the engine at once: there is no write buffer, and `flush` has nothing to do.
    """

    def __init__(self, context: AsyncContext, fd: int, name: Any, mode: str, closefd: bool = True) -> None:
        self._closed = False
        self._context = context
        self._fd = fd
        self._closefd = closefd
        self.name = name
        """The path, or the descriptor, that was opened."""
        self.mode = mode
        """As given to `open`."""
        self._reads = "r" in mode or "+" in mode
        self._writes = mode.strip("rbt") != ""
        self._appends = "a" in mode
        # Where the next byte comes from that is not in a buffer; what was opened to append begins at the end.
        self._position = os.fstat(fd).st_size if self._appends else _offset(fd) or 0

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def fileno(self) -> int:
        """The descriptor."""
        self._check()
        return self._fd

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        self._check()
        return self._reads

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        self._check()
        return self._writes

    def seekable(self) -> bool:
        """Whether it has positions, as a pipe has not."""
        self._check()
        return _offset(self._fd) is not None

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        self._check()
        return os.isatty(self._fd)

    def detach(self) -> NoReturn:
        """io.UnsupportedOperation: there is no file below that could be had.  (Its descriptor: ``closefd=False``.)"""
        raise io.UnsupportedOperation("detach")

    def _check(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file.")

    def _check_reads(self) -> None:
        self._check()
        if not self._reads:
            raise io.UnsupportedOperation("not readable")

    def _check_writes(self) -> None:
        self._check()
        if not self._writes:
            raise io.UnsupportedOperation("not writable")

    def _come_back(self) -> None:
        """Forgets what was read ahead: the position is then behind the last of what was returned."""
        raise NotImplementedError

    async def _read_bytes(self, n: int) -> bytes:
        """Up to n bytes from the position, all that are left if n is negative."""
        if n >= 0:
            data = await self.pread(n, self._position)
            self._position += len(data)
            return data
        parts: list[bytes] = []
        # A file that says it is empty may not be (/proc), and one may grow meanwhile: read until nothing comes.
        size = os.fstat(self._fd).st_size - self._position
        while True:
            data = await self.pread(max(size, BLOCK_BYTES), self._position)
            if not data:
                return b"".join(parts) if len(parts) != 1 else parts[0]
            parts.append(data)
            self._position += len(data)
            size = 0

    async def _write_bytes(self, data: Buffer) -> int:
        """Writes all at the position."""
        memory = pin(data, False)
        size = len(memory)
        position = self._position
        # Taken at once, so that two tasks that write without waiting for each other do not write over each other.
        self._position += size
        done = [0]
        try:
            await self._write_all(memory, position, done)
        except BaseException:
            # As far as it came: a task that is cancelled may have written all, or nothing.
            if self._position == position + size:
                self._position = position + done[0]
            raise
        if self._appends and size:
            self._position = os.fstat(self._fd).st_size
        return size

    def _target(self, offset: int, whence: int, current: int) -> int:
        offset = index(offset)
        if whence == os.SEEK_SET:
            target = offset
        elif whence == os.SEEK_CUR:
            target = current + offset
        elif whence == os.SEEK_END:
            target = os.fstat(self._fd).st_size + offset
        elif whence in (os.SEEK_DATA, os.SEEK_HOLE):
            # Only the kernel can tell; a descriptor that others use, too, keeps its offset.
            before = os.lseek(self._fd, 0, os.SEEK_CUR)
            try:
                target = os.lseek(self._fd, offset, whence)
            finally:
                os.lseek(self._fd, before, os.SEEK_SET)
        else:
            raise ValueError(f"invalid whence: {whence}")
        if target < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if target > sys.maxsize:
            raise ValueError(f"no file has a position {target}")
        return target

    async def pread(self, n: int, offset: int) -> bytes:
        """Up to n bytes from ``offset``, whatever the position, which does not change."""
        self._check_reads()
        try:
            return await self._context.read(self._fd, n, offset)
        except OSError as error:
            # Asynchronous I/O is refused where the kernel refuses it, on /proc for one; a thread can read there.
            if error.errno != errno.EINVAL or n < 0 or offset < 0:
                raise
        return await current_host().off_loop(os.pread, self._fd, n, offset)

    async def pwrite(self, data: Buffer, offset: int) -> int:
        """Writes all the bytes at ``offset`` (at the end, in append mode); the position does not change."""
        self._check_writes()
        memory = pin(data, False)
        await self._write_all(memory, offset, [0])
        return len(memory)

    async def _write_all(self, memory: Any, offset: int, done: list[int]) -> None:
        """done: gets the number of bytes that are in the file, also if it fails or is cancelled."""
        # What is appended goes there in one piece.
        piece = len(memory) if self._appends else PIECE_BYTES
        try:
            await self._context._transfer(IOCB_CMD_PWRITE, self._fd, memory, offset, piece, done)
        except OSError as error:
            if error.errno != errno.EINVAL or offset < 0:
                raise
            rest = memoryview(ffi.buffer(memory))[done[0] :]
            await current_host().off_loop(_pwrite_all, self._fd, rest, offset + done[0], done)

    async def truncate(self, size: int | None = None) -> int:
        """Cuts or extends the file to size bytes (default: the position), off the loop.  Returns the size."""
        self._check_writes()
        self._come_back()  # of what is cut off nothing may be read
        if size is None:
            size = self._position
        await current_host().off_loop(os.ftruncate, self._fd, size)
        return size

    async def flush(self) -> None:
        """Does nothing: every write has reached the file when it returns.  (To make it durable: `fsync`.)"""
        self._check()

    async def fsync(self) -> None:
        """Makes data and metadata durable."""
        self._check()
        await self._context.fsync(self._fd)

    async def fdatasync(self) -> None:
        """Makes data durable, and of the metadata what is needed to read it."""
        self._check()
        await self._context.fdatasync(self._fd)

    async def close(self) -> None:
        """Closes the descriptor, in a thread if it was written to (that can block).  Closing twice is no error."""
        if self._closed:
            return
        self._closed = True
        if not self._closefd:
            return
        if self._writes:
            await current_host().close(self._fd)
        else:
            os.close(self._fd)

    aclose = close

    async def __aenter__(self) -> Self:
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or not self._closefd:
            return
        self._closed = True
        warnings.warn(f"unclosed file {self!r}", ResourceWarning, source=self, stacklevel=2)
        os.close(self._fd)

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<libaio_shim.asyncio.{type(self).__name__} name={self.name!r} mode={self.mode!r}{state}>"


class BinaryFile(Lines[bytes], AsyncFile):
    """A file of bytes, made by `open` with ``b`` in its mode.  Methods are `io.BufferedIOBase`'s, to be awaited."""

    def __init__(self, context: AsyncContext, fd: int, name: Any, mode: str, closefd: bool = True) -> None:
        super().__init__(context, fd, name, mode, closefd)
        # Read ahead for lines; the position is behind it.
        self._ahead = b""
        self._used = 0

    def _come_back(self) -> None:
        if self._ahead:
            self._position -= len(self._ahead) - self._used
            self._ahead = b""
            self._used = 0

    async def read(self, n: int | None = -1) -> bytes:
        """Up to n bytes, fewer only at the end of the file; all that are left if n is -1 or None."""
        self._check_reads()
        if n.__class__ is not int:
            n = size_argument(n)
        if n < -1:
            raise ValueError("read length must be non-negative or -1")
        if not self._ahead:
            return await self._read_bytes(n)
        have = self._ahead[self._used :] if n < 0 else self._ahead[self._used : self._used + n]
        self._used += len(have)
        if self._used == len(self._ahead):
            self._ahead = b""
            self._used = 0
        if len(have) == n:
            return have
        return have + await self._read_bytes(n - len(have) if n >= 0 else n)

    async def readall(self) -> bytes:
        """All bytes that are left."""
        return await self.read()

    async def read1(self, n: int = -1) -> bytes:
        """Up to n bytes with at most one request: those that were read ahead, if there are any."""
        self._check_reads()
        n = index(n)
        have = len(self._ahead) - self._used
        if n < 0:
            n = have or BLOCK_BYTES
        return await self.read(min(n, have or n))

    async def peek(self, n: int = 0) -> bytes:
        """Some of the next bytes, at least one unless the file ends; the position stays.  n is ignored, as in io."""
        self._check_reads()
        if self._used == len(self._ahead):
            self._ahead = await self._read_bytes(BLOCK_BYTES)
            self._used = 0
        return self._ahead[self._used :]

    async def readinto(self, buf: Buffer) -> int:
        """Reads into a writable buffer, returns the number of bytes: fewer than its length only at the end."""
        self._check_reads()
        self._come_back()
        memory = pin(buf, True)
        position = self._position
        done = [0]
        try:
            await self._context._transfer(IOCB_CMD_PREAD, self._fd, memory, position, PIECE_BYTES, done)
        except OSError as error:
            if error.errno != errno.EINVAL or done[0]:  # as in pread
                raise
            done[0] = await current_host().off_loop(os.preadv, self._fd, [buf], position)
        self._position = position + done[0]
        return done[0]

    readinto1 = readinto

    async def readline(self, limit: int | None = -1) -> bytes:
        """The next line with its end; at most limit bytes of it if that is not negative; b"" at the end."""
        self._check_reads()
        if limit.__class__ is not int:
            limit = size_argument(limit)
        end = self._ahead.find(b"\n", self._used) + 1
        if end and (limit < 0 or end - self._used <= limit):
            line = self._ahead[self._used : end]
            self._used = end
            return line
        parts: list[bytes] = []
        size = 0
        while limit < 0 or size < limit:
            if self._used == len(self._ahead):
                self._ahead = await self._read_bytes(BLOCK_BYTES)
                self._used = 0
                if not self._ahead:
                    break
            end = self._ahead.find(b"\n", self._used) + 1 or len(self._ahead)
            if limit >= 0:
                end = min(end, self._used + limit - size)
            part = self._ahead[self._used : end]
            self._used = end
            parts.append(part)
            size += len(part)
            if part.endswith(b"\n"):
                break
        return b"".join(parts)

    async def write(self, data: Buffer) -> int:
        """Writes all the bytes and returns their number."""
        self._check_writes()
        self._come_back()
        return await self._write_bytes(data)

    async def writelines(self, lines: Iterable[Buffer]) -> None:
        """Writes one after the other, in one request where possible."""
        await self.write(b"".join(lines))

    async def tell(self) -> int:
        """The position, in bytes."""
        self._check()
        return self._position - len(self._ahead) + self._used

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position and returns it.  OSError (EINVAL) if it would be negative."""
        target = self._target(offset, whence, await self.tell())
        self._ahead = b""
        self._used = 0
        self._position = target
        return target
