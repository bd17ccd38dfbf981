"""The low level: submit requests, fetch events, by the engine's own rules (man 2 io_submit, io_getevents)."""

from __future__ import annotations

import errno
import math
import os
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import repeat, starmap
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from libaio_shim._iocb import Iocb
from libaio_shim._native import EVENT_BYTES, IOCB_FLAG_RESFD, ffi, lib, raise_errno
from libaio_shim._ring import Owner, Ring

_submit = lib.las_io_submit
_getevents = lib.las_io_getevents
_from_buffer = ffi.from_buffer

# No call can return more at once: an array for a number like sys.maxsize cannot be had.
_MOST_EVENTS = 64 * 1024
# After that long who waits looks whether other threads have taken the events that it waits for: submit_all takes those
# that getevents would return, and the other way round.
_ROUND_SECONDS = 0.1
_ROUND: Any = ffi.new("las_timespec *", (0, round(_ROUND_SECONDS * 1e9)))


def _seconds(timeout: float | None) -> float:
    """The time-out as a float, infinity if there is none."""
    if timeout is None:
        return math.inf
    seconds = math.ldexp(timeout, 0)  # any real number, as float() takes it, but no text
    if not seconds >= 0:
        raise ValueError(f"timeout must not be negative or nan, but is {timeout}")
    return seconds


class Event(tuple[Iocb, int, int]):
    """What became of a request: ``(iocb, res, res2)``.

    A tuple subclass without a constructor of its own, not a NamedTuple: made from C alone it costs a third, and that
    decides what a batch costs.
    """

    __slots__ = ()
    __match_args__ = ("iocb", "res", "res2")

    if TYPE_CHECKING:

        @property
        def iocb(self) -> Iocb:
            """The request."""
            ...

        @property
        def res(self) -> int:
            """Bytes transferred (the mask for a poll, 0 for fsync), or a negative errno."""
            ...

        @property
        def res2(self) -> int:
            """Always 0."""
            ...
    else:
        iocb = property(itemgetter(0), doc="The request.")
        res = property(itemgetter(1), doc="Bytes transferred (the mask for a poll, 0 for fsync), or a negative errno.")
        res2 = property(itemgetter(2), doc="Always 0.")

    def check(self) -> int:
        """``res``, or the OSError that it stands for."""
        if self[1] < 0:
            raise_errno(self[1])
        return self[1]

    def __repr__(self) -> str:
        return f"Event(iocb={self[0]!r}, res={self[1]}, res2={self[2]})"


class SubmitError(OSError):
    """Raised by `Context.submit_all` for a request that was refused.  ``errno`` says why."""

    submitted: int
    """How many requests before it were accepted: their events will come."""
    iocb: Iocb
    """The request that was refused."""

    def __init__(self, code: int, submitted: int, iocb: Iocb) -> None:
        super().__init__(code, os.strerror(code))
        self.submitted = submitted
        self.iocb = iocb


def _set_eventfd(requests: Sequence[Iocb], eventfd: int) -> None:
    for request in requests:
        if request.resfd != eventfd:
            request.resfd = eventfd
            if eventfd >= 0:
                request.aio_flags |= IOCB_FLAG_RESFD
            else:
                request.aio_flags &= ~IOCB_FLAG_RESFD


