"""Requests that coroutines wait for: how they go to the engine, and how their results come back.

How a request goes, from the cheapest to the dearest way:

1. *Now.*  It is submitted at once.  What the engine's head lane finished is what the call returns, and the coroutine
   never suspends: no event, no future, no loop turn, no eventfd.
2. *Submitted, waits.*  The coroutine suspends.  The engine raises the context's one eventfd; the loop wakes up once
   and takes all events that are there.
3. *Queued, waits.*  After a request had to wait, those that come while it is in flight are likely to wait, too.  They
   are collected and share one submit at the end of the loop turn.  Once the head lane finishes some of them, new ones
   go way 1 again.  Here also waits what finds all `depth` slots taken, and the first of those that come together again.

What a request needs in the engine is a *slot* (`_slots`).  While there is a *quick slot*, requests of way 1 may come:
nothing is queued, and the last ones did not wait.

Only the thread of the event loop may come here: nothing is locked.  What a loop must be able to do is in `_hosts`.

A signal handler may raise wherever a function was called: `_slots` says what the order of the lines has to do with it.
"""

from __future__ import annotations

import errno
import os
import struct
import weakref
from collections import deque
from threading import get_ident
from time import perf_counter
from typing import Any

from libaio_shim._iocb import FileDescriptorLike, bad_argument, descriptor
from libaio_shim._native import (
    IOCB_CMD_POLL,
    IOCB_CMD_PREAD,
    IOCB_CMD_PREADV,
    IOCB_FLAG_RESFD,
    SUBMITTED,
    raise_errno,
)
from libaio_shim.asyncio._hosts import Host, current_host, homeless
from libaio_shim.asyncio._slots import PACKED, Pending, Slots, submit_one

# As much as may be submitted at the end of one turn, and a request.
_TURN_BYTES = 1024 * 1024

# After a turn that was longer, nothing is submitted in some others: who sleeps comes to run two turns after its time is
# up (asyncio's timer wakes a future, and that its task), and should not have to wait for a copy in each.
LONG_SECONDS = 0.0005
PAUSE_TURNS = 2

# What has no effect on anything outside when it is taken back.
_WITHOUT_EFFECT = (IOCB_CMD_PREAD, IOCB_CMD_PREADV, IOCB_CMD_POLL)
# The slot of what waits not for a request but for all of them.
_CLOSER = -2


def _nothing() -> None:
    pass


class Core(Slots):
    """Requests as a guest of an event loop."""

    __slots__ = (
        "_backlog",
        "_closers",
        "_company",
        "_current",
        "_data",
        "_eventfd",
        "_flush_comes",
        "_flushes",
        "_host",
        "_last",
        "_owner",
        "_pause",
        "_thread",
    )

    def __init__(self, depth: int) -> None:
        """Raises OSError for a depth that cannot be had (EINVAL, ENOMEM)."""
        self._eventfd = -1
        super().__init__(depth)
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

    def _not_at_once(
        self, result: int, opcode: int, fd: int, memory: Any, nbytes: int, offset: int, flags: int, keep: Any
    ) -> int | None:
        """What became of a request that used the quick slot and is not finished, or has failed, or was refused."""
        if result == SUBMITTED:
            pending = self._hold_quick(opcode, keep, memory is None)
            self._drain()
            if pending.done:
                self._go_on()
                self._data = pending.data
                return pending.result
            if self._current() is not self._owner:
                self._move_in()
            self._last = pending
            return None
        self._quick_keep = None
        self._quick_thread = self._thread
        if result == -errno.EAGAIN and self.in_flight:
            self._enqueue(opcode, fd, memory, nbytes, offset, flags, keep)
            return None
        return result

    def _go_on(self) -> None:
        """From now on requests may go the quick way, unless some are queued."""
        if not self._backlog:
            self._open_quick(self._thread)

    def _close_quick(self) -> bool:
        if super()._close_quick():
            return True
        # A loop in which a signal handler raises may lose a callback, too.
        self._flush_comes = False
        return False

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
            self._go_on()
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
            words = PACKED.pack(flags << 32, fd << 32 | opcode, 0, nbytes, offset)
        except (struct.error, TypeError):
            raise bad_argument(fd=fd, nbytes=nbytes, offset=offset, flags=flags) from None
        pending = Pending(-1, opcode, keep, memory is None, (words, memory, nbytes))
        if self._quick_slot >= 0:
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
        if self._closed:
            return
        self._flushes += 1
        backlog = self._backlog
        # Much of what is queued may be in memory after all, and is then copied inside submit: not all in one turn.
        batch = self._load(backlog, _TURN_BYTES)
        begin = perf_counter()
        done = self._submit(batch)
        backlog.extendleft(reversed(batch[done:]))
        is_long = perf_counter() - begin > LONG_SECONDS
        if is_long:
            self._pause = PAUSE_TURNS
        self._company = len(batch) > 1 or is_long
        in_memory = bool(batch) and self._is_newest(batch[-1])
        self._drain()
        if in_memory and not is_long:
            self._go_on()
        self._flush_soon()
        self._settle()

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
        if not self._cancel(pending):
            # It may have come to its end in the meantime.
            self._drain()
            return bool(pending.done)
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
        return not self._backlog and not self._held()

    def _begin_to_close(self) -> Pending | None:
        """Refuses new requests, takes back what has no effect, and gives the rest a last waiter if there is any."""
        if self._closers is None:
            self._closers = []
            self._close_quick()
        if self._current() is not self._owner or self._ring.inherited:
            return None
        for pending in [*self._backlog, *self._held()]:
            if pending.opcode in _WITHOUT_EFFECT:
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
        if not self._ring.inherited:
            self._host.detach()
        self._destroy()
        for pending in self._backlog:
            pending.finish(-errno.ECANCELED)
        self._backlog.clear()
        for closer in self._closers or ():
            closer.finish(0)
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1
