"""The low level: `Context`, `Event` and the ``prep_*`` functions."""

from __future__ import annotations

import copy
import errno
import gc
import math
import mmap
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
import warnings
from array import array
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_tests import BLOCK, Stall, raises_errno, wait_until

from libaio_shim import (
    AlignedBuffer,
    Batch,
    Context,
    Event,
    Iocb,
    SubmitError,
    alignment,
    prep_fdsync,
    prep_fsync,
    prep_poll,
    prep_pread,
    prep_preadv,
    prep_pwrite,
    prep_pwritev,
    stats,
)
from libaio_shim.asyncio import AsyncContext


def finish(context: Context, *requests: Iocb) -> list[int]:
    """The results of requests, in their order."""
    assert context.submit(requests) == len(requests)
    results = {event.iocb: event.res for event in context.getevents(len(requests))}
    return [results[request] for request in requests]


def test_reads_what_is_in_the_file(fd: int, payload: bytes) -> None:
    """A read fills its buffer from its offset."""
    buffer = bytearray(BLOCK)
    with Context(4) as context:
        assert finish(context, prep_pread(fd, buffer, 3 * BLOCK)) == [BLOCK]
    assert buffer == payload[3 * BLOCK : 4 * BLOCK]


def test_read_at_the_end_is_short(fd: int, payload: bytes) -> None:
    """The end of the file cuts a read short, behind it nothing is read."""
    buffer = bytearray(BLOCK)
    with Context(4) as context:
        near = prep_pread(fd, buffer, len(payload) - 10)
        behind = prep_pread(fd, bytearray(1), len(payload) + 10)
        assert finish(context, near, behind) == [10, 0]


def test_writes_land_in_the_file(fd: int, path: Path) -> None:
    """A write puts its buffer at its offset; fsync and fdsync say 0."""
    with Context(4) as context:
        assert finish(context, prep_pwrite(fd, b"written", 10)) == [7]
        assert finish(context, prep_fsync(fd), prep_fdsync(fd)) == [0, 0]
    assert path.read_bytes()[8:19] == b"AAwrittenAA"


def test_vectors_scatter_and_gather(fd: int, payload: bytes) -> None:
    """preadv and pwritev go through their buffers one after the other."""
    one, two = bytearray(BLOCK), bytearray(10)
    with Context(4) as context:
        assert finish(context, prep_pwritev(fd, [b"ab", b"", memoryview(b"cde")], 0)) == [5]
        assert finish(context, prep_preadv(fd, [one, two], 0)) == [BLOCK + 10]
    assert bytes(one + two) == (b"abcde" + payload[5:])[: BLOCK + 10]


def test_poll_answers_with_the_mask() -> None:
    """A poll that is ready tells what is ready; one that is not, waits."""
    left, right = socket.socketpair()
    with left, right, Context(4) as context:
        assert finish(context, prep_poll(left, select.POLLIN | select.POLLOUT)) == [select.POLLOUT]
        assert context.submit(prep_poll(left, select.POLLIN)) == 1
        assert context.getevents(0) == []
        right.send(b"x")
        (event,) = context.getevents()
        assert event.res & select.POLLIN


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(b"." * 8),
        lambda: memoryview(bytearray(b"." * 16))[8:],
        lambda: array("Q", [0]),
        lambda: mmap.mmap(-1, 8),
        lambda: AlignedBuffer(8),
    ],
    ids=["bytearray", "memoryview", "array", "mmap", "AlignedBuffer"],
)
def test_any_writable_buffer_will_do(fd: int, make: Any) -> None:
    """The buffer protocol is all that is asked for, and lengths are bytes."""
    buffer = make()
    with Context(1) as context:
        assert finish(context, prep_pread(fd, buffer, 0)) == [8]
    assert bytes(buffer) == b"A" * 8