class Context(Owner):
    """A queue for up to `depth` asynchronous requests (the engine rounds it up, see `io_setup(2)`).

    Any thread may use it, and several may wait in `getevents` at once.  Raises OSError for a depth that cannot be had
    (EINVAL, EAGAIN beyond fs.aio-max-nr, ENOMEM).  Close it, or use ``with``.  In a forked child it is dead: every call
    says EINVAL.
    """

    # True once any context has one: then submit looks at each request's.
    _eventfds = False

    def __init__(self, depth: int = 128) -> None:
        self._eventfd = -1
        self._depth = depth
        self._ring = Ring(depth)
        self._closed = False
        # By the address of the iocb, which comes back in the event.
        self._in_flight: dict[int, Iocb] = {}
        # Reaped by submit_all to make room; getevents returns them first.
        self._ready: deque[Event] = deque()
        # Arrays of io_event that no call uses at the moment: length, cdata, the same as 64-bit words (four an event).
        self._arrays: list[tuple[int, Any, memoryview]] = []

    @property
    def depth(self) -> int:
        """The depth that was asked for.  A few more requests may be accepted, as in the kernel."""
        return self._depth

    @property
    def in_flight(self) -> int:
        """Requests that were accepted and whose events were not yet returned."""
        return len(self._in_flight) + len(self._ready)

    def submit(self, requests: Sequence[Iocb] | Iocb) -> int:
        """Starts requests in the order given and returns how many were accepted: the first so many of the sequence.

        It does not block and it may accept only a part: fewer than ``len(requests)`` when the context is full or a
        later request is refused.  OSError if the first one is refused: BlockingIOError (EAGAIN) when the context is
        full, EBADF for a bad descriptor, EINVAL and so on, as `io_submit(2)`.  ValueError, and nothing is submitted,
        if a request is in flight already or is given twice.
        """
        # Our own, whatever it was and whoever changes it meanwhile: what was accepted is told by its place.
        requests = (requests,) if isinstance(requests, Iocb) else tuple(requests)
        ring = self._ring
        if self._closed:
            raise ValueError("submit on a closed context")
        count = len(requests)
        in_flight = self._in_flight
        with ring.lock:
            claimed = 0
            # The result goes into a list without a bytecode in between: a signal handler that raises cannot get lost
            # between the engine that has accepted requests and us who have to keep their buffers.
            result: list[int] = []
            try:
                # Several passes of a line each are the quickest way in CPython.
                for request in requests:
                    if request._home is not None:
                        raise ValueError(f"{request!r} is in flight")
                    request._home = ring
                    claimed += 1
                if Context._eventfds:
                    _set_eventfd(requests, self._eventfd)
                addresses = array("Q", [request._address for request in requests])
                in_flight.update(zip(addresses, requests, strict=True))
                result.extend(map(_submit, (ring.handle,), (count,), (_from_buffer(addresses),)))
            except AttributeError:
                raise TypeError("requests must be Iocb objects, as the prep_* functions make them") from None
            finally:
                accepted = result[0] if result else 0
                if accepted != claimed:
                    self._disown(requests[max(accepted, 0) : claimed])
        if accepted < 0:
            raise_errno(accepted)
        return accepted

    def _disown(self, requests: Sequence[Iocb]) -> None:
        for request in requests:
            self._in_flight.pop(request._address, None)
            request._home = None

    def submit_all(self, requests: Sequence[Iocb]) -> None:
        """Starts every request; where the context is full it waits for events, which the next `getevents` returns.

        SubmitError (an OSError) for the first request that is refused; its ``submitted`` says how many requests
        before it were accepted.
        """
        requests = tuple(requests)
        total = len(requests)
        portion = max(self._depth, 64)
        done = 0
        idle = False
        while done < total:
            try:
                # In portions: submit looks at all that it is given, however few fit.
                done += self.submit(requests[done : done + portion])
            except BlockingIOError:
                if not self._in_flight:
                    # Other threads may just have taken what was.  Else no event will ever make room.
                    if idle:
                        raise
                    idle = True
                    continue
                self._ready.extend(self._reap(1, self._depth, math.inf))
            except OSError as error:
                raise SubmitError(error.errno or 0, done, requests[done]) from None
            else:
                idle = False

    def getevents(self, min_nr: int = 1, nr: int | None = None, timeout: float | None = None) -> list[Event]:
        """Waits for at least ``min_nr`` events and returns up to ``nr`` of them (default: `depth`, or min_nr if more).

        timeout: seconds; None and infinity wait for ever.  When it runs out, fewer events than min_nr (or none) are
        returned.
        min_nr 0 never waits.  A signal does not end the wait unless its Python handler raises.
        OSError as `io_getevents(2)`: EINVAL if min_nr is negative or more than nr, or in a forked child.
        ValueError if the context is closed, also when that happens during the wait, and for a negative timeout or nan.
        """
        if nr is None:
            nr = max(min_nr, self._depth)
        seconds = _seconds(timeout)
        events: list[Event] = []
        try:
            self._gather(events, min_nr, nr, seconds)
        except BaseException:
            self._ready.extendleft(reversed(events))
            raise
        return events

    def _gather(self, events: list[Event], min_nr: int, nr: int, seconds: float) -> None:
        """Puts the events that getevents returns into the list; those that are there already are not lost by it."""
        ready = self._ready
        end = time.monotonic() + seconds if 0 < seconds < math.inf else seconds
        while True:
            if ready and 0 <= min_nr <= nr:
                try:
                    # In a single step of C, and without a look at its length before: other threads take from it, too.
                    events.extend(starmap(ready.popleft, repeat((), min(nr - len(events), sys.maxsize))))
                    return
                except IndexError:
                    pass
            have = len(events)
            events += self._reap(min_nr if min_nr <= 0 else max(min_nr - have, 0), nr - have, seconds)
            if len(events) >= min_nr:
                return
            if seconds != math.inf:
                seconds = max(end - time.monotonic(), 0.0)
                if not seconds:
                    return

    def _reap(self, min_nr: int, nr: int, seconds: float) -> list[Event]:
        """What io_getevents returns, which waits for a round at most, or until a signal comes."""
        if self._closed:
            raise ValueError("getevents on a closed context")
        if nr > _MOST_EVENTS:
            nr = max(min_nr, _MOST_EVENTS)
        spec = _ROUND
        if seconds < _ROUND_SECONDS:
            spec = ffi.new("las_timespec *", (0, round(seconds * 1e9)))
        events = self._array(nr)
        # As in submit: what was reaped, and whose requests are not in flight any more, cannot get lost.
        result: list[int] = []
        requests: list[Iocb] = []
        try:
            result.extend(map(_getevents, (self._ring.handle,), (min_nr,), (nr,), (events[1],), (spec,)))
            reaped = self._collect(events[2], self._count(result[0]), requests)
            self._arrays.append(events)
        except BaseException:
            if result and result[0] > 0:
                self._ready.extend(self._collect(events[2], result[0], requests))
            raise
        return reaped

    def _count(self, result: int) -> int:
        """How many events io_getevents has returned."""
        if result == -errno.EINTR:
            return 0  # the interpreter runs Python's signal handlers before the next round
        if result < 0:
            if self._closed:
                raise ValueError("the context was closed")
            raise_errno(result)
        return result

    def _collect(self, words: memoryview, count: int, requests: list[Iocb]) -> list[Event]:
        """The events in an array; their requests are not in flight any more.  Can be begun again with what it left."""
        flat = words[: count * 4].tolist()
        if not requests:
            requests.extend(map(self._in_flight.pop, flat[1::4]))
        for request in requests:
            request._home = None
        return list(map(Event, zip(requests, flat[2::4], flat[3::4], strict=True)))

    def _array(self, nr: int) -> tuple[int, Any, memoryview]:
        try:
            events = self._arrays.pop()
            if events[0] >= nr:
                return events
        except IndexError:
            pass
        length = max(nr, 1)
        memory: Any = ffi.new("char[]", length * EVENT_BYTES)
        return length, memory, memoryview(ffi.buffer(memory)).cast("B").cast("q")

    def cancel(self, request: Iocb) -> Event | None:
        """Takes a request back.

        Returns its event if it will not run any more (`getevents` will not return it again), or None if its event is
        on the way (a poll).  OSError (EINVAL) if it runs already or is complete: its event comes as usual.
        ValueError if it is not in flight here.
        """
        ring = self._ring
        if self._closed:
            raise ValueError("cancel on a closed context")
        if not isinstance(request, Iocb):
            raise TypeError(f"a request is needed, not {type(request).__name__}")
        if not request.busy or request._home is not ring:
            raise ValueError(f"{request!r} is not in flight in this context")
        address = request._address
        out: Any = ffi.new("int64_t[4]")
        result = lib.las_io_cancel(ring.handle, ffi.cast("void *", address), out)
        if result == -errno.EINPROGRESS:
            return None
        if result < 0:
            raise_errno(result)
        del self._in_flight[address]
        request._home = None
        return Event((request, out[2], out[3]))

    def fileno(self) -> int:
        """An eventfd (non-blocking), made by the first call, that counts the events of requests submitted since then.

        For select, epoll or an event loop: when it is readable, read it (`os.eventfd_read`), then fetch events.
        """
        if self._closed:
            raise ValueError("fileno of a closed context")
        with self._ring.lock:
            if self._eventfd < 0:
                self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                Context._eventfds = True
        return self._eventfd

    def close(self) -> None:
        """Waits until no request runs any more (cancelling what can be), and frees everything.  Their events are lost.

        A `getevents` that waits in another thread ends with ValueError.  Closing twice is no error.
        """
        if self._closed:
            return
        self._closed = True
        if not self._ring.destroy():
            return  # another thread does it
        for request in list(self._in_flight.values()):
            request._home = None
        self._in_flight.clear()
        self._ready.clear()
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"in_flight={self.in_flight}"
        return f"<libaio_shim.Context depth={self._depth} {state}>"
