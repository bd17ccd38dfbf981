"""`AsyncContext`: asynchronous file I/O for coroutines."""

from __future__ import annotations

import ctypes
import errno
import struct
import sys
import warnings
from asyncio import IncompleteReadError
from collections.abc import Sequence
from operator import index
from threading import get_ident
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from libaio_shim._iocb import FileDescriptorLike, bad_argument, vector
from libaio_shim._native import (
    IOCB_CMD_FDSYNC,
    IOCB_CMD_FSYNC,
    IOCB_CMD_POLL,
    IOCB_CMD_PREAD,
    IOCB_CMD_PREADV,
    IOCB_CMD_PWRITE,
    IOCB_CMD_PWRITEV,
    NULL,
    ffi,
    no_buffer,
    pin,
    raise_errno,
)
from libaio_shim._ring import refuse_copy
from libaio_shim.asyncio._core import LONG_SECONDS, PAUSE_TURNS, Core
from libaio_shim.asyncio._slots import PACK, SMALL_BYTES, submit_one

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

_from_buffer = ffi.from_buffer
_CHARS = ffi.typeof("char[]")

# What is longer is done in several requests of this size, so that the copies do not stop the loop.
PIECE_BYTES = 1024 * 1024

# Bytes that are not filled yet: CPython's own way to make a bytes object in place (None: not set to zero either).
_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)

# Work that may be done in a row without a loop turn, about a millisecond of it, in units of a microsecond: 16 KiB take
# about one, a request as such about three.
_CREDIT = 1024
_CREDIT_PER_REQUEST = 3