def test_numpy_arrays_are_buffers(fd: int) -> None:
    """An array is read into in place; one with gaps is refused."""
    numpy = pytest.importorskip("numpy", reason="numpy is not installed (pip install numpy)")
    target = numpy.zeros((4, 4), dtype=numpy.uint16)
    with Context(1) as context:
        assert finish(context, prep_pread(fd, target, 0)) == [32]
    assert (target == 0x4141).all()
    with pytest.raises((TypeError, ValueError, BufferError)):
        prep_pread(fd, target[:, ::2], 0)


def test_empty_buffers_transfer_nothing(fd: int) -> None:
    """A request of no bytes completes with 0."""
    with Context(4) as context:
        requests = [prep_pread(fd, bytearray(), 0), prep_pwrite(fd, b"", 0), prep_preadv(fd, [], 0)]
        assert finish(context, *requests) == [0, 0, 0]


def test_read_only_memory_is_not_read_into(fd: int) -> None:
    """bytes are immutable, also for the engine."""
    for buffer in (b"immutable", memoryview(b"immutable")):
        with pytest.raises((TypeError, BufferError)):
            prep_pread(fd, buffer, 0)
        with pytest.raises((TypeError, BufferError)):
            prep_preadv(fd, [buffer], 0)


def test_bad_arguments_are_named(fd: int) -> None:
    """What does not fit into an iocb is refused when the request is made."""
    with pytest.raises(TypeError, match="offset must be an int, not str"):
        prep_pread(fd, bytearray(1), "0")  # type: ignore[arg-type]
    with pytest.raises(OverflowError, match="offset"):
        prep_pread(fd, bytearray(1), 1 << 70)
    with pytest.raises(TypeError, match="fileno"):
        prep_fsync("file")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes-like object is required, not 'str'"):
        prep_pwrite(fd, "text", 0)  # type: ignore[arg-type]


def test_bad_polls_are_named(fd: int) -> None:
    """The mask, not a buffer's address."""
    for bad in (-1, 1 << 64):
        with pytest.raises(OverflowError, match=f"events={bad}"):
            prep_poll(fd, bad)
    with pytest.raises(TypeError, match="events must be an int, not str"):
        prep_poll(fd, "x")  # type: ignore[arg-type]


def test_numbers_of_other_kinds_are_descriptors_and_offsets(fd: int) -> None:
    """Whatever has __index__, as for os.pread."""
    numpy = pytest.importorskip("numpy", reason="numpy is not installed (pip install numpy)")

    class File:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def fileno(self) -> Any:
            return self.answer

    for file in (numpy.int64(fd), File(numpy.int32(fd))):
        request = prep_pread(file, bytearray(1), numpy.uint8(7))
        assert (request.fd, request.offset) == (fd, 7)
    with pytest.raises(TypeError, match=r"fileno\(\) returned NoneType"):
        prep_fsync(File(None))
    with pytest.raises(OverflowError, match="fd"):
        prep_fsync(1 << 31)
    # A type that numpy can only export without saying what it is.
    dates = numpy.zeros(2, dtype="M8[s]")
    assert prep_pread(fd, dates, 0).nbytes == prep_pwrite(fd, dates, 0).nbytes == 16


def test_requests_and_contexts_are_not_copied(fd: int) -> None:
    """A copy would free the original's memory, or use it."""
    with Context(4) as context, Batch(fd, [bytearray(1)]) as batch:
        for original in (context, batch, prep_pread(fd, bytearray(1), 0), AsyncContext(4)):
            for work in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="neither copied nor pickled"):
                    work(original)
            if isinstance(original, AsyncContext):
                original.close()


def test_what_was_never_set_up_needs_no_end() -> None:
    """Wrong arguments are one error: none is added when the object goes."""
    reported: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", reported.append)
        kinds: tuple[Any, ...] = (Context, AsyncContext, Batch)
        for kind in kinds:
            with pytest.raises(TypeError, match="nope"):
                kind(nope=1)
        gc.collect()
    assert not reported


def test_objects_with_fileno_are_descriptors(path: Path) -> None:
    """An open file stands for its descriptor."""
    with path.open("rb") as file, Context(1) as context:
        request = prep_pread(file, bytearray(1), 0)
        assert request.fd == file.fileno()
        assert finish(context, request) == [1]


