"""Slots: what a request needs until its event, and how results come back from the engine.

A *slot* is 64 bytes of a slab, in which the iocb is packed, an entry of ``_holders``, which keeps all that the request
needs alive until its event, whatever became of the coroutine, and memory for a small read.  Its number travels in the
iocb's ``data``.  The *quick slot* is the one that the next request uses if it is not queued, with all that it needs at
hand.

When to submit, and how a loop turns, is `_core`'s.  Only one thread may come here: nothing is locked.

A signal handler may raise wherever a function was called.  Whatever happens in the order of the lines between two calls
happens as one; so it is the order that keeps the memory of a request from being freed while the request is in flight.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libaio_shim._iocb import FileDescriptorLike, bad_argument
from libaio_shim._native import (
    EVENT_BYTES,
    IOCB_BYTES,
    IOCB_CMD_POLL,
    KEY_RETURNED,
    NULL,
    address_of,
    ffi,
    lib,
)
from libaio_shim._ring import HEAD, NR, TAIL, Ring

if TYPE_CHECKING:
    from libaio_shim.asyncio._hosts import Host

# The iocb of linux/aio_abi.h as eight words: data; key and rw_flags, opcode and descriptor, buf, nbytes, offset;
# reserved, flags and eventfd.  Those in the middle are packed for each request, the others are a slot's own.
PACKED = struct.Struct("=5q")
PACK = PACKED.pack_into
_PACKED_AT = 8
_KEY_WORD = 1
_POINTER_WORD = 3
_FLAGS_WORD = 7
_IOCB_WORDS = IOCB_BYTES // 8

# Reads up to this size go into the slot's own memory and are copied from there; larger ones into the result itself.
SMALL_BYTES = 8 * 1024
_new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)
_SMALL = ffi.typeof(f"char[{SMALL_BYTES}]")

submit: Callable[[Any, int, Any], int] = lib.las_io_submit_quiet
submit_one: Callable[[Any, Any], int] = lib.las_io_submit_one

# Looking at the ring without a call needs loads in program order, as x86 has; elsewhere io_getevents does the fence.
PEEK = platform.machine() in ("x86_64", "AMD64", "i686")
_EVENTS_BY_CALL = 8
_EVENT_WORDS = EVENT_BYTES // 8


class Pending:
    """A request that was not finished at once."""

    __slots__ = ("arguments", "data", "done", "host", "keep", "opcode", "result", "slot", "small", "waiter")

    def __init__(
        self, slot: int, opcode: int, keep: Any, small: bool, arguments: tuple[bytes, Any, int] | None
    ) -> None:
        self.slot = slot
        """Where it is in flight, or -1 while it is queued."""
        self.opcode = opcode
        self.keep = keep
        """What must live until the event."""
        self.arguments = arguments
        """While it is queued: its iocb as `PACK` packs it, where to read or write, and how much."""
        self.small = small
        """It reads into its slot's memory..."""
        self.data = b""
        """...and this is what was read."""
        self.done = False
        self.result = 0
        self.host: Host | None = None
        """Who wakes the coroutine; None if nobody waits."""
        self.waiter: Any = None
        """What the host needs for that."""

    def finish(self, result: int) -> None:
        """Says that it is done, also to who waits."""
        self.done = True
        self.result = result
        self.keep = self.arguments = None
        if self.host is not None:
            self.host.wake(self.waiter)


