"""Requests that coroutines wait for: how they go to the engine, and how their results come back.

How a request goes, from the cheapest to the dearest way:

1. *Now.*  It is submitted at once.  What the engine's head lane finished is in the ring when the call returns; the
   result is read from there and the coroutine never suspends: no future, no loop turn, no eventfd.
2. *Submitted, waits.*  The coroutine suspends.  The engine raises the context's one eventfd; the loop wakes up once
   and takes all events that are there.
3. *Queued, waits.*  After a request had to wait, those that come while it is in flight are likely to wait, too.  They
   are collected and share one submit at the end of the loop turn.  Once the head lane finishes some of them, new ones
   go way 1 again.  Here also waits what finds all `depth` slots taken.

A *slot* is 64 bytes of a slab, in which the iocb is packed, and an entry of ``_holders``, which keeps all that the
request needs alive until its event, whatever became of the coroutine.  Its number travels in the iocb's ``data``.

Only the thread of the event loop may come here: nothing is locked.  What a loop must be able to do is in `_hosts`.
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
from typing import Any

from libaio_shim._iocb import FileDescriptorLike, bad_argument, descriptor
from libaio_shim._native import (
    EVENT_BYTES,
    IOCB_BYTES,
    IOCB_CMD_POLL,
    IOCB_CMD_PREAD,
    IOCB_CMD_PREADV,
    IOCB_FLAG_RESFD,
    NULL,
    address_of,
    ffi,
    lib,
    raise_errno,
)
from libaio_shim._ring import HEAD, NR, TAIL, Ring
from libaio_shim.asyncio._hosts import Host, current_host, homeless

# The iocb of linux/aio_abi.h as eight words: data; key and rw_flags, opcode and descriptor, buf, nbytes, offset;
# reserved, flags and eventfd.  Those in the middle are packed for each request, the others are a slot's own.
_pack = struct.Struct("=5q").pack_into
_PACKED_AT = 8
_FLAGS_WORD = 7
_submit: Callable[[Any, int, Any], int] = lib.las_io_submit_quiet

# Looking at the ring without a call needs loads in program order, as x86 has; elsewhere io_getevents does the fence.
PEEK = platform.machine() in ("x86_64", "AMD64", "i686")

# What has no effect on anything outside when it is taken back.
_WITHOUT_EFFECT = (IOCB_CMD_PREAD, IOCB_CMD_PREADV, IOCB_CMD_POLL)
# The slot of what waits not for a request but for all of them.
_CLOSER = -2


def _nothing() -> None:
    pass


class Pending:
    """A request that was not finished at once."""

    __slots__ = ("arguments", "done", "host", "keep", "opcode", "result", "slot", "waiter")

    def __init__(self, slot: int, opcode: int, keep: Any, arguments: tuple[Any, ...] | None) -> None:
        self.slot = slot
        """Where it is in flight, or -1 while it is queued."""
        self.opcode = opcode
        self.keep = keep
        """What must live until the event."""
        self.arguments = arguments
        """What to pack, while it is queued."""
        self.done = False
        self.result = 0
        self.host: Host | None = None
        """Who wakes the coroutine; None if nobody waits."""
        self.waiter: Any = None
        """What the host needs for that."""

    def finish(self, result: int) -> None:
        self.done = True
        self.result = result
        self.keep = self.arguments = None


class Core:
    """An engine's context with its slots, as a guest of an event loop."""

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
        # The same as an array of pointers: cffi stores the address of a buffer much faster than it tells it.
        self._pointers: Any = ffi.cast("void **", slab)
        self._base = address_of(slab)
        # The array of iocb pointers for a batch, and the same as Python sees it; and one for each slot on its own.
        self._iocbs: Any = ffi.new("int64_t[]", depth)
        self._iocb_addresses = memoryview(ffi.buffer(self._iocbs)).cast("B").cast("q")
        self._each: Any = ffi.new("int64_t[]", [self._base + slot * IOCB_BYTES for slot in range(depth)])
        self._alone = [self._each + slot for slot in range(depth)]
        self._holders: list[Any] = [None] * depth
        self._free = list(range(depth - 1, -1, -1))
        self._set_constants(0)
        self._array: Any = None if PEEK else ffi.new("char[]", depth * EVENT_BYTES)

        # Requests may be submitted at once: open, at home, none queued, and the last ones did not wait.
        self._quick = False
        self._backlog: deque[Pending] = deque()
        self._flush_comes = False
        # Of the request for which _start returned None.
        self._last: Any = None
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

    def _start(
        self, opcode: int, fd: FileDescriptorLike, memory: Any, nbytes: int, offset: int, flags: int, keep: Any
    ) -> int | None:
        """Starts a request: its result if it is finished, else None, and it is `_last`.

        memory: a cdata, the iocb's buf.  keep: whatever must live until the event.
        """
        if fd.__class__ is not int:
            fd = descriptor(fd)
        free = self._free
        if (not self._quick or not free or get_ident() != self._thread) and not self._may_submit():
            self._enqueue(opcode, fd, memory, nbytes, offset, flags, keep)
            return None
        slot = free.pop()
        # From here on the slot is the request's, even if a signal handler raises somewhere below.
        self._holders[slot] = keep
        try:
            _pack(self._slab, slot * IOCB_BYTES + _PACKED_AT, flags << 32, fd << 32 | opcode, 0, nbytes, offset)
        except (struct.error, TypeError):
            free.append(slot)
            raise bad_argument(fd=fd, offset=offset, flags=flags) from None
        self._pointers[slot * 8 + 3] = memory
        accepted = _submit(self._handle, 1, self._alone[slot])
        if accepted == 1:
            if PEEK:
                header = self._header
                head = header[HEAD]
                if head != header[TAIL]:
                    events = self._events
                    word = head * 4
                    if events[word] == slot:
                        result: int = events[word + 2]
                        head += 1
                        header[HEAD] = head if head != self._nr else 0
                        self._holders[slot] = None
                        free.append(slot)
                        return result
            pending = self._holders[slot] = Pending(slot, opcode, keep, None)
            self._drain()
            if pending.done:
                return pending.result
            if self._current() is not self._owner:
                self._move_in()
            self._quick = False
            self._last = pending
            return None
        self._holders[slot] = None
        free.append(slot)
        if accepted == -errno.EAGAIN and len(free) != self._depth:
            self._enqueue(opcode, fd, memory, nbytes, offset, flags, keep)
            return None
        return accepted

    def _set_constants(self, flags: int) -> None:
        """Writes the words of each slot's iocb that do not change: its number, and the eventfd."""
        words = self._slab.cast("q")
        for slot in range(self._depth):
            words[slot * 8] = slot
            words[slot * 8 + _FLAGS_WORD] = flags

    def _may_submit(self) -> bool:
        """Called where `_start` cannot go the quick way: whether it may go on all the same, or must queue."""
        if self.closed:
            raise ValueError("the context is closed")
        if self._ring.inherited:
            raise_errno(-errno.EINVAL)
        if self._current() is not self._owner or get_ident() != self._thread:
            self._move_in()
        # The first of several is not worth waiting for company: a request at a time is common.
        idle = len(self._free) == self._depth and not self._backlog
        if idle:
            self._quick = True
        return idle or (self._quick and bool(self._free))

    def _move_in(self) -> None:
        """Makes the running event loop the one that wakes our coroutines."""
        host = current_host()
        if get_ident() != self._thread:
            if len(self._free) != self._depth or self._backlog:
                raise RuntimeError("the context is in use by an event loop of another thread")
            self._thread = get_ident()
        self._host.detach()
        if self._eventfd < 0:
            self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._set_constants(IOCB_FLAG_RESFD | self._eventfd << 32)
        # Weakly, so that a context that was forgotten is noticed while the loop runs.
        method = weakref.WeakMethod(self._readable)
        host.attach(self._eventfd, lambda: (method() or _nothing)())
        self._host, self._current, self._owner = host, host.current, host.owner
        self._quick = not self._backlog

    def _enqueue(self, *arguments: Any) -> None:
        pending = Pending(-1, arguments[0], arguments[-1], arguments)
        self._backlog.append(pending)
        self._quick = False
        self._last = pending
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._backlog and self._free and not self._flush_comes:
            self._flush_comes = True
            self._host.soon(self._flush)

    def _flush(self) -> None:
        """Submits what is queued, as far as there are slots: one call for all."""
        self._flush_comes = False
        backlog, free, holders = self._backlog, self._free, self._holders
        if self._closed:
            return
        batch: list[Pending] = []
        while backlog and free:
            pending = backlog.popleft()
            opcode, fd, memory, nbytes, offset, flags, _ = pending.arguments or ()
            slot = free.pop()
            at = slot * IOCB_BYTES
            try:
                _pack(self._slab, at + _PACKED_AT, flags << 32, fd << 32 | opcode, 0, nbytes, offset)
            except (struct.error, TypeError):
                free.append(slot)
                self._finish(pending, -errno.EINVAL)
                continue
            self._pointers[slot * 8 + 3] = memory
            self._iocb_addresses[len(batch)] = self._base + at
            holders[slot] = pending
            pending.slot = slot
            batch.append(pending)
        done = 0
        while done < len(batch):
            accepted = _submit(self._handle, len(batch) - done, self._iocbs + done)
            if accepted > 0:
                done += accepted
                continue
            if accepted == -errno.EAGAIN and len(free) + len(batch) - done != self._depth:
                # Others are in flight; their events will make room.
                for pending in reversed(batch[done:]):
                    self._release(pending)
                    backlog.appendleft(pending)
                break
            pending = batch[done]
            self._release(pending)
            self._finish(pending, accepted)
            done += 1
        self._drain()
        if not backlog:
            self._quick = any(pending.done for pending in batch)
        self._flush_soon()
        self._settle()

    def _release(self, pending: Pending) -> None:
        self._holders[pending.slot] = None
        self._free.append(pending.slot)
        pending.slot = -1

    def _finish(self, pending: Pending, result: int) -> None:
        pending.finish(result)
        if pending.host is not None:
            pending.host.wake(pending.waiter)

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
        if not PEEK:
            self._drain_by_call()
            return
        header, events, nr = self._header, self._events, self._nr
        holders, free = self._holders, self._free
        head = header[HEAD]
        while head != header[TAIL]:
            word = head * 4
            slot = events[word]
            result = events[word + 2]
            head += 1
            if head == nr:
                head = 0
            header[HEAD] = head
            holder = holders[slot]
            holders[slot] = None
            free.append(slot)
            if holder.__class__ is Pending:
                self._finish(holder, result)

    def _drain_by_call(self) -> None:
        while True:
            count = lib.las_io_getevents(self._handle, 0, self._depth, self._array, NULL)
            if count <= 0:
                return
            words = memoryview(ffi.buffer(self._array, count * EVENT_BYTES)).cast("B").cast("q").tolist()
            for slot, result in zip(words[::4], words[2::4], strict=True):
                holder = self._holders[slot]
                self._holders[slot] = None
                self._free.append(slot)
                if holder.__class__ is Pending:
                    self._finish(holder, result)

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
        if self._closers and len(self._free) == self._depth and not self._backlog:
            for closer in self._closers:
                self._finish(closer, 0)
            self._closers.clear()

    def _begin_to_close(self) -> Pending | None:
        """Refuses new requests, takes back what has no effect, and gives the rest a last waiter if there is any."""
        if self._closers is None:
            self._closers = []
            self._quick = False
        if self._current() is not self._owner or self._ring.inherited:
            return None
        for pending in [*self._backlog, *self._holders]:
            if pending.__class__ is Pending and pending.opcode in _WITHOUT_EFFECT and self.take_back(pending):
                self._finish(pending, pending.result)
        self._drain()
        if len(self._free) == self._depth and not self._backlog:
            return None
        closer = Pending(_CLOSER, -1, None, None)
        self._closers.append(closer)
        return closer

    def _end(self) -> None:
        """Returns when nothing runs any more; what was queued never will."""
        self._closed = True
        self._quick = False
        ring = self._ring
        if not ring.inherited:
            self._host.detach()
        ring.destroy()
        for pending in [*self._backlog, *self._holders]:
            if pending.__class__ is Pending and not pending.done:
                self._finish(pending, -errno.ECANCELED)
        self._backlog.clear()
        for closer in self._closers or ():
            self._finish(closer, 0)
        self._holders = [None] * self._depth
        self._free = list(range(self._depth))
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1