def test_flags_and_priority_reach_the_engine(fd: int) -> None:
    """RWF_* and ioprio travel in the iocb; an unknown flag is refused by submit."""
    buffer = bytearray(1)
    with Context(4) as context:
        assert finish(context, prep_pread(fd, buffer, 0, flags=os.RWF_NOWAIT)) in ([1], [-errno.EOPNOTSUPP])
        assert finish(context, prep_pread(fd, buffer, 0, ioprio=2 << 13 | 4)) == [1]
        with raises_errno(errno.EOPNOTSUPP):
            context.submit(prep_pread(fd, buffer, 0, flags=1 << 30))
        with raises_errno(errno.EINVAL):
            context.submit(prep_pread(fd, buffer, 0, ioprio=7 << 13))


def test_event_check_returns_or_raises() -> None:
    """check() is the result, or the OSError (of the right kind) that the negative errno means."""
    request = prep_fsync(0)
    assert Event((request, 17, 0)).check() == 17
    with pytest.raises(FileNotFoundError) as caught:
        Event((request, -errno.ENOENT, 0)).check()
    assert caught.value.errno == errno.ENOENT
    iocb, res, res2 = Event((request, 1, 0))
    assert (iocb, res, res2) == (request, 1, 0)


def test_failures_are_events_with_negative_res(path: Path) -> None:
    """What only the device can know comes as an event."""
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        if alignment(fd).memory == 1:
            pytest.skip("n/a: this file system asks for no alignment")
        with Context(1) as context:
            assert context.submit(prep_pread(fd, AlignedBuffer(100), 1)) == 1
            (event,) = context.getevents()
            with pytest.raises(OSError, match="Invalid argument"):
                event.check()
    finally:
        os.close(fd)


def test_direct_io_through_aligned_buffers(path: Path, payload: bytes) -> None:
    """alignment() and AlignedBuffer together satisfy O_DIRECT."""
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        needed = alignment(fd)
        buffer = AlignedBuffer(max(needed.offset, BLOCK), needed.memory)
        assert buffer.address % needed.memory == 0
        with Context(1) as context:
            assert finish(context, prep_pread(fd, buffer, 4 * BLOCK)) == [len(buffer)]
        assert buffer[:BLOCK] == payload[4 * BLOCK : 5 * BLOCK]
    finally:
        os.close(fd)


def test_aligned_buffer_refuses_nonsense() -> None:
    """Sizes and alignments that cannot be."""
    for size, align in ((0, 512), (-1, 512), (512, 0), (512, 3), (512, mmap.PAGESIZE * 2)):
        with pytest.raises(ValueError, match="must be"):
            AlignedBuffer(size, align)


def test_alignment_asks_the_system_or_guesses(tmp_path: Path) -> None:
    """Powers of two, whatever the file; a bad descriptor is EBADF."""
    with (tmp_path / "new").open("wb") as file:
        for value in alignment(file):
            assert value & (value - 1) == 0
            assert 0 < value <= 65536
    with raises_errno(errno.EBADF):
        alignment(-1)


def test_submit_reports_the_accepted_prefix(fd: int) -> None:
    """[good, bad, good]: one is accepted, the others are free again; a bad first one raises."""
    good, bad, late = prep_pread(fd, bytearray(1), 0), prep_pread(-1, bytearray(1), 0), prep_pread(fd, bytearray(1), 1)
    with Context(4) as context:
        assert context.submit([good, bad, late]) == 1
        assert (good.busy, bad.busy, late.busy) == (True, False, False)
        assert [event.iocb for event in context.getevents()] == [good]
        with raises_errno(errno.EBADF):
            context.submit([bad, late])
        assert not late.busy
        assert context.in_flight == 0


def test_a_full_context_accepts_a_part_then_none(fd: int) -> None:
    """The first too many is not accepted; then BlockingIOError, and room again after events were fetched."""
    with Context(8) as context:
        requests = [prep_pread(fd, bytearray(1), 0) for _ in range(10_000)]
        accepted = context.submit(requests)
        assert 8 <= accepted < len(requests)
        assert context.in_flight == accepted
        with pytest.raises(BlockingIOError):
            context.submit(requests[accepted:])
        first = context.getevents(1, 1)
        assert len(first) == 1
        assert context.submit(requests[accepted:]) == 1


