"""`Batch`: the same transfers again and again, at other offsets."""

from __future__ import annotations

import errno
import struct
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from libaio_shim._iocb import FileDescriptorLike, bad_argument, descriptor
from libaio_shim._native import (
    EVENT_BYTES,
    IOCB_BYTES,
    IOCB_CMD_PREAD,
    IOCB_CMD_PWRITE,
    NULL,
    address_of,
    ffi,
    lib,
    pin,
    raise_errno,
)
from libaio_shim._ring import Owner, Ring

if TYPE_CHECKING:
    from typing_extensions import Buffer

_submit = lib.las_io_submit
_getevents = lib.las_io_getevents
_IOCB = struct.Struct("=QIIHHiQQqQIi")
_WORDS = IOCB_BYTES // 8
_OFFSET_WORD = 5


class Batch(Owner):
    """Reads into (or writes from) the same buffers in one call, all at once, as often as wanted.

    ``Batch(fd, buffers).run(offsets)`` does what ``[os.preadv(fd, [buffer], offset) for ...]`` does, at about the same
    cost for what is cached, and with as many requests in flight as there are buffers for what is not.  There are no
    objects for requests and events, so it is the cheapest way from Python to the engine.

    The buffers are exported until `close`.  One thread at a time runs it, others wait.
    """

    def __init__(
        self, fd: FileDescriptorLike, buffers: Sequence[Buffer], *, write: bool = False, flags: int = 0
    ) -> None:
        """flags: ``os.RWF_*``.  ValueError without buffers; TypeError, BufferError for what is no fit buffer."""
        count = len(buffers)
        if not count:
            raise ValueError("a batch needs at least one buffer")
        number = descriptor(fd)
        self._pins = [pin(buffer, not write) for buffer in buffers]
        slab: Any = ffi.new("char[]", count * IOCB_BYTES)
        memory = memoryview(ffi.buffer(slab)).cast("B")
        opcode = IOCB_CMD_PWRITE if write else IOCB_CMD_PREAD
        for i, buffer in enumerate(self._pins):
            try:
                _IOCB.pack_into(
                    memory, i * IOCB_BYTES, i, 0, flags, opcode, 0, number, address_of(buffer), len(buffer), 0, 0, 0, -1
                )
            except struct.error:
                raise bad_argument(fd=number, flags=flags) from None
        base = address_of(slab)
        self._words = memory.cast("q")
        self._iocbs: Any = ffi.new("int64_t[]", [base + i * IOCB_BYTES for i in range(count)])
        self._array: Any = ffi.new("char[]", count * EVENT_BYTES)
        self._events = memoryview(ffi.buffer(self._array)).cast("B").cast("q")
        self._order = list(range(count))
        self._ring = Ring(count)
        self._closed = False

    def __len__(self) -> int:
        """How many buffers there are."""
        return len(self._order)

    def run(self, offsets: Sequence[int]) -> list[int]:
        """Transfers each buffer at the offset (bytes) in the same place of offsets; returns the numbers of bytes.

        Fewer offsets than buffers are allowed: then the first buffers are used.  It returns when all are done.
        OSError of the first that failed, also only when all are done.  ValueError for more offsets than buffers or
        after `close`; TypeError, OverflowError for offsets that are no 64-bit ints.
        """
        count = len(offsets)
        if count > len(self._order):
            raise ValueError(f"{count} offsets for {len(self._order)} buffers")
        with self._ring.lock:
            if self._closed:
                raise ValueError("run of a closed batch")
            self._words[_OFFSET_WORD : count * _WORDS : _WORDS] = array("q", offsets)
            results = [0] * count
            refused = 0
            # How many run, and how many of their events were fetched but not looked at.  It changes in single steps of
            # C, so that nothing that runs is forgotten if a signal handler raises somewhere.
            state: list[int] = [0]
            try:
                state[:] = map(_submit, (self._ring.handle,), (count,), (self._iocbs,))
                if state[0] < count:
                    refused = self._refused(state)
                self._reap_all(state, results)
            finally:
                self._reap_all(state, results)
        if refused < 0:
            raise_errno(refused)
        if count and min(results) < 0:
            raise_errno(next(result for result in results if result < 0))
        return results

    def _refused(self, state: list[int]) -> int:
        """Why not all were accepted, as a negative errno: what the first that was not says by itself."""
        accepted = state[0]
        if accepted < 0:
            return accepted
        refused: int = _submit(self._ring.handle, 1, self._iocbs + accepted)
        if refused > 0:
            # The ring was full, though it was made for this.
            state[0] += 1
            return -errno.EAGAIN
        return refused

    def _reap_all(self, state: list[int], results: list[int]) -> None:
        # A function of its own: in Python 3.13 no finally or with of the same function covers the jump back of a loop,
        # and that is where signal handlers run.
        while state[0] > 0:
            self._reap(state, results)

    def _reap(self, state: list[int], results: list[int]) -> None:
        """Waits for all that run, as long as no signal comes."""
        if len(state) == 1:
            running = state[0]
            state += map(_getevents, (self._ring.handle,), (running,), (running,), (self._array,), (NULL,))
        running, count = state
        if count < 0:
            # After a signal the interpreter runs Python's handlers before the next turn.
            state[:] = [running if count == -errno.EINTR else 0]
            if count != -errno.EINTR:
                raise_errno(count)
            return
        slots = self._events[: count * 4 : 4].tolist()
        values = self._events[2 : count * 4 : 4].tolist()
        if count == len(results) and slots == self._order[:count]:
            results[:] = values
        else:
            for slot, result in zip(slots, values, strict=True):
                results[slot] = result
        state[:] = [running - count]

    def close(self) -> None:
        """Frees everything; the buffers are the caller's again.  Closing twice is no error."""
        if self._closed:
            return
        with self._ring.lock:
            self._closed = True
            self._ring.destroy()
            self._pins.clear()

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<libaio_shim.Batch of {len(self._order)}{state}>"
