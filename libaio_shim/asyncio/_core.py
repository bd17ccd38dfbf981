"""Requests that coroutines wait for: how they go to the engine, and how their results come back.

How a request goes, from the cheapest to the dearest way:

1. *Now.*  It is submitted at once.  What the engine's head lane finished is what the call returns, and the coroutine
   never suspends: no event, no future, no loop turn, no eventfd.
2. *Submitted, waits.*  The coroutine suspends.  The engine raises the context's one eventfd; the loop wakes up once
   and takes all events that are there.
3. *Queued, waits.*  After a request had to wait, those that come while it is in flight are likely to wait, too.  They
   are collected and share one submit at the end of the loop turn.  Once the head lane finishes some of them, new ones
   go way 1 again.  Here also waits what finds all `depth` slots taken, and the first of those that come together again.

A *slot* is 64 bytes of a slab, in which the iocb is packed, an entry of ``_holders``, which keeps all that the request
needs alive until its event, whatever became of the coroutine, and memory for a small read.  Its number travels in the
iocb's ``data``.  The *quick slot* is the one that the next request of way 1 uses, with all that it needs at hand.
While there is one, such requests may come: nothing is queued, and the last ones did not wait.

Only the thread of the event loop may come here: nothing is locked.  What a loop must be able to do is in `_hosts`.

A signal handler may raise wherever a function was called.  Whatever happens in the order of the lines between two calls
happens as one; so it is the order that keeps the memory of a request from being freed while the request is in flight.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
import weakref
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import perf_counter
from typing import Any

from libaio_shim._iocb import FileDescriptorLike, bad_argument, descriptor
from libaio_shim._native import (
    EVENT_BYTES,
    IOCB_BYTES,
    IOCB_CMD_POLL,
    IOCB_CMD_PREAD,
    IOCB_CMD_PREADV,
    IOCB_FLAG_RESFD,
    KEY_RETURNED,
    NULL,
    SUBMITTED,
    address_of,
    ffi,
    lib,
    raise_errno,
)
from libaio_shim._ring import HEAD, NR, TAIL, Ring
from libaio_shim.asyncio._hosts import Host, current_host, homeless

# The iocb of linux/aio_abi.h as eight words: data; key and rw_flags, opcode and descriptor, buf, nbytes, offset;
# reserved, flags and eventfd.  Those in the middle are packed for each request, the others are a slot's own.
_PACKED = struct.Struct("=5q")
PACK = _PACKED.pack_into
_PACKED_AT = 8
_KEY_WORD = 1
_POINTER_WORD = 3
_FLAGS_WORD = 7
_IOCB_WORDS = IOCB_BYTES // 8

# As much as may be submitted at the end of one turn, and a request.
_TURN_BYTES = 1024 * 1024

# After a turn that was longer, nothing is submitted in some others: who sleeps comes to run two turns after its time is
# up (asyncio's timer wakes a future, and that its task), and should not have to wait for a copy in each.
LONG_SECONDS = 0.0005
PAUSE_TURNS = 2

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

# What has no effect on anything outside when it is taken back.
_WITHOUT_EFFECT = (IOCB_CMD_PREAD, IOCB_CMD_PREADV, IOCB_CMD_POLL)
# The slot of what waits not for a request but for all of them.
_CLOSER = -2


def _nothing() -> None:
    pass


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


class Core:
    """An engine's context with its slots, as a guest of an event loop."""

    # CPython shares the keys of up to 30 attributes between instances; with more, each access costs three times that.
    __slots__ = (
        "__weakref__",
        "_addresses",
        "_array",
        "_backlog",
        "_base",
        "_closed",
        "_closers",
        "_company",
        "_current",
        "_data",
        "_depth",
        "_eventfd",
        "_events",
        "_fetched",
        "_flush_comes",
        "_flushes",
        "_free",
        "_handle",
        "_head",
        "_header",
        "_holders",
        "_host",
        "_iocb_addresses",
        "_iocbs",
        "_last",
        "_nr",
        "_owner",
        "_pause",
        "_pointers",
        "_quick",
        "_quick_keep",
        "_quick_slot",
        "_quick_thread",
        "_ring",
        "_slab",
        "_small",
        "_thread",
        "_words",
    )

    def __init__(self, depth: int) -> None:
        """Raises OSError for a depth that cannot be had (EINVAL, ENOMEM)."""
        self._closed = True
        self._eventfd = -1
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
        self._backlog: deque[Pending] = deque()
        self._flush_comes = False
        # How many there were, and how many turns the next one has to wait.
        self._flushes = 0
        self._pause = 0
        # The next request waits for others even if nothing is in flight: the last flush submitted several, or took
        # long, or enough was copied in this turn.
        self._company = False
        # The request for which _start returned None, or what it read.
        self._last: Any = None
        self._data = b""
        # Those who wait in aclose; not None as soon as there was one.
        self._closers: list[Pending] | None = None

        self._host: Host = homeless()
        self._current = self._host.current
        self._owner = self._host.owner
        # Of the loop.  Asking for it costs a seventh of asking for the loop, which makes a system call before 3.12.
        self._thread = 0

    @property
    def closed(self) -> bool:
        """True as soon as `aclose` or `close` was called."""
        return self._closed or self._closers is not None

    @property
    def in_flight(self) -> int:
        """Requests that were submitted and are not finished."""
        return self._depth - len(self._free) - (self._quick_thread != 0)

    def _start(
        self, opcode: int, fd: FileDescriptorLike, memory: Any, nbytes: int, offset: int, flags: int, keep: Any
    ) -> int | None:
        """Starts a request: its result if it is finished, else None, and it is `_last`.

        memory: a cdata, the iocb's buf.  keep: whatever must live until the event.  memory None: into the slot's
        own memory; then what was read is `_data`.  (`AsyncContext.read` has its own copy of the quick way.)
        """
        if fd.__class__ is not int:
            fd = descriptor(fd)
        if self._quick_thread != get_ident() and not self._may_submit():
            self._enqueue(opcode, fd, memory, nbytes, offset, flags, keep)
            return None
        slot, _, iocb, small, _ = self._quick
        self._pack(slot, opcode, fd, memory, nbytes, offset, flags)
        thread = self._quick_thread
        self._quick_keep = keep
        self._quick_thread = 0
        result = submit_one(self._handle, iocb)
        if result >= 0:
            self._quick_thread = thread
            self._quick_keep = None
            if memory is None:
                self._data = small[0:result]
            return result
        return self._not_at_once(result, opcode, fd, memory, nbytes, offset, flags, keep)

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

    def _not_at_once(
        self, result: int, opcode: int, fd: int, memory: Any, nbytes: int, offset: int, flags: int, keep: Any
    ) -> int | None:
        """What became of a request that used the quick slot and is not finished, or has failed, or was refused."""
        slot = self._quick_slot
        self._quick_slot = -1
        self._quick_keep = None
        if result == SUBMITTED:
            # Before anything is called: now the holder keeps it.
            self._holders[slot] = keep
            pending = self._holders[slot] = Pending(slot, opcode, keep, memory is None, None)
            self._drain()
            if pending.done:
                self._open_quick()
                self._data = pending.data
                return pending.result
            if self._current() is not self._owner:
                self._move_in()
            self._last = pending
            return None
        self._free.append(slot)
        if result == -errno.EAGAIN and self.in_flight:
            self._enqueue(opcode, fd, memory, nbytes, offset, flags, keep)
            return None
        self._open_quick()
        return result

    def _open_quick(self) -> None:
        """From now on requests may go the quick way, if there is a slot for it."""
        if self._quick_slot >= 0 or self._backlog or not self._free:
            return
        slot = self._free[-1]
        memory = self._memory(slot)
        at = slot * IOCB_BYTES + _PACKED_AT
        self._quick = (slot, at, self._addresses[slot], ffi.buffer(memory), address_of(memory))
        del self._free[-1]
        self._quick_slot = slot
        self._quick_thread = self._thread

    def _close_quick(self) -> None:
        """From now on requests are queued."""
        slot = self._quick_slot
        if slot < 0:
            return
        self._quick_slot = -1
        if self._quick_thread:
            self._quick_thread = 0
            self._free.append(slot)
            return
        # A signal handler raised.  If it is in flight after all, its event brings the slot back.  A loop in which a
        # handler raises may lose a callback, too.
        if self._words[slot * _IOCB_WORDS + _KEY_WORD] & 0xFFFFFFFF == KEY_RETURNED:
            self._free.append(slot)
        else:
            self._holders[slot] = self._quick_keep
        self._quick_keep = None
        self._flush_comes = False

    def _set_constants(self, flags: int) -> None:
        """Writes the words of each slot's iocb that do not change: its number, and the eventfd."""
        for slot in range(self._depth):
            self._words[slot * _IOCB_WORDS] = slot
            self._words[slot * _IOCB_WORDS + _FLAGS_WORD] = flags

    def _may_submit(self) -> bool:
        """Called where `_start` cannot go the quick way: whether it may go on all the same, or must queue."""
        if self.closed:
            raise ValueError("the context is closed")
        if self._ring.inherited:
            raise_errno(-errno.EINVAL)
        if self._current() is not self._owner or get_ident() != self._thread:
            self._move_in()
        if self._quick_slot >= 0 and not self._quick_thread:
            self._drain()
        # The first is not worth waiting for company, since a request at a time is common, unless there is some.
        if self.in_flight == 0 and not self._company:
            self._open_quick()
        return self._quick_slot >= 0

    def _move_in(self) -> None:
        """Makes the running event loop the one that wakes our coroutines."""
        host = current_host()
        if get_ident() != self._thread:
            if self.in_flight or self._backlog:
                raise RuntimeError("the context is in use by an event loop of another thread")
            self._thread = get_ident()
        self._close_quick()
        self._host.detach()
        if self._eventfd < 0:
            self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._set_constants(IOCB_FLAG_RESFD | self._eventfd << 32)
        # Weakly, so that a context that was forgotten is noticed while the loop runs.
        method = weakref.WeakMethod(self._readable)
        host.attach(self._eventfd, lambda: (method() or _nothing)())
        self._host, self._current, self._owner = host, host.current, host.owner
        # The former loop may have ended before it came to that.
        self._flush_comes = False

    def _enqueue(self, opcode: int, fd: int, memory: Any, nbytes: int, offset: int, flags: int, keep: Any) -> None:
        try:
            # Now: who has made a mistake learns of it as if nothing had been queued.
            words = _PACKED.pack(flags << 32, fd << 32 | opcode, 0, nbytes, offset)
        except (struct.error, TypeError):
            raise bad_argument(fd=fd, nbytes=nbytes, offset=offset, flags=flags) from None
        pending = Pending(-1, opcode, keep, memory is None, (words, memory, nbytes))
        self._close_quick()
        self._backlog.append(pending)
        self._last = pending
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._backlog and self._free and not self._flush_comes:
            self._host.soon(self._flush)
            self._flush_comes = True

    def _flush(self) -> None:
        """Submits what is queued, as far as there are slots: one call for all."""
        self._flush_comes = False
        if self._pause:
            self._pause -= 1
            self._flush_soon()
            return
        backlog, free, holders = self._backlog, self._free, self._holders
        if self._closed:
            return
        self._flushes += 1
        batch: list[Pending] = []
        total = 0
        # Much of what is queued may be in memory after all, and is then copied inside submit: not all in one turn.
        while backlog and free and total < _TURN_BYTES:
            pending = backlog.popleft()
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
        done = 0
        begin = perf_counter()
        while done < len(batch):
            accepted = submit(self._handle, len(batch) - done, self._iocbs + done)
            if accepted > 0:
                done += accepted
                continue
            if accepted == -errno.EAGAIN and self.in_flight > len(batch) - done:
                # Others are in flight; their events will make room.
                for pending in reversed(batch[done:]):
                    self._release(pending)
                    backlog.appendleft(pending)
                break
            pending = batch[done]
            self._release(pending)
            pending.finish(accepted)
            done += 1
        is_long = perf_counter() - begin > LONG_SECONDS
        if is_long:
            self._pause = PAUSE_TURNS
        self._company = len(batch) > 1 or is_long
        in_memory = bool(batch) and self._is_newest(batch[-1])
        self._drain()
        if in_memory and not is_long:
            self._open_quick()
        self._flush_soon()
        self._settle()

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

    def _release(self, pending: Pending) -> None:
        self._holders[pending.slot] = None
        self._free.append(pending.slot)
        pending.slot = -1

    def _readable(self) -> None:
        """The eventfd says that there are events."""
        try:  # noqa: SIM105  (a context manager costs more than the read)
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            pass
        self._drain()
        if self._backlog and self._free and not self._flush_comes:
            self._flush()
        self._settle()

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

    def take_back(self, pending: Any) -> bool:
        """Whether the request will not run, or is finished already."""
        if pending.done:
            return True
        if pending.slot == _CLOSER:
            return False
        if pending.slot < 0:
            self._backlog.remove(pending)
            pending.finish(-errno.ECANCELED)
            return True
        out: Any = ffi.new("int64_t[4]")
        iocb = ffi.cast("void *", self._base + pending.slot * IOCB_BYTES)
        if self._closed or lib.las_io_cancel(self._handle, iocb, out) != 0:
            # It may have come to its end in the meantime.
            self._drain()
            return bool(pending.done)
        self._release(pending)
        pending.finish(-errno.ECANCELED)
        self._flush_soon()
        self._settle()
        return True

    def _settle(self) -> None:
        """Lets `aclose` go on when nothing is in flight or queued."""
        if self._closers and self._is_idle():
            for closer in self._closers:
                closer.finish(0)
            self._closers.clear()

    def _is_idle(self) -> bool:
        """Whether nothing is queued or in flight that anybody waits for, or waited for."""
        return not self._backlog and not any(holder.__class__ is Pending for holder in self._holders)

    def _begin_to_close(self) -> Pending | None:
        """Refuses new requests, takes back what has no effect, and gives the rest a last waiter if there is any."""
        if self._closers is None:
            self._closers = []
            self._close_quick()
        if self._current() is not self._owner or self._ring.inherited:
            return None
        for pending in [*self._backlog, *self._holders]:
            if pending.__class__ is Pending and pending.opcode in _WITHOUT_EFFECT:
                self.take_back(pending)
        self._drain()
        if self._is_idle():
            return None
        closer = Pending(_CLOSER, -1, None, False, None)
        self._closers.append(closer)
        return closer

    def _end(self) -> None:
        """Returns when nothing runs any more; what was queued never will."""
        self._closed = True
        self._close_quick()
        ring = self._ring
        if not ring.inherited:
            self._host.detach()
        ring.destroy()
        for pending in [*self._backlog, *self._holders]:
            if pending.__class__ is Pending and not pending.done:
                pending.finish(-errno.ECANCELED)
        self._backlog.clear()
        for closer in self._closers or ():
            closer.finish(0)
        self._holders = [None] * self._depth
        self._free = list(range(self._depth))
        self._small = []
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1