def test_submit_all_makes_room(fd: int, payload: bytes) -> None:
    """More requests than the context holds: all are run and every event is returned once."""
    buffers = [bytearray(1) for _ in range(5000)]
    requests = [prep_pread(fd, buffer, (i * 13) % len(payload)) for i, buffer in enumerate(buffers)]
    with Context(2) as context:
        context.submit_all(requests)
        assert context.in_flight == len(requests)
        seen = []
        while context.in_flight:
            seen += context.getevents(1, 100)
    assert sorted(map(id, requests)) == sorted(id(event.iocb) for event in seen)
    assert [buffer[0] for buffer in buffers] == [payload[(i * 13) % len(payload)] for i in range(5000)]


class Robbed(Context):
    """Another thread takes all events whenever this one is about to look at, or wait for, what is in flight."""

    def __init__(self, where: str) -> None:
        super().__init__(4)
        self._where = where
        self.taken: list[Event] = []

    def _rob(self, where: str) -> None:
        if where == self._where:
            thread = threading.Thread(target=lambda: self.taken.extend(Context._reap(self, 0, 10_000, 0)))
            thread.start()
            thread.join()

    def submit(self, requests: Any) -> int:
        try:
            return super().submit(requests)
        except BlockingIOError:
            self._rob("look")
            raise

    def _reap(self, min_nr: int, nr: int, seconds: float) -> list[Event]:
        self._rob("wait")
        return super()._reap(min_nr, nr, seconds)


@pytest.mark.parametrize("where", ["look", "wait"])
def test_submit_all_goes_on_when_others_took_its_events(fd: int, where: str) -> None:
    """There is room then: it neither fails nor waits for what is gone."""
    with Robbed(where) as context:
        requests = [prep_pread(fd, bytearray(8), 8 * i) for i in range(1000)]
        context.submit_all(requests)
        context._where = ""
        rest = context.getevents(len(requests) - len(context.taken), len(requests))
        assert context.taken
        assert sorted(event.iocb.offset for event in [*context.taken, *rest]) == [8 * i for i in range(1000)]


@pytest.mark.parametrize("timeout", [None, 1000])
@pytest.mark.parametrize("min_nr", [1, 4])
def test_getevents_finds_what_submit_all_has_taken(min_nr: int, timeout: float | None, fd: int) -> None:
    """To make room, when it had begun to wait for the same events."""

    class Raced(Context):
        raced = False

        def _reap(self, min_nr: int, nr: int, seconds: float) -> list[Event]:
            if not self.raced:
                self.raced = True
                self._ready.extend(super()._reap(0, nr, 0))
            return super()._reap(min_nr, nr, seconds)

    with Raced(4) as context:
        requests = [prep_pread(fd, bytearray(1), i) for i in range(4)]
        assert context.submit(requests) == 4
        assert [event.iocb for event in context.getevents(min_nr, 4, timeout)] == requests


def test_two_threads_submit_all_and_get_many(fd: int) -> None:
    """Every event is returned once, however the two share them."""
    total = 20_000
    requests = [prep_pread(fd, bytearray(1), i % 4096) for i in range(total)]
    with Context(8) as context, ThreadPoolExecutor(1) as thread:
        submitted = thread.submit(context.submit_all, requests)
        seen = []
        for count in (1, 5, 100, 3, total - 109):
            seen += context.getevents(count, count)
        submitted.result()
        assert len(seen) == total
        assert {id(event.iocb) for event in seen} == {id(request) for request in requests}


def test_events_are_kept_when_getevents_fails(fd: int) -> None:
    """Those that submit_all has fetched come with the next call that succeeds, in their order."""
    with Context(4) as context:
        requests = [prep_pread(fd, bytearray(8), 8 * i) for i in range(1000)]
        context.submit_all(requests)
        ready = list(context._ready)
        assert ready
        with pytest.raises(ValueError, match="timeout"):
            context.getevents(1000, 1000, timeout=math.nan)
        assert list(context._ready) == ready
        assert len(context.getevents(1000, 1000)) == 1000