class Slots:
    """An engine's context with its slots."""

    # CPython shares the keys of up to 30 attributes between instances; with more, each access costs three times that.
    __slots__ = (
        "__weakref__",
        "_addresses",
        "_array",
        "_base",
        "_closed",
        "_depth",
        "_events",
        "_fetched",
        "_free",
        "_handle",
        "_head",
        "_header",
        "_holders",
        "_iocb_addresses",
        "_iocbs",
        "_nr",
        "_pointers",
        "_quick",
        "_quick_keep",
        "_quick_slot",
        "_quick_thread",
        "_ring",
        "_slab",
        "_small",
        "_words",
    )

    def __init__(self, depth: int) -> None:
        """Raises OSError for a depth that cannot be had (EINVAL, ENOMEM)."""
        self._closed = True
        self._ring = Ring(depth)
        self._closed = False
        self._depth = depth
        self._handle = self._ring.handle
        self._header, self._events = self._ring.memory()
        self._nr: int = self._header[NR]

        slab: Any = ffi.new("char[]", depth * IOCB_BYTES)
        self._slab = memoryview(ffi.buffer(slab)).cast("B")
        self._words = self._slab.cast("q")
        # The same as an array of pointers: cffi stores the address of a buffer much faster than it tells it.
        self._pointers: Any = ffi.cast("void **", slab)
        self._base = address_of(slab)
        # The array of iocb pointers for a batch, and the same as Python sees it; and where each slot's iocb is.
        self._iocbs: Any = ffi.new("int64_t[]", depth)
        self._iocb_addresses = memoryview(ffi.buffer(self._iocbs)).cast("B").cast("q")
        self._addresses = [slab + slot * IOCB_BYTES for slot in range(depth)]
        self._small: list[Any] = [None] * depth
        self._holders: list[Any] = [None] * depth
        self._free = list(range(depth - 1, -1, -1))
        self._set_constants(0)
        # Where io_getevents puts events; the slot of those that were taken is -1.
        self._array: Any = ffi.new("int64_t[]", [-1] * (_EVENTS_BY_CALL * _EVENT_WORDS))
        self._fetched = memoryview(ffi.buffer(self._array)).cast("B").cast("q")
        # As in the ring, where only we change it.
        self._head = 0

        # The thread that may go the quick way, 0 if none may; and the quick slot, -1 if there is none.  A slot without
        # a thread is in the engine's hands, or was left there by a signal handler that raised.
        self._quick_thread = 0
        self._quick_slot = -1
        # What must live until the event of the request that is in the engine's hands.
        self._quick_keep: Any = None
        # What a request on the quick slot needs, in one tuple: slot, where to pack, the iocb, the memory for a small
        # read as bytes, its address.
        self._quick: tuple[int, int, Any, Any, int] = (-1, 0, None, None, 0)

    @property
    def in_flight(self) -> int:
        """Requests that were submitted and are not finished."""
        return self._depth - len(self._free) - (self._quick_thread != 0)

    def _pack(
        self, slot: int, opcode: int, fd: FileDescriptorLike, memory: Any, nbytes: int, offset: int, flags: int
    ) -> None:
        """Fills a slot's iocb."""
        if memory is None:
            memory = self._memory(slot)
        try:
            PACK(self._slab, slot * IOCB_BYTES + _PACKED_AT, flags << 32, fd << 32 | opcode, 0, nbytes, offset)  # type: ignore[operator]
        except (struct.error, TypeError):
            raise bad_argument(fd=fd, nbytes=nbytes, offset=offset, flags=flags) from None
        self._pointers[slot * _IOCB_WORDS + _POINTER_WORD] = memory

    def _memory(self, slot: int) -> Any:
        """The slot's own, for a small read."""
        if self._small[slot] is None:
            self._small[slot] = _new_uncleared(_SMALL)
        return self._small[slot]

    def _open_quick(self, thread: int) -> None:
        """From now on requests of this thread may go the quick way, if there is a slot for it."""
        if self._quick_slot >= 0 or not self._free:
            return
        slot = self._free[-1]
        memory = self._memory(slot)
        at = slot * IOCB_BYTES + _PACKED_AT
        self._quick = (slot, at, self._addresses[slot], ffi.buffer(memory), address_of(memory))
        del self._free[-1]
        self._quick_slot = slot
        self._quick_thread = thread

    def _close_quick(self) -> bool:
        """From now on none may.  False if a signal handler had raised while one did."""
        slot = self._quick_slot
        if slot < 0:
            return True
        self._quick_slot = -1
        if self._quick_thread:
            self._quick_thread = 0
            self._free.append(slot)
            return True
        if self._words[slot * _IOCB_WORDS + _KEY_WORD] & 0xFFFFFFFF == KEY_RETURNED:
            self._free.append(slot)
        else:
            # If it is in flight after all, its event brings the slot back.
            self._holders[slot] = self._quick_keep
        self._quick_keep = None
        return False

    def _hold_quick(self, opcode: int, keep: Any, small: bool) -> Pending:
        """The request on the quick slot is in flight: the slot is its own."""
        slot = self._quick_slot
        self._quick_slot = -1
        self._quick_keep = None
        # Before anything is called: now the holder keeps it.
        self._holders[slot] = keep
        pending = self._holders[slot] = Pending(slot, opcode, keep, small, None)
        return pending

    def _load(self, queue: deque[Pending], most: int) -> list[Pending]:
        """Takes requests off a queue and fills slots with them, until there is none or they have so many bytes."""
        free, holders = self._free, self._holders
        batch: list[Pending] = []
        total = 0
        while queue and free and total < most:
            pending = queue.popleft()
            words, memory, nbytes = pending.arguments or (b"", None, 0)
            slot = free.pop()
            at = slot * IOCB_BYTES + _PACKED_AT
            self._slab[at : at + len(words)] = words
            self._pointers[slot * _IOCB_WORDS + _POINTER_WORD] = self._memory(slot) if memory is None else memory
            total += nbytes
            self._iocb_addresses[len(batch)] = self._base + slot * IOCB_BYTES
            holders[slot] = pending
            pending.slot = slot
            batch.append(pending)
        return batch

    def _submit(self, batch: list[Pending]) -> int:
        """Submits what was loaded.  How many are in flight or refused; the others have to wait, and have no slots."""
        done = 0
        while done < len(batch):
            accepted = submit(self._handle, len(batch) - done, self._iocbs + done)
            if accepted > 0:
                done += accepted
                continue
            if accepted == -errno.EAGAIN and self.in_flight > len(batch) - done:
                # Others are in flight; their events will make room.
                for pending in batch[done:]:
                    self._release(pending)
                break
            pending = batch[done]
            self._release(pending)
            pending.finish(accepted)
            done += 1
        return done

    def _release(self, pending: Pending) -> None:
        self._holders[pending.slot] = None
        self._free.append(pending.slot)
        pending.slot = -1

    def _set_constants(self, flags: int) -> None:
        """Writes the words of each slot's iocb that do not change: its number, and the eventfd."""
        for slot in range(self._depth):
            self._words[slot * _IOCB_WORDS] = slot
            self._words[slot * _IOCB_WORDS + _FLAGS_WORD] = flags

    def _is_newest(self, pending: Pending) -> bool:
        """Whether the newest event in the ring is that of a request, which is not refused.

        So it is when the head lane has finished the last request of a batch.  What threads have to finish they get at
        the end of submit: that some of it is done by now tells nothing, they may be as quick as we are.
        """
        if pending.slot < 0:
            return False
        tail = self._header[TAIL]
        word = (tail or self._nr) * _EVENT_WORDS - _EVENT_WORDS
        return tail != self._head and self._events[word] == pending.slot

    def _drain(self) -> None:
        """Takes every event that is in the ring."""
        if self._closed or self._ring.inherited:
            return
        if not self._quick_thread:
            self._close_quick()
        if not PEEK:
            self._drain_by_call()
            return
        header, events, nr = self._header, self._events, self._nr
        holders, free = self._holders, self._free
        head = self._head
        while head != header[TAIL]:
            word = head * 4
            slot = events[word]
            result = events[word + 2]
            holder = holders[slot]
            head = head + 1 if head + 1 != nr else 0
            header[HEAD] = self._head = head
            holders[slot] = None
            free.append(slot)
            if holder.__class__ is Pending:
                self._arrived(holder, slot, result)

    def _drain_by_call(self) -> None:
        # First those that a signal handler which raised has left.
        self._take_fetched()
        while lib.las_io_getevents(self._handle, 0, _EVENTS_BY_CALL, self._array, NULL) == _EVENTS_BY_CALL:
            self._take_fetched()
        self._take_fetched()
        self._head = self._header[HEAD]

    def _take_fetched(self) -> None:
        events, holders, free = self._fetched, self._holders, self._free
        for word in range(0, len(events), _EVENT_WORDS):
            slot = events[word]
            if slot >= 0:
                holder = holders[slot]
                events[word] = -1
                holders[slot] = None
                free.append(slot)
                if holder.__class__ is Pending:
                    self._arrived(holder, slot, events[word + 2])

    def _arrived(self, pending: Pending, slot: int, result: int) -> None:
        if pending.small and result > 0:
            # Now, because the slot may be used again before the coroutine runs.
            pending.data = ffi.unpack(self._small[slot], result)
        if not result and pending.opcode == IOCB_CMD_POLL:
            result = -errno.ECANCELED  # without an event a poll ends only when it is taken back
        pending.finish(result)

    def _cancel(self, pending: Pending) -> bool:
        """Whether the engine gives the request back: it will not run."""
        out: Any = ffi.new("int64_t[4]")
        iocb = ffi.cast("void *", self._base + pending.slot * IOCB_BYTES)
        if self._closed or lib.las_io_cancel(self._handle, iocb, out) != 0:
            return False
        self._release(pending)
        pending.finish(-errno.ECANCELED)
        return True

    def _held(self) -> list[Pending]:
        """The requests in flight that somebody waits for, or waited for."""
        return [holder for holder in self._holders if holder.__class__ is Pending]

    def _destroy(self) -> None:
        """Returns when nothing runs any more."""
        self._ring.destroy()
        for pending in self._held():
            if not pending.done:
                pending.finish(-errno.ECANCELED)
        self._holders = [None] * self._depth
        self._free = list(range(self._depth))
        self._small = []