class AsyncContext(Core):
    """Asynchronous file I/O on any descriptor, for asyncio, uvloop and trio (also by way of anyio).

    depth: how many requests may be in flight; more wait their turn.  It belongs to the event loop that first uses it,
    and must be closed: ``async with AsyncContext() as ctx``.

    All methods: offsets and sizes are in bytes, a descriptor is an int or an object with ``fileno()``; failures raise
    OSError with the errno, use after close raises ValueError.  A buffer must be contiguous, is used without a copy,
    and is exported (cannot be resized or freed) until its request is finished.

    *Cancellation.*  A request that is still queued, here or in the engine, is taken back and never runs.  Of those
    that run, `read`, `read_exactly` and `poll` are abandoned: the task goes on at once, the result is dropped when it
    comes.  All others finish first, then the cancellation is raised: nothing is read into or written from a buffer
    of the caller's after that.

    *Fairness.*  Requests that need not wait do not suspend the coroutine.  After about a millisecond of them one
    lets the loop take a turn before it returns, so that a task that reads cached data does not starve the others;
    ``fair=False`` turns that off.
    """

    __slots__ = ("_credit", "_fair", "_own_care")

    def __init__(self, depth: int = 128, *, fair: bool = True) -> None:
        """Raises OSError for a depth that cannot be had (EINVAL, ENOMEM)."""
        super().__init__(depth)
        self._fair = fair
        self._credit = _CREDIT
        # Made by us for the files of a loop: the user cannot close it.
        self._own_care = False

    async def _turn(self) -> None:
        """Lets the loop run its other tasks once."""
        self._credit = _CREDIT
        if self._fair:
            # The quick way does not ask whether it is still the same loop.
            if self._current() is not self._owner:
                self._move_in()
            await self._host.turn()

    async def _turn_for_all(self, seconds: float) -> None:
        """The same after a copy that took so long.  Many tasks that do this at once are as bad as one: they queue."""
        if not self._fair:
            return
        self._close_quick()
        self._company = True
        flushes = self._flushes
        turns = 1
        if seconds > LONG_SECONDS:
            self._pause = PAUSE_TURNS
            turns += PAUSE_TURNS
        for _ in range(turns):
            await self._turn()
        if self._flushes == flushes and not self._backlog:
            self._company = False  # there were no others

    async def read(self, fd: FileDescriptorLike, n: int, offset: int, *, flags: int = 0) -> bytes:
        """Up to n bytes from ``offset``: fewer at the end of the file, none behind it.  flags: ``os.RWF_*``."""
        if n > SMALL_BYTES:
            return await self._read_large(fd, n, offset, flags)
        thread = get_ident()
        if self._quick_thread == thread and fd.__class__ is int and not flags:
            # As _start does it, without the calls and what a small read does not need: a third of the cost.
            _, at, iocb, small, address = self._quick
            try:
                PACK(self._slab, at, 0, fd << 32, address, n, offset)
            except (struct.error, TypeError):
                raise bad_argument(fd=fd, n=n, offset=offset) from None
            self._quick_thread = 0
            done = submit_one(self._handle, iocb)
            if done >= 0:
                self._quick_thread = thread
                data: bytes = small[0:done]
                credit = self._credit = self._credit - _CREDIT_PER_REQUEST
                if credit < 0:
                    await self._turn()
                return data
            result = self._not_at_once(done, IOCB_CMD_PREAD, fd, None, n, offset, 0, None)
        else:
            result = self._start(IOCB_CMD_PREAD, fd, None, n, offset, flags, None)
        if result is None:
            pending = self._last
            result = await self._host.wait(self, pending, True)
            data = pending.data
        else:
            data = self._data
            credit = self._credit = self._credit - _CREDIT_PER_REQUEST
            if credit < 0:
                await self._turn()
        if result < 0:
            raise_errno(result)
        return data

    async def _read_large(self, fd: FileDescriptorLike, n: int, offset: int, flags: int) -> bytes:
        if index(n) > sys.maxsize:
            # ctypes would take the lower half of it.
            raise OverflowError(f"out of range: n={n}")
        data: bytes = _new_bytes(None, n)
        memory = _from_buffer(_CHARS, data)
        done = 0
        while True:
            # In pieces: a long copy out of the page cache would stop the loop.
            size = min(n - done, PIECE_BYTES)
            begin = perf_counter()
            result = self._start(IOCB_CMD_PREAD, fd, memory + done, size, offset + done, flags, memory)
            if result is None:
                result = await self._host.wait(self, self._last, True)
            else:
                # Not estimated: into new memory it takes many times as long as into what was used before.  And double,
                # since the next one may take as long.
                seconds = perf_counter() - begin
                credit = self._credit = self._credit - int(seconds * 2e6)
                if credit < 0:
                    await self._turn_for_all(seconds)
            if result < 0:
                if not done:
                    raise_errno(result)
                result = 0
            done += result
            if result < size or done == n:
                return data if done == n else data[:done]

    async def read_into(self, fd: FileDescriptorLike, buf: Buffer, offset: int, *, flags: int = 0) -> int:
        """Reads into a writable buffer as many bytes as it has.  Returns how many were read."""
        try:
            memory = _from_buffer(_CHARS, buf, True)
        except TypeError:
            raise no_buffer(buf) from None
        n = len(memory)
        result = self._start(IOCB_CMD_PREAD, fd, memory, n, offset, flags, memory)
        if result is None:
            result = await self._host.wait(self, self._last, False)
        else:
            credit = self._credit = self._credit - _CREDIT_PER_REQUEST - (n >> 14)
            if credit < 0:
                await self._turn()
        if result < 0:
            raise_errno(result)
        return result

    async def write(self, fd: FileDescriptorLike, data: Buffer, offset: int, *, flags: int = 0) -> int:
        """Writes the buffer's bytes at ``offset``.  Returns how many were written.  flags: ``os.RWF_*``."""
        try:
            memory = _from_buffer(_CHARS, data)
        except TypeError:
            raise no_buffer(data) from None
        n = len(memory)
        result = self._start(IOCB_CMD_PWRITE, fd, memory, n, offset, flags, memory)
        if result is None:
            result = await self._host.wait(self, self._last, False)
        else:
            credit = self._credit = self._credit - _CREDIT_PER_REQUEST - (n >> 14)
            if credit < 0:
                await self._turn()
        if result < 0:
            raise_errno(result)
        return result

    async def readv(self, fd: FileDescriptorLike, buffers: Sequence[Buffer], offset: int, *, flags: int = 0) -> int:
        """Reads into several writable buffers (at most 1024), one after the other.  Returns how many bytes in all."""
        return await self._vector(IOCB_CMD_PREADV, fd, buffers, offset, flags)

    async def writev(self, fd: FileDescriptorLike, buffers: Sequence[Buffer], offset: int, *, flags: int = 0) -> int:
        """Writes several buffers (at most 1024), one after the other.  Returns how many bytes in all."""
        return await self._vector(IOCB_CMD_PWRITEV, fd, buffers, offset, flags)

    async def _vector(
        self, opcode: int, fd: FileDescriptorLike, buffers: Sequence[Buffer], offset: int, flags: int
    ) -> int:
        iov, pins = vector(buffers, opcode == IOCB_CMD_PREADV)
        result = self._start(opcode, fd, iov, len(pins), offset, flags, (iov, pins))
        if result is None:
            result = await self._host.wait(self, self._last, False)
        else:
            credit = self._credit = self._credit - _CREDIT_PER_REQUEST - (result >> 14)
            if credit < 0:
                await self._turn()
        if result < 0:
            raise_errno(result)
        return result

    async def fsync(self, fd: FileDescriptorLike) -> None:
        """Makes data and metadata durable."""
        await self._simple(IOCB_CMD_FSYNC, fd, NULL, False)

    async def fdatasync(self, fd: FileDescriptorLike) -> None:
        """Makes data durable, and of the metadata what is needed to read it."""
        await self._simple(IOCB_CMD_FDSYNC, fd, NULL, False)

    async def poll(self, fd: FileDescriptorLike, events: int) -> int:
        """Waits for ``select.POLL*`` events (a mask).  Returns the mask of those that happened."""
        mask = index(events)
        if mask >> 64:
            raise OverflowError(f"out of range: events={events}")  # cffi would take the lower half of it
        return await self._simple(IOCB_CMD_POLL, fd, ffi.cast("void *", mask), True)

    async def _simple(self, opcode: int, fd: FileDescriptorLike, memory: Any, abandon: bool) -> int:
        result = self._start(opcode, fd, memory, 0, 0, 0, None)
        if result is None:
            result = await self._host.wait(self, self._last, abandon)
        else:
            credit = self._credit = self._credit - _CREDIT_PER_REQUEST
            if credit < 0:
                await self._turn()
        if result < 0:
            raise_errno(result)
        return result

    async def read_exactly(self, fd: FileDescriptorLike, n: int, offset: int) -> bytes:
        """Exactly n bytes from ``offset``.  asyncio.IncompleteReadError (an EOFError) if the file ends before."""
        data = await self.read(fd, n, offset)
        if len(data) == n:
            return data
        parts = [data]
        have = len(data)
        while have < n:
            data = await self.read(fd, n - have, offset + have)
            if not data:
                raise IncompleteReadError(b"".join(parts), n)
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    async def write_all(self, fd: FileDescriptorLike, data: Buffer, offset: int) -> None:
        """Writes all of the buffer's bytes at ``offset``, in several requests if one is cut short."""
        memory = pin(data, False)
        await self._transfer(IOCB_CMD_PWRITE, fd, memory, offset, len(memory), [0])

    async def _transfer(
        self, opcode: int, fd: FileDescriptorLike, memory: Any, offset: int, piece: int, done: list[int]
    ) -> None:
        """Reads until the end of memory or of the file, or writes all of it, in several requests if one is cut short.

        piece: no request is of more bytes.
        done: gets the number of bytes that were transferred, also if it fails or is cancelled.
        """
        size = len(memory)
        while True:
            have = done[0]
            n = min(size - have, piece)
            result = self._start(opcode, fd, memory + have, n, offset + have, 0, memory)
            if result is None:
                pending = self._last
                try:
                    result = await self._host.wait(self, pending, False)
                finally:
                    done[0] += max(pending.result, 0)
            else:
                done[0] += max(result, 0)
                credit = self._credit = self._credit - _CREDIT_PER_REQUEST - (n >> 14)
                # The copy of a long piece is never as quick as the credit says.
                if credit < 0 or n >= PIECE_BYTES:
                    await self._turn()
            if result < 0:
                raise_errno(result)
            if done[0] == size or (result < n and opcode == IOCB_CMD_PREAD):
                return
            if not result:
                raise OSError(errno.EIO, "write returned 0")

    @property
    def depth(self) -> int:
        """How many requests may be in flight; more wait until there is room."""
        return self._depth

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn to be submitted."""
        return len(self._backlog)

    async def aclose(self) -> None:
        """Finishes what is in flight or queued, then frees everything.  Closing twice is no error.

        Reads and polls are taken back where that is possible; who waits for them gets OSError (ECANCELED).  A
        cancellation is raised when the requests are finished.
        """
        if self._closed:
            return
        closer = self._begin_to_close()
        try:
            if closer:
                await self._host.wait(self, closer, False)
        finally:
            self.close()

    def close(self) -> None:
        """As `aclose`, but blocks the thread until nothing is in flight, and what is queued never runs.

        For where nothing can be awaited.  Who waits for a request gets OSError (ECANCELED).
        """
        if self._closed:
            return
        self._end()

    async def __aenter__(self) -> Self:
        if self.closed:
            raise ValueError("the context is closed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_closed", True):  # not there if it was never set up
            return
        if not self._ring.inherited and not self._own_care:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        self.close()

    __reduce__ = refuse_copy

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"in_flight={self.in_flight} waiting={self.waiting}"
        return f"<libaio_shim.asyncio.AsyncContext depth={self._depth} {state}>"