def test_two_threads_may_take_what_is_ready(fd: int) -> None:
    """The last of it is gone when the second has counted it: it gets what is left."""

    class Promising(deque[Event]):
        def __len__(self) -> int:
            return super().__len__() + 1

    with Context(4) as context:
        requests = [prep_pread(fd, bytearray(8), 8 * i) for i in range(1000)]
        context.submit_all(requests)
        context._ready = Promising(context._ready)
        count = len(list(context._ready))
        assert len(context.getevents(1, count + 1)) >= count


def test_submit_all_says_how_far_it_came(fd: int) -> None:
    """The refused request and the number before it are in the exception."""
    good = [prep_pread(fd, bytearray(1), 0) for _ in range(3)]
    bad = prep_pread(-1, bytearray(1), 0)
    with Context(8) as context:
        with pytest.raises(SubmitError) as caught:
            context.submit_all([*good, bad])
        assert (caught.value.errno, caught.value.submitted, caught.value.iocb) == (errno.EBADF, 3, bad)
        assert len(context.getevents(3)) == 3


def test_a_busy_request_is_refused(stall: Stall, stalled_fd: int) -> None:
    """One request is in flight once, in whatever context; then it may go again."""
    request = prep_pread(stalled_fd, bytearray(1), 0)
    other = prep_pread(stalled_fd, bytearray(1), 0)
    with Context(4) as context, Context(4) as second:
        with stall.holding():
            context.submit(request)
            for where in (context, second):
                with pytest.raises(ValueError, match="in flight"):
                    where.submit([other, request])
                assert not other.busy
            with pytest.raises(ValueError, match="in flight"):
                context.submit([other, other])
        context.getevents()
        assert finish(second, request, other) == [1, 1]


def test_requests_can_be_submitted_again_elsewhere(fd: int, payload: bytes) -> None:
    """The offset is read at submit: one prepared request serves many reads."""
    buffer = bytearray(1)
    request = prep_pread(fd, buffer, 0)
    with Context(1) as context:
        for offset in range(0, len(payload), 1000):
            request.offset = offset
            assert finish(context, request) == [1]
            assert buffer[0] == payload[offset]


def test_buffers_cannot_go_while_in_flight(stall: Stall, stalled_fd: int) -> None:
    """A buffer is exported until its event; then, with the request gone, it is free."""
    buffer = bytearray(BLOCK)
    mapped = AlignedBuffer(BLOCK)
    with Context(4) as context:
        with stall.holding():
            context.submit([prep_pread(stalled_fd, buffer, 0), prep_preadv(stalled_fd, [mapped], 0)])
            gc.collect()
            with pytest.raises(BufferError):
                buffer.clear()
            with pytest.raises(BufferError):
                mapped.close()
        assert [event.res for event in context.getevents(2)] == [BLOCK, BLOCK]
        buffer.clear()
        mapped.close()


def test_cancel_takes_back_what_does_not_run() -> None:
    """A pending poll is cancelled: either at once, or its event comes."""
    left, right = socket.socketpair()
    with left, right, Context(4) as context:
        request = prep_poll(left, select.POLLIN)
        context.submit(request)
        event = context.cancel(request)
        if event is None:
            (event,) = context.getevents()
        assert event.iocb is request
        assert not request.busy
        assert context.in_flight == 0
        with pytest.raises(ValueError, match="not in flight"):
            context.cancel(request)


def test_cancel_refuses_what_runs(stall: Stall, stalled_fd: int) -> None:
    """EINVAL for a request that the device has; its event comes as usual."""
    request = prep_pread(stalled_fd, bytearray(1), 0)
    with Context(4) as context:
        with stall.holding():
            context.submit(request)
            stall.wait_until_held(1)
            with raises_errno(errno.EINVAL):
                context.cancel(request)
        assert context.getevents()[0].res == 1


def test_getevents_returns_in_time(stall: Stall, stalled_fd: int) -> None:
    """A timeout returns what there is; min_nr 0 does not wait; impossible counts are EINVAL."""
    with Context(4) as context:
        with stall.holding():
            context.submit(prep_pread(stalled_fd, bytearray(1), 0))
            assert context.getevents(0) == []
            begin = time.monotonic()
            assert context.getevents(1, timeout=0.05) == []
            assert time.monotonic() - begin >= 0.05
            assert context.getevents(1, timeout=0) == []
            for arguments in ((2, 1), (-1, 1), (0, -1)):
                with raises_errno(errno.EINVAL):
                    context.getevents(*arguments)
            with pytest.raises(ValueError, match="negative"):
                context.getevents(1, timeout=-1)
        assert len(context.getevents(1, timeout=100)) == 1


def test_any_real_number_is_a_timeout(fd: int) -> None:
    """Infinity and what no clock reaches wait for ever; nan and text are refused, and no event is lost by it."""
    with Context(4) as context:
        for timeout in (math.inf, 1e300, sys.maxsize, 10**30, Decimal(5), Fraction(10, 3), True):
            context.submit(prep_pread(fd, bytearray(1), 0))
            assert len(context.getevents(timeout=timeout)) == 1  # type: ignore[arg-type]
        for timeout in (Decimal("0.001"), Fraction(1, 1000), 1e-12, -0.0):
            assert context.getevents(timeout=timeout) == []  # type: ignore[arg-type]
        for timeout in (math.nan, -math.inf, -1e-12, Decimal(-1)):
            with pytest.raises(ValueError, match="timeout must not be"):
                context.getevents(timeout=timeout)  # type: ignore[arg-type]
        for bad in ("1", b"1", timedelta(seconds=1)):
            with pytest.raises(TypeError, match="real number"):
                context.getevents(timeout=bad)  # type: ignore[arg-type]


def test_any_number_of_events_may_be_asked_for(fd: int) -> None:
    """Up to as many as there are; no memory is taken for those that cannot be."""
    with Context(4) as context:
        for nr in (1 << 31, sys.maxsize, 1 << 70):
            context.submit(prep_pread(fd, bytearray(1), 0))
            assert len(context.getevents(1, nr)) == 1
        wrong: tuple[tuple[Any, ...], ...] = ((1.5,), ("1",), (0, 1.5), (0, None, "x"))
        for numbers in wrong:
            with pytest.raises(TypeError):
                context.getevents(*numbers)


def test_a_signal_interrupts_only_if_its_handler_raises(stall: Stall, stalled_fd: int) -> None:
    """The handler runs during the wait; after it the wait goes on, unless it raised."""
    calls = []

    class Stop(Exception):  # noqa: N818
        pass

    def handler(number: int, frame: object) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise Stop

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with Context(4) as context:
            with stall.holding():
                # Two, so that nobody who waits for one of them has to run it.
                context.submit([prep_pread(stalled_fd, bytearray(1), 0), prep_pread(stalled_fd, bytearray(1), 1)])
                for timeout in (None, 60):
                    calls.clear()
                    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
                    with pytest.raises(Stop):
                        context.getevents(timeout=timeout)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    assert len(calls) == 2
            assert len(context.getevents(2)) == 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_fileno_counts_events(fd: int, stall: Stall, stalled_fd: int) -> None:
    """The eventfd becomes readable with the events of requests submitted after it was made."""
    with Context(4) as context:
        assert finish(context, prep_pread(fd, bytearray(1), 0)) == [1]
        eventfd = context.fileno()
        assert context.fileno() == eventfd
        poller = select.poll()
        poller.register(eventfd, select.POLLIN)
        with stall.holding():
            context.submit([prep_pread(stalled_fd, bytearray(1), 0), prep_pread(stalled_fd, bytearray(1), 1)])
            assert poller.poll(0) == []
        assert poller.poll() == [(eventfd, select.POLLIN)]
        assert len(context.getevents(2)) == 2
        wait_until(lambda: bool(poller.poll()))
        counted = os.eventfd_read(eventfd)
        while counted < 2:
            poller.poll()
            counted += os.eventfd_read(eventfd)
        assert counted == 2
        with pytest.raises(BlockingIOError):
            os.eventfd_read(eventfd)
    with raises_errno(errno.EBADF):
        os.fstat(eventfd)


def test_a_request_loses_the_eventfd_of_another_context(fd: int) -> None:
    """Submitted to a context without an eventfd, a request raises none."""
    request = prep_pread(fd, bytearray(1), 0)
    with Context(4) as loud, Context(4) as silent:
        loud.fileno()
        assert finish(loud, request) == [1]
        assert os.eventfd_read(loud.fileno()) == 1
        assert finish(silent, request) == [1]
        with pytest.raises(BlockingIOError):
            os.eventfd_read(loud.fileno())


def test_closed_means_closed(fd: int) -> None:
    """close() is idempotent; afterwards everything is ValueError, as in io."""
    context = Context(4)
    with context:
        context.fileno()
        assert not context.closed
    context.close()
    assert context.closed
    assert "closed" in repr(context)
    request = prep_pread(fd, bytearray(1), 0)
    for use in (
        lambda: context.submit(request),
        lambda: context.submit_all([request]),
        context.getevents,
        context.fileno,
        lambda: context.cancel(request),
        context.__enter__,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_close_waits_for_what_runs(stall: Stall, stalled_fd: int) -> None:
    """Buffers may be reused right after close: nothing is written into them any more."""
    buffer = bytearray(BLOCK)
    request = prep_pread(stalled_fd, buffer, 0)
    context = Context(4)
    with stall.holding():
        context.submit(request)
        stall.wait_until_held(1)
        closer = threading.Thread(target=context.close)
        closer.start()
        closer.join(0.05)
        assert closer.is_alive()
    closer.join()
    assert bytes(buffer) == b"A" * BLOCK
    assert not request.busy


def test_close_wakes_who_waits() -> None:
    """A thread in getevents gets ValueError when another one closes the context."""
    context = Context(4)
    errors: list[BaseException] = []
    inside = threading.Event()

    def wait() -> None:
        inside.set()
        try:
            context.getevents(1)
        except ValueError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    inside.wait()
    time.sleep(0.02)
    context.close()
    waiter.join()
    assert len(errors) == 1


def test_bad_depths_are_refused() -> None:
    """EINVAL or EAGAIN as io_setup says, with the depth; and nothing is left behind to warn about."""
    for depth in (0, 2**31 - 1):
        with pytest.raises(OSError, match=f"(Invalid argument|unavailable): depth={depth}$"):
            Context(depth)
    for depth in (-1, 1 << 32):
        with pytest.raises(OverflowError, match=f"depth={depth}"):
            Context(depth)
    with pytest.raises(TypeError, match="depth must be an int, not str"):
        Context("128")  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


def test_a_forgotten_context_is_named(fd: int) -> None:
    """ResourceWarning, and the context is closed."""
    context = Context(4)
    context.submit(prep_pread(fd, bytearray(1), 0))
    with pytest.warns(ResourceWarning, match=r"unclosed <libaio_shim.Context depth=4 in_flight=1>"):  # noqa: PT031
        del context
        gc.collect()


def test_many_threads_share_a_context(fd: int, payload: bytes) -> None:
    """Submitters and reapers in any number: every event is returned exactly once."""
    total = 4000
    seen: list[Event] = []
    context = Context(64)

    def submit(which: int) -> None:
        for i in range(total // 4):
            request = prep_pread(fd, bytearray(1), (i * 4 + which) % len(payload))
            while True:
                try:
                    context.submit(request)
                    break
                except BlockingIOError:
                    time.sleep(0)

    def reap() -> None:
        while len(seen) < total:
            seen.extend(context.getevents(1, 16, timeout=0.05))

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(4)]
    threads += [threading.Thread(target=reap) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context.close()
    assert len(seen) == len({id(event.iocb) for event in seen}) == total
    assert all(event.res == 1 and event.iocb.buffer[0] == payload[event.iocb.offset] for event in seen)


def test_statistics_tell_who_did_the_work(fd: int) -> None:
    """A cached read is finished by the head lane (or whoever must, where NOWAIT is refused)."""
    before = stats()
    with Context(1) as context:
        finish(context, prep_pread(fd, bytearray(BLOCK), 0))
    after = stats()
    assert after.contexts == before.contexts + 1
    assert after.submitted == before.submitted + 1


def test_representations_are_readable(fd: int) -> None:
    """What a debugger shows."""
    request = prep_pread(fd, bytearray(3), 5)
    assert repr(request) == f"<Iocb pread fd={fd} nbytes=3 offset=5>"
    assert repr(Event((request, 3, 0))) == f"Event(iocb={request!r}, res=3, res2=0)"
    with Context(7) as context:
        assert repr(context) == "<libaio_shim.Context depth=7 in_flight=0>"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("rwv"), st.integers(0, 20_000), st.integers(0, 9_000), st.integers(0, 255)),
        max_size=20,
    )
)
def test_a_file_is_what_was_written_to_it(tmp_path_factory: Any, steps: list[tuple[str, int, int, int]]) -> None:
    """Any sequence of reads and writes gives what the same on a bytearray gives."""
    model = bytearray()
    path = tmp_path_factory.getbasetemp() / "model"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        with Context(2) as context:
            for kind, offset, size, value in steps:
                if kind == "w":
                    assert finish(context, prep_pwrite(fd, bytes([value]) * size, offset)) == [size]
                    if size:
                        model.extend(bytes(max(0, offset + size - len(model))))
                        model[offset : offset + size] = bytes([value]) * size
                    continue
                buffer = bytearray(size)
                half = memoryview(buffer)
                parts = [half[: size // 2], half[size // 2 :]]
                request = prep_pread(fd, buffer, offset) if kind == "r" else prep_preadv(fd, parts, offset)
                expected = model[offset : offset + size]
                assert finish(context, request) == [len(expected)]
                assert buffer[: len(expected)] == expected
    finally:
        os.close(fd)
        path.unlink()


def test_what_is_no_request_is_refused(fd: int) -> None:
    """TypeError; what stood before it in the sequence is not in flight either."""
    request = prep_pread(fd, bytearray(1), 0)
    with Context(4) as context:
        for bad in ([request, 1], [request, None], "x"):
            with pytest.raises(TypeError, match="prep_"):
                context.submit(bad)  # type: ignore[arg-type]
            assert not request.busy
        assert context.in_flight == 0
        assert context.submit(request) == 1


def test_a_request_of_nobody_s_making_is_refused(fd: int) -> None:
    """Iocb is public, its constructor makes nothing that can be submitted; it can be shown all the same."""
    request = Iocb()
    assert not request.busy
    assert repr(request) == "<Iocb pread fd=0 nbytes=0 offset=0>"
    with Context(4) as context:
        with pytest.raises(TypeError, match="prep_"):
            context.submit(request)
        with pytest.raises(ValueError, match="not in flight"):
            context.cancel(request)
        with pytest.raises(TypeError, match="NoneType"):
            context.cancel(None)  # type: ignore[arg-type]


def test_what_is_refused_in_any_collection_is_free_again(fd: int) -> None:
    """Also where places are not numbers, and where the list is changed while the engine has it."""
    good, bad = prep_pread(fd, bytearray(1), 0), prep_pread(-1, bytearray(1), 0)
    with Context(4) as context:
        assert context.submit(dict.fromkeys([good, bad])) == 1  # type: ignore[arg-type]
        assert (good.busy, bad.busy) == (True, False)
        context.getevents()
        assert context.submit(request for request in (good, bad)) == 1  # type: ignore[arg-type]
        assert (good.busy, bad.busy) == (True, False)
        context.getevents()
        with pytest.raises(SubmitError) as caught:
            context.submit_all(request for request in (good, bad))  # type: ignore[arg-type]
        assert caught.value.iocb is bad
        context.getevents()
