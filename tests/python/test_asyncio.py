"""`AsyncContext` on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from python_tests import BLOCK, Stall, in_child, raises_errno

from libaio_shim import AlignedBuffer, stats
from libaio_shim.asyncio import AsyncContext, _context, _core, _slots

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run[Any]]:
    """Runs a coroutine on one kind of event loop."""
    if request.param == "uvloop":
        uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed (pip install uvloop)")
        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = loop.run_until_complete(asyncio.wait_for(coroutine, 60))
        return result

    yield run
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture(params=[True, False], ids=["peek", "call"])
def peek(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to learn of an event: from the ring's memory, and by a call."""
    if request.param and not _slots.PEEK:
        pytest.skip("n/a: this processor orders loads differently")
    monkeypatch.setattr(_slots, "PEEK", request.param)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn of the loop takes long, however busy the machine is: after a long one the next request is queued."""
    for module in (_core, _context):
        monkeypatch.setattr(module, "perf_counter", lambda: 0.0)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the loop goes on meanwhile."""
    while not condition():
        await asyncio.sleep(0.001)


async def cancelled(task: Awaitable[Any]) -> bool:
    """Whether the task ended by cancellation."""
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def steps(coroutine: Coroutine[Any, Any, T]) -> tuple[int, T]:
    """How often a coroutine suspends when it is resumed at once, and its result."""
    count = 0
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return count, end.value
        count += 1


@pytest.mark.usefixtures("peek")
def test_every_request_does_what_it_says(run: Run[Any], path: Path, payload: bytes) -> None:
    """One of each, against the file itself."""

    async def main() -> None:
        left, right = socket.socketpair()
        with path.open("r+b", buffering=0) as file, left, right:
            async with AsyncContext(8) as ctx:
                assert await ctx.read(file, 10, BLOCK - 5) == payload[BLOCK - 5 : BLOCK + 5]
                assert await ctx.read(file.fileno(), BLOCK, len(payload) - 3) == payload[-3:]
                assert await ctx.read(file, 10, len(payload) + 5) == b""
                assert await ctx.read(file, 0, 0) == b""
                assert await ctx.read(file, 1 << 20, BLOCK) == payload[BLOCK:]
                buffer = bytearray(BLOCK)
                assert await ctx.read_into(file, buffer, 2 * BLOCK) == BLOCK
                assert buffer == payload[2 * BLOCK : 3 * BLOCK]
                assert await ctx.write(file, b"xyz", 3) == 3
                one, two = bytearray(4), bytearray(6)
                assert await ctx.readv(file, [one, two], 0) == 10
                assert one + two == b"AAAxyzAAAA"
                assert await ctx.writev(file, [b"1", memoryview(b"23")], 0) == 3
                await ctx.fsync(file)
                await ctx.fdatasync(file)
                assert await ctx.read_exactly(file, 6, 0) == b"123xyz"
                await ctx.write_all(file, memoryview(b"all"), len(payload))
                assert path.read_bytes()[-4:] == b"Pall"
                assert await ctx.poll(left, select.POLLOUT) == select.POLLOUT
                assert ctx.in_flight == 0

    run(main())


@pytest.mark.usefixtures("peek")
def test_what_is_cached_does_not_suspend(run: Run[Any], fd: int, payload: bytes) -> None:
    """A request that the head finished resolves within the call: the coroutine never reaches the loop."""

    async def main() -> None:
        async with AsyncContext(fair=False) as ctx:
            before = stats()
            await ctx.read(fd, BLOCK, 0)
            if stats().head == before.head:
                pytest.skip("n/a: the head does not read this file system")
            before = stats()
            for block in range(16):
                assert steps(ctx.read(fd, BLOCK, block * BLOCK)) == (0, payload[block * BLOCK :][:BLOCK])
            assert steps(ctx.read_into(fd, bytearray(BLOCK), 0)) == (0, BLOCK)
            assert steps(ctx.read(fd, 16 * BLOCK, 0)) == (0, payload)
            assert stats().head - before.head == stats().submitted - before.submitted == 18
            # Nothing was left behind that would wake the loop for nothing.
            with pytest.raises(BlockingIOError):
                os.eventfd_read(ctx._eventfd)

    run(main())


@pytest.mark.usefixtures("peek")
def test_what_is_cached_in_part_is_read_whole(run: Run[Any], fd: int, payload: bytes) -> None:
    """Behind a read that did not suspend comes one whose first blocks are in memory, and others not."""

    async def main() -> None:
        os.fsync(fd)
        async with AsyncContext() as ctx:
            for _ in range(8):
                assert await ctx.read(fd, BLOCK, 0) == payload[:BLOCK]
                os.posix_fadvise(fd, BLOCK, 0, os.POSIX_FADV_DONTNEED)
                assert await ctx.read(fd, 2 * BLOCK, 0) == payload[: 2 * BLOCK]
                assert await ctx.read(fd, 2 * BLOCK, 15 * BLOCK + 5) == payload[15 * BLOCK + 5 :]

    run(main())


@pytest.mark.usefixtures("peek")
def test_bytes_of_a_pipe_come_once_and_in_order(run: Run[Any]) -> None:
    """Those that are there, those that come later, and those behind a read that waits."""

    async def main() -> None:
        out, into = os.pipe()
        async with AsyncContext() as ctx:
            os.write(into, b"abcdefgh")
            for expected in (b"ab", b"cd"):
                assert await ctx.read(out, 2, 0) == expected
            assert await ctx.read(out, 100, 0) == b"efgh"
            tasks = [asyncio.ensure_future(ctx.read(out, 2, 0)) for _ in range(4)]
            await until(lambda: ctx.in_flight == 4)
            os.write(into, b"ijklmnop")
            assert await asyncio.gather(*tasks) == [b"ij", b"kl", b"mn", b"op"]
            os.set_blocking(out, False)
            for _ in range(2):
                with pytest.raises(BlockingIOError):
                    await ctx.read(out, 2, 0)
            os.write(into, b"qr")
            assert await ctx.read(out, 2, 0) == b"qr"
            assert ctx.in_flight == 0
        os.close(out)
        os.close(into)

    run(main())


@pytest.mark.usefixtures("peek")
def test_a_number_that_is_another_file_now_does_not_block_the_loop(
    run: Run[Any], stall: Stall, stalled_fd: int, fd: int, payload: bytes
) -> None:
    """What was known of a descriptor may be wrong a moment later."""

    async def main() -> None:
        async with AsyncContext() as ctx:
            number = os.dup(fd)
            with stall.holding():
                await ctx.read(number, 4, 0)
                await ctx.read(number, 4, 0)
                os.dup2(stalled_fd, number)
                task = asyncio.ensure_future(ctx.read(number, 4, BLOCK))
                await until(lambda: ctx.in_flight == 1)
                assert not task.done()
            assert await task == payload[BLOCK : BLOCK + 4]
            os.close(number)
            with pytest.raises(OSError, match="Bad file descriptor"):
                await ctx.read(number, 4, 0)

    run(main())


def test_others_get_their_turn(run: Run[Any], fd: int) -> None:
    """A task that reads nothing but cached data lets the loop turn now and then, unless told not to."""

    async def turns(ctx: AsyncContext, request: Callable[[], Awaitable[object]]) -> int:
        count = 0
        done = False

        async def other() -> None:
            nonlocal count
            while not done:
                count += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        await asyncio.sleep(0)
        count = 0
        for _ in range(2000):
            await request()
        seen = count
        done = True
        await task
        return seen

    async def main() -> None:
        left, right = socket.socketpair()
        async with AsyncContext() as fair, AsyncContext(fair=False) as unfair:
            await fair.read(fd, BLOCK, 0)
            if steps(fair.read(fd, BLOCK, 0))[0]:
                pytest.skip("n/a: the head does not read this file system")
            assert await turns(fair, lambda: fair.read(fd, BLOCK, 0)) >= 3
            assert await turns(fair, lambda: fair.read_into(fd, bytearray(BLOCK), 0)) >= 3
            assert await turns(fair, lambda: fair.poll(left, select.POLLOUT)) >= 3
            assert await turns(unfair, lambda: unfair.read(fd, BLOCK, 0)) == 0
        left.close()
        right.close()

    run(main())


def at_submits(monkeypatch: pytest.MonkeyPatch, note: Callable[[int], None]) -> None:
    """From now on each submit tells how many requests it gets."""
    submit, submit_one = _slots.submit, _slots.submit_one

    def noting(handle: object, count: int, iocbs: object) -> int:
        note(count)
        return submit(handle, count, iocbs)

    def noting_one(handle: object, iocb: object) -> int:
        note(1)
        return submit_one(handle, iocb)

    monkeypatch.setattr(_slots, "submit", noting)
    for module in (_core, _context):
        monkeypatch.setattr(module, "submit_one", noting_one)


def count_submits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each submit got, from now on."""
    batches: list[int] = []
    at_submits(monkeypatch, batches.append)
    return batches


@pytest.mark.usefixtures("peek")
def test_long_copies_leave_turns_between_them(
    run: Run[Any], fd: int, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that read much out of memory at the same time do so one after the other, where each read takes long.

    In between there are as many turns as a timer needs that has run out meanwhile.  One alone does not queue.
    """

    async def main() -> None:
        turn = 0

        async def count_turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        at: list[tuple[int, int]] = []
        async with AsyncContext(32) as ctx:
            await ctx.read(fd, BLOCK, 0)
            if steps(ctx.read(fd, BLOCK, 0))[0]:
                pytest.skip("n/a: the head does not read this file system")
            clock = iter(range(1000))  # a second for each read
            monkeypatch.setattr(_core, "_TURN_BYTES", len(payload))
            for module in (_core, _context):
                monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
            at_submits(monkeypatch, lambda count: at.append((turn, count)))
            counter = asyncio.ensure_future(count_turns())
            for _ in range(2):
                at.clear()
                results = await asyncio.gather(*(ctx.read(fd, len(payload), 0) for _ in range(8)))
                assert results == [payload] * 8
                assert [count for _, count in at] == [1] * 8
                assert all(later[0] - earlier[0] > _core.PAUSE_TURNS for earlier, later in pairwise(at)), at
            counter.cancel()
        async with AsyncContext() as alone:
            for _ in range(3):
                assert steps(alone.read(fd, len(payload), 0)) == (1 + _core.PAUSE_TURNS, payload)

    run(main())


@pytest.mark.usefixtures("peek")
def test_what_must_wait_shares_a_submit(
    run: Run[Any], stall: Stall, stalled_fd: int, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many requests in one loop turn the first goes alone, the others together."""

    async def main() -> None:
        async with AsyncContext(32) as ctx:
            with stall.holding():
                batches = count_submits(monkeypatch)
                tasks = [asyncio.ensure_future(ctx.read(stalled_fd, BLOCK, i * BLOCK)) for i in range(16)]
                await until(lambda: ctx.in_flight == 16)
                assert batches == [1, 15]
            assert b"".join(await asyncio.gather(*tasks)) == payload

    run(main())


def test_much_at_once_is_submitted_in_several_turns(
    run: Run[Any], stall: Stall, stalled_fd: int, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large reads may be copied inside submit: the loop turns between them."""

    async def main() -> None:
        async with AsyncContext(32) as ctx:
            with stall.holding():
                batches = count_submits(monkeypatch)
                tasks = [asyncio.ensure_future(ctx.read(stalled_fd, 1 << 20, 0)) for _ in range(4)]
                await until(lambda: ctx.in_flight == 4)
                assert batches == [1] * 4
            assert await asyncio.gather(*tasks) == [payload] * 4

    run(main())


def test_many_events_need_one_wake_up(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """What became ready while the loop was busy is taken all at once."""

    async def main() -> None:
        async with AsyncContext(32) as ctx:
            with stall.holding():
                tasks = [asyncio.ensure_future(ctx.read(stalled_fd, BLOCK, i * BLOCK)) for i in range(8)]
                await until(lambda: ctx.in_flight == 8)
                wakes = 0
                readable = ctx._readable

                def counting() -> None:
                    nonlocal wakes
                    wakes += 1
                    readable()

                asyncio.get_running_loop().add_reader(ctx._eventfd, counting)
            while not ctx_has_events(ctx, 8):
                pass  # the loop is busy
            await asyncio.gather(*tasks)
            assert wakes == 1

    def ctx_has_events(ctx: AsyncContext, count: int) -> bool:
        head, tail = ctx._header[2], ctx._header[3]
        return (tail - head) % ctx._nr >= count

    run(main())


def test_a_full_context_makes_wait(run: Run[Any], stall: Stall, stalled_fd: int, payload: bytes) -> None:
    """Never more than depth in flight, the rest waits its turn, in order, and none fails."""

    async def main() -> None:
        async with AsyncContext(3) as ctx:
            finished: list[int] = []

            async def read(i: int) -> bytes:
                data = await ctx.read(stalled_fd, 8, i * 8)
                finished.append(i)
                return data

            with stall.holding():
                tasks = [asyncio.ensure_future(read(i)) for i in range(20)]
                await until(lambda: ctx.in_flight == 3)
                await asyncio.sleep(0.01)
                assert (ctx.in_flight, ctx.waiting) == (3, 17)
            assert b"".join(await asyncio.gather(*tasks)) == payload[:160]
            assert ctx.waiting == ctx.in_flight == 0

    run(main())


@pytest.mark.usefixtures("peek")
def test_many_tasks_at_once(run: Run[Any], fd: int, stalled_fd: int, payload: bytes) -> None:
    """A mixture of quick and slow files, of reads and writes, far more than fit."""

    async def worker(ctx: AsyncContext, which: int) -> None:
        for i in range(40):
            offset = (which * 97 + i * 1009) % (len(payload) - 100)
            source = fd if (which + i) % 3 else stalled_fd
            assert await ctx.read(source, 100, offset) == payload[offset : offset + 100]
            if i % 7 == 0:
                await ctx.write_all(fd, payload[offset : offset + 100], offset)

    async def main() -> None:
        async with AsyncContext(7) as ctx:
            await asyncio.gather(*(worker(ctx, i) for i in range(30)))

    run(main())


@pytest.mark.usefixtures("peek")
def test_queued_requests_are_taken_back(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """Cancelled while it waits for a slot, a request never runs."""

    async def main() -> None:
        async with AsyncContext(1) as ctx:
            with stall.holding():
                first = asyncio.ensure_future(ctx.read(stalled_fd, 8, 0))
                await until(lambda: ctx.in_flight == 1)
                queued = asyncio.ensure_future(ctx.write(stalled_fd, b"never", 0))
                await until(lambda: ctx.waiting == 1)
                queued.cancel()
                assert await cancelled(queued)
                assert ctx.waiting == 0
            assert await first == b"A" * 8
            assert await ctx.read(stalled_fd, 8, 0) == b"A" * 8

    run(main())


@pytest.mark.usefixtures("peek")
def test_a_running_read_is_abandoned(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """The task is free at once; the device writes into memory that is still ours, and the slot comes back."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            for size in (8, 1 << 20):
                with stall.holding():
                    task = asyncio.ensure_future(ctx.read(stalled_fd, size, 0))
                    await until(lambda: stall.held() == 1)
                    task.cancel()
                    assert await cancelled(task)
                    assert ctx.in_flight == 1
                    gc.collect()
                await until(lambda: ctx.in_flight == 0)
                os.posix_fadvise(stalled_fd, 0, 0, os.POSIX_FADV_DONTNEED)

    run(main())


@pytest.mark.usefixtures("peek")
def test_a_running_read_into_finishes_first(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """However often it is cancelled; afterwards the buffer is the caller's again."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            buffer = bytearray(8)
            with stall.holding():
                task = asyncio.ensure_future(ctx.read_into(stalled_fd, buffer, 0))
                await until(lambda: stall.held() == 1)
                for _ in range(3):
                    task.cancel()
                    await asyncio.sleep(0.005)
                assert not task.done()
                with pytest.raises(BufferError):
                    buffer.clear()
            assert await cancelled(task)
            assert buffer == b"A" * 8
            assert ctx.in_flight == 0
            del task
            await asyncio.sleep(0)  # the loop's own handle for this step knows the task
            gc.collect()
            buffer.clear()

    run(main())


def test_a_running_write_finishes_first(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """A cancelled write is on the file when the cancellation is raised, not some time later."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            with stall.holding():
                task = asyncio.ensure_future(ctx.write(stalled_fd, b"written", 0))
                await until(lambda: stall.held() == 1)
                task.cancel()
                await asyncio.sleep(0.01)
                assert not task.done()
            assert await cancelled(task)
            assert os.pread(stalled_fd, 7, 0) == b"written"

    run(main())


def test_a_pending_poll_is_cancelled(run: Run[Any]) -> None:
    """A task that waits for a descriptor is free at once, and so is the slot soon."""

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            async with AsyncContext(1) as ctx:
                task = asyncio.ensure_future(ctx.poll(left, select.POLLIN))
                await until(lambda: ctx.in_flight == 1)
                task.cancel()
                assert await cancelled(task)
                await until(lambda: ctx.in_flight == 0)
                waiting = asyncio.ensure_future(ctx.poll(left, select.POLLIN))
                await asyncio.sleep(0)
                right.send(b"x")
                assert await waiting & select.POLLIN

    run(main())


@pytest.mark.usefixtures("peek")
@pytest.mark.parametrize("seed", range(2))
def test_a_storm_of_cancellations_loses_no_slot(
    run: Run[Any], stall: Stall, stalled_fd: int, fd: int, payload: bytes, seed: int
) -> None:
    """Requests of every kind on few slots, cancelled at random, while the slow file stops and goes on.

    Nobody gets what is not his, a cancelled write is done or never will be, and afterwards the context takes as many
    requests as before.
    """
    depth = 5
    random = Random(seed)  # noqa: S311  (the seed says which storm it was)

    async def worker(ctx: AsyncContext, left: socket.socket) -> None:
        # Each writes, to places of its own, what is there already; so whoever reads knows what he must find.
        source = stalled_fd if random.random() < 0.6 else fd
        offset = random.randrange(len(payload) - 20_000)
        size = random.choice([1, 100, BLOCK, 3 * BLOCK])
        expected = payload[offset : offset + size]
        kind = random.choice(["read", "read_into", "readv", "write", "writev", "fsync", "poll"])
        if kind == "read":
            assert await ctx.read(source, size, offset) == expected
        elif kind == "read_into":
            buffer = bytearray(size)
            try:
                assert await ctx.read_into(source, buffer, offset) == size
                assert buffer == expected
            finally:
                seen = bytes(buffer)
                await asyncio.shield(asyncio.sleep(0))
                assert buffer == seen  # nothing comes into it any more
        elif kind == "readv":
            parts = [bytearray(size), bytearray(7)]
            assert await ctx.readv(source, parts, offset) == size + 7
            assert b"".join(parts) == payload[offset : offset + size + 7]
        elif kind == "write":
            assert await ctx.write(source, expected, offset) == size
        elif kind == "writev":
            assert await ctx.writev(source, [expected, b""], offset) == size
        elif kind == "fsync":
            await ctx.fdatasync(source)
        else:
            # Now and then one that never becomes ready.
            await ctx.poll(left, random.choice([select.POLLOUT, select.POLLOUT, select.POLLIN]))

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            async with AsyncContext(depth) as ctx:
                tasks = []
                for which in range(300):
                    tasks.append(asyncio.ensure_future(worker(ctx, left)))
                    if which % 40 == 0:
                        random.choice([stall.hold, stall.release])()
                    if random.random() < 0.5:
                        await asyncio.sleep(random.choice([0, 0, 0.001]))
                    for _ in range(random.randrange(3)):
                        random.choice(tasks).cancel()
                stall.release()
                while not all(task.done() for task in tasks):
                    await asyncio.sleep(0.001)
                    for task in random.choices(tasks, k=10):
                        task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                wrong = [each for each in results if each and not isinstance(each, asyncio.CancelledError)]
                assert not wrong
                await until(lambda: ctx.in_flight == 0 and ctx.waiting == 0)
                await all_slots_are_there(ctx)
                assert os.pread(stalled_fd, len(payload), 0) == os.pread(fd, len(payload), 0) == payload

    async def all_slots_are_there(ctx: AsyncContext) -> None:
        with stall.holding():
            os.posix_fadvise(stalled_fd, 0, 0, os.POSIX_FADV_DONTNEED)
            tasks = [asyncio.ensure_future(ctx.write(stalled_fd, payload[:8], 0)) for _ in range(depth + 1)]
            await until(lambda: ctx.in_flight == depth and ctx.waiting == 1)
        assert await asyncio.gather(*tasks) == [8] * (depth + 1)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="n/a: asyncio.TaskGroup is new in 3.11")
def test_a_task_group_ends_with_its_requests(run: Run[Any], stall: Stall, stalled_fd: int, fd: int) -> None:
    """One that fails cancels the others: reads are left, what uses a buffer or writes has finished at the end."""

    async def main() -> None:
        async with AsyncContext(4) as ctx:
            buffer = bytearray(8)

            async def fail() -> None:
                await until(lambda: stall.held() == 3)  # all run: what still queues would be cancelled
                asyncio.get_running_loop().call_later(0.01, stall.release)
                await ctx.read(-1, 1, 0)

            os.posix_fadvise(stalled_fd, 0, 0, os.POSIX_FADV_RANDOM)  # one page each, or they would wait for another
            stall.hold()
            with pytest.raises(ExceptionGroup) as caught:  # noqa: F821, PT012
                async with asyncio.TaskGroup() as group:
                    group.create_task(ctx.read(stalled_fd, 8, 0))
                    group.create_task(ctx.read_into(stalled_fd, buffer, BLOCK))
                    group.create_task(ctx.write(stalled_fd, b"written", 2 * BLOCK))
                    group.create_task(fail())
            assert [error.errno for error in caught.value.exceptions] == [errno.EBADF]  # type: ignore[union-attr]
            assert buffer == b"B" * 8
            assert os.pread(stalled_fd, 7, 2 * BLOCK) == b"written"
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(ctx.read(fd, 4, i * BLOCK)) for i in range(16)]
            assert b"".join(read.result()[:1] for read in reads) == b"ABCDEFGHIJKLMNOP"

    run(main())


EXIT = """
import asyncio, os, sys, threading, time
import libaio_shim.asyncio as aio

path, how = sys.argv[1:]

async def main():
    ctx = aio.AsyncContext(4)
    fd = os.open(path, os.O_RDWR)
    file = await aio.open(path, "r+b")
    buffers = [bytearray(4096) for _ in range(6)]
    tasks = [asyncio.ensure_future(ctx.read_into(fd, buffer, 0)) for buffer in buffers]
    tasks.append(asyncio.ensure_future(ctx.write(fd, b"x", 0)))
    tasks.append(asyncio.ensure_future(ctx.read(fd, 4096, 0)))
    tasks.append(asyncio.ensure_future(file.read(4096)))
    left, right = os.pipe()
    tasks.append(asyncio.ensure_future(ctx.poll(left, 1)))
    while ctx.in_flight < 4:
        await asyncio.sleep(0.001)
    print("in flight", flush=True)
    if how == "exit":
        sys.exit(0)
    return ctx, file, buffers, tasks

loop = asyncio.new_event_loop()
kept = loop.run_until_complete(main())
if how == "closed":
    loop.close()
"""


@pytest.mark.parametrize("how", ["exit", "end", "closed"])
def test_the_interpreter_ends_with_requests_in_flight(stall: Stall, how: str) -> None:
    """Whether its loop was closed or not: it waits for the device, crashes nowhere and ends well."""
    command = [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", EXIT, str(stall.path), how]
    with stall.holding():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        said = process.stdout.readline()
        stall.release()
    _, errors = process.communicate(timeout=60)
    assert (said, process.returncode) == ("in flight\n", 0), errors
    assert "Fatal" not in errors


def test_timeouts_are_cancellations(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """wait_for works as with any awaitable."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            with stall.holding(), pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ctx.read(stalled_fd, 8, 0), 0.02)
            assert await asyncio.wait_for(ctx.read(stalled_fd, 8, 8), 60) == b"A" * 8

    run(main())


@pytest.mark.usefixtures("peek")
def test_errors_are_oserrors(run: Run[Any], fd: int, path: Path) -> None:
    """What submit refuses and what the event reports look the same."""

    async def main() -> None:
        readonly = os.open(path, os.O_RDONLY)
        direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            async with AsyncContext(4) as ctx:
                with raises_errno(errno.EBADF):
                    await ctx.read(-1, 10, 0)
                with raises_errno(errno.EBADF):
                    await ctx.write(readonly, b"x", 0)
                with raises_errno(errno.EINVAL):
                    await ctx.read(fd, 10, -1)
                with raises_errno(errno.EINVAL):
                    await ctx.read_into(direct, bytearray(10), 1)
                with raises_errno(errno.EOPNOTSUPP):
                    await ctx.read(fd, 10, 0, flags=1 << 30)
                with pytest.raises(asyncio.IncompleteReadError) as caught:
                    await ctx.read_exactly(fd, 100, os.fstat(fd).st_size - 1)
                assert caught.value.partial == b"P"
                for bad in ({"fd": "x"}, {"offset": "0"}, {"offset": 1.5}):
                    with pytest.raises(TypeError):
                        await ctx.read(**{"fd": fd, "n": 1, "offset": 0, **bad})  # type: ignore[arg-type]
                with pytest.raises(OverflowError):
                    await ctx.read(fd, 1, 1 << 70)
                with pytest.raises(OverflowError):
                    await ctx.read(fd, 1 << 70, 0)
                with pytest.raises(TypeError):
                    await ctx.read(fd, 1e6, 0)  # type: ignore[arg-type]
                with raises_errno(errno.EINVAL):
                    await ctx.read(fd, -1, 0)
                with pytest.raises(BufferError):
                    await ctx.read_into(fd, b"read-only", 0)
                assert ctx.in_flight == 0
                assert await ctx.read(fd, 1, 0) == b"A"
        finally:
            os.close(readonly)
            os.close(direct)

    run(main())


def test_errors_of_queued_requests_reach_their_own_task(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """A bad one in the middle of a shared submit fails alone."""

    async def main() -> None:
        async with AsyncContext(8) as ctx:
            with stall.holding():
                fds = [stalled_fd, stalled_fd, -1, stalled_fd, -1, -1, stalled_fd]
                tasks = [asyncio.ensure_future(ctx.read(fd, 4, 0)) for fd in fds]
                await until(lambda: ctx.in_flight == 4)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [getattr(result, "errno", result) for result in results] == [
                errno.EBADF if fd == -1 else b"AAAA" for fd in fds
            ]

    run(main())


def test_mistakes_are_told_the_same_when_requests_queue(run: Run[Any], stall: Stall, stalled_fd: int, fd: int) -> None:
    """TypeError and OverflowError at once, however full the context is."""

    async def main() -> None:
        async with AsyncContext(1) as ctx:
            with stall.holding():
                first = asyncio.ensure_future(ctx.read(stalled_fd, 4, 0))
                await until(lambda: ctx.in_flight == 1)
                for arguments in ((fd, 1, "x"), (fd, 1, 1.5), (fd, 1, None)):
                    with pytest.raises(TypeError, match="offset must be an int"):
                        await ctx.read(*arguments)
                for arguments in ((fd, 1, 1 << 63), (1 << 33, 1, 0)):
                    with pytest.raises(OverflowError, match="out of range"):
                        await ctx.read(*arguments)
                assert ctx.waiting == 0
            assert await first == b"AAAA"

    run(main())


def test_masks_of_polls_are_taken_whole(run: Run[Any]) -> None:
    """No fraction is dropped, nor what is beyond 64 bits."""

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            async with AsyncContext(1) as ctx:
                for mask in (-1, 1 << 64 | select.POLLOUT):
                    with pytest.raises(OverflowError, match="events"):
                        await ctx.poll(left, mask)
                with pytest.raises(TypeError):
                    await ctx.poll(left, 4.0)  # type: ignore[arg-type]

    run(main())


@pytest.mark.usefixtures("peek")
def test_who_had_company_waits_for_it(
    run: Run[Any], stall: Stall, stalled_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After several that shared a submit the next do so from the first on, and after one that was alone they do not."""

    async def main() -> None:
        async with AsyncContext(32) as ctx:

            async def in_flight(count: int) -> None:
                await until(lambda: ctx.in_flight == count)

            batches = count_submits(monkeypatch)
            for count, expected in ((8, [1, 7]), (8, [8]), (1, [1]), (8, [1, 7])):
                with stall.holding():
                    batches.clear()
                    tasks = [
                        asyncio.ensure_future(ctx.write(stalled_fd, b"x" * BLOCK, i * BLOCK)) for i in range(count)
                    ]
                    await in_flight(count)
                    assert batches == expected
                assert await asyncio.gather(*tasks) == [BLOCK] * count

    run(main())


@pytest.mark.usefixtures("peek")
def test_what_is_in_memory_goes_at_once_beside_what_waits(
    run: Run[Any], stall: Stall, stalled_fd: int, fd: int, payload: bytes
) -> None:
    """Requests that were queued because others wait show that it was not necessary: the next do not suspend."""

    async def main() -> None:
        async with AsyncContext(32) as ctx:
            await ctx.read(fd, BLOCK, 0)
            if steps(ctx.read(fd, BLOCK, 0))[0]:
                pytest.skip("n/a: the head does not read this file system")
            with stall.holding():
                waits = asyncio.ensure_future(ctx.read(stalled_fd, BLOCK, 0))
                await until(lambda: ctx.in_flight == 1)
                queued = await asyncio.gather(*(ctx.read(fd, BLOCK, i * BLOCK) for i in range(8)))
                assert b"".join(queued) == payload[: 8 * BLOCK]
                assert steps(ctx.read(fd, BLOCK, 0)) == (0, payload[:BLOCK])
            assert await waits == payload[:BLOCK]

    run(main())


def test_flags_are_one_requests_own(run: Run[Any], fd: int) -> None:
    """What a request was given does not stick to the slot: RWF_NOWAIT on a file that is not cached would fail."""

    async def main() -> None:
        async with AsyncContext(1) as ctx:
            await ctx.fsync(fd)
            await ctx.read(fd, 1, 0)
            await ctx.read_into(fd, bytearray(1), 0, flags=os.RWF_NOWAIT)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert await ctx.read(fd, 4, BLOCK) == b"BBBB"

    run(main())


def in_the_middle(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], after: Callable[[], None]) -> None:
    """The next submit of one request calls before and after around the engine's call."""
    submit_one = _slots.submit_one

    def once(handle: object, iocb: object) -> int:
        for module in (_core, _context):
            monkeypatch.setattr(module, "submit_one", submit_one)
        before()
        result = submit_one(handle, iocb)
        after()
        return result

    for module in (_core, _context):
        monkeypatch.setattr(module, "submit_one", once)


class Stop(BaseException):
    """What a signal handler raises: as KeyboardInterrupt, nothing that a loop would only log."""


def stop() -> None:
    raise Stop


def nothing() -> None:
    pass


@pytest.mark.usefixtures("peek")
@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("name", ["read", "read_into"])
def test_a_signal_handler_may_raise_around_a_submit(
    run: Run[Any], fd: int, payload: bytes, monkeypatch: pytest.MonkeyPatch, accepted: bool, name: str
) -> None:
    """Whether the request is in flight or not: the context goes on, and closes."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            await ctx.read(fd, 4, 0)
            in_the_middle(monkeypatch, *((nothing, stop) if accepted else (stop, nothing)))
            with pytest.raises(Stop):
                await (ctx.read(fd, 8, 0) if name == "read" else ctx.read_into(fd, bytearray(8), 0))
            for block in range(8):
                assert await ctx.read(fd, BLOCK, block * BLOCK) == payload[block * BLOCK :][:BLOCK]
            assert ctx.in_flight == (not accepted)

    run(main())


@pytest.mark.usefixtures("peek")
def test_a_buffer_that_a_signal_handler_left_in_flight_stays(
    run: Run[Any], stall: Stall, stalled_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device still writes into it; it is the caller's again after the event."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            buffer = bytearray(8)
            with stall.holding():
                in_the_middle(monkeypatch, nothing, stop)
                with pytest.raises(Stop):
                    await ctx.read_into(stalled_fd, buffer, 0)
                stall.wait_until_held(1)
                other = asyncio.ensure_future(ctx.read(stalled_fd, 4, BLOCK))
                await until(lambda: ctx.in_flight == 2)
                gc.collect()
                with pytest.raises(BufferError):
                    buffer.clear()
            assert await other == b"BBBB"
            await until(lambda: ctx.in_flight == 0)
            gc.collect()
            assert buffer == b"A" * 8
            buffer.clear()

    run(main())


def test_another_thread_is_refused_during_a_submit(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GIL is free then; who comes must not take the slot that is in the engine's hands."""
    ctx = AsyncContext(2)
    errors = []

    def other() -> None:
        try:
            asyncio.run(ctx.read(fd, 4, BLOCK))
        except RuntimeError as error:
            errors.append(str(error))

    def meanwhile() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    async def main() -> None:
        assert await ctx.read(fd, 4, 0) == b"AAAA"
        in_the_middle(monkeypatch, meanwhile, nothing)
        assert await ctx.read(fd, 4, 0) == b"AAAA"
        in_the_middle(monkeypatch, nothing, meanwhile)
        assert await ctx.read_into(fd, bytearray(4), 0) == 4

    asyncio.run(main())
    ctx.close()
    assert errors == ["the context is in use by an event loop of another thread"] * 2


def test_what_a_loop_left_queued_holds_up_nobody(stall: Stall, stalled_fd: int) -> None:
    """A loop that was stopped before its last turn; the next one's requests are submitted all the same."""
    ctx = AsyncContext(4)

    async def leave() -> None:
        with stall.holding():
            running = asyncio.ensure_future(ctx.read(stalled_fd, 4, 0))
            await until(lambda: ctx.in_flight == 1)
            tasks = [running, asyncio.ensure_future(ctx.read(stalled_fd, 4, 0))]
            await asyncio.sleep(0)
            assert ctx.waiting == 1
            left.extend(tasks)

    left: list[asyncio.Task[bytes]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    assert asyncio.run(asyncio.wait_for(ctx.read(stalled_fd, 4, BLOCK), 60)) == b"BBBB"
    ctx.close()
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


class Reluctant(AsyncContext):
    """A context whose requests transfer less than they are asked to."""

    at_most = 3

    def _start(self, opcode: int, fd: Any, memory: Any, nbytes: int, *rest: Any) -> int | None:
        return super()._start(opcode, fd, memory, min(nbytes, self.at_most), *rest)

    async def read(self, fd: Any, n: int, offset: int, *, flags: int = 0) -> bytes:
        return await super().read(fd, min(n, self.at_most), offset)


def test_transfers_longer_than_one_request(run: Run[Any], fd: int) -> None:
    """write_all goes on where a write was cut short, read_exactly likewise."""

    async def main() -> None:
        async with Reluctant(4) as ctx:
            await ctx.write_all(fd, b"0123456789", 5)
            assert await ctx.read_exactly(fd, 12, 4) == b"A0123456789A"
            ctx.at_most = 0
            with raises_errno(errno.EIO):
                await ctx.write_all(fd, b"x", 0)

    run(main())


def test_aclose_finishes_what_runs(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """Writes in flight and queued are on the file afterwards; new requests are refused meanwhile."""

    async def main() -> None:
        ctx = AsyncContext(2)
        with stall.holding():
            tasks = [asyncio.ensure_future(ctx.write(stalled_fd, b"%d" % i, i)) for i in range(5)]
            await until(lambda: ctx.waiting == 3)
            closer = asyncio.ensure_future(ctx.aclose())
            second = asyncio.ensure_future(ctx.aclose())
            await asyncio.sleep(0.01)
            assert not closer.done()
            assert ctx.closed
            with pytest.raises(ValueError, match="closed"):
                await ctx.read(stalled_fd, 1, 0)
        await asyncio.gather(closer, second)
        assert await asyncio.gather(*tasks) == [1] * 5
        assert os.pread(stalled_fd, 5, 0) == b"01234"
        await ctx.aclose()
        with pytest.raises(ValueError, match="closed"):
            async with ctx:
                pass

    run(main())


def test_aclose_takes_polls_and_queued_reads_back(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """What has no effect does not keep anyone from closing: its task gets ECANCELED."""

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            ctx = AsyncContext(2)
            poll = asyncio.ensure_future(ctx.poll(left, select.POLLIN))
            await until(lambda: ctx.in_flight == 1)
            with stall.holding():
                runs = asyncio.ensure_future(ctx.read(stalled_fd, 4, 0))
                await until(lambda: stall.held() == 1)
                queued = asyncio.ensure_future(ctx.read(stalled_fd, 4, 4))
                await until(lambda: ctx.waiting == 1)
                closer = asyncio.ensure_future(ctx.aclose())
                await asyncio.sleep(0.01)
                with raises_errno(errno.ECANCELED):
                    await queued
            await closer
            assert await runs == b"AAAA"
            with raises_errno(errno.ECANCELED):
                await poll

    run(main())


def test_close_blocks_until_nothing_runs(run: Run[Any], stall: Stall, stalled_fd: int) -> None:
    """close() for where nothing can be awaited: tasks get ECANCELED, buffers are free."""

    async def main() -> None:
        ctx = AsyncContext(1)
        buffer = bytearray(4)
        with stall.holding():
            runs = asyncio.ensure_future(ctx.read_into(stalled_fd, buffer, 0))
            await until(lambda: stall.held() == 1)
            queued = asyncio.ensure_future(ctx.read(stalled_fd, 4, 0))
            await until(lambda: ctx.waiting == 1)
            threading.Timer(0.05, stall.release).start()
            ctx.close()
            assert buffer == b"AAAA"
        for task in (runs, queued):
            with raises_errno(errno.ECANCELED):
                await task
        ctx.close()

    run(main())


def test_a_context_can_move_to_the_next_loop(fd: int) -> None:
    """asyncio.run after asyncio.run; also when the first loop ended while a request was abandoned in it."""
    ctx = AsyncContext(4)
    for _ in range(3):
        assert asyncio.run(ctx.read(fd, 4, 0)) == b"AAAA"
    ctx.close()


def test_two_loops_at_once_are_refused(stall: Stall, stalled_fd: int) -> None:
    """A context with requests in flight in one loop is not another one's."""
    ctx = AsyncContext(4)
    errors = []

    def other() -> None:
        try:
            asyncio.run(ctx.read(stalled_fd, 4, 0))
        except RuntimeError as error:
            errors.append(str(error))

    async def main() -> None:
        with stall.holding():
            task = asyncio.ensure_future(ctx.read(stalled_fd, 4, 0))
            await until(lambda: ctx.in_flight == 1)
            await asyncio.to_thread(other)
        assert await task == b"AAAA"

    asyncio.run(main())
    ctx.close()
    assert errors == ["the context is in use by an event loop of another thread"]


def test_no_loop_is_an_error(fd: int) -> None:
    """A coroutine that nobody runs has nobody to wake it."""
    ctx = AsyncContext(4)
    with pytest.raises(RuntimeError, match="no running event loop"):
        ctx.read(fd, 4, 0).send(None)
    ctx.close()


def test_a_loop_that_ends_early_harms_nobody(stall: Stall, stalled_fd: int) -> None:
    """The loop is gone, a request runs on: its memory stays until close."""
    ctx = AsyncContext(4)

    async def main() -> None:
        task = asyncio.ensure_future(ctx.read(stalled_fd, 4, 0))
        await until(lambda: stall.held() == 1)
        del task

    with stall.holding():
        asyncio.run(main())
        gc.collect()
        assert ctx.in_flight == 1
    ctx.close()


def test_a_forgotten_context_is_named(run: Run[Any], fd: int) -> None:
    """ResourceWarning while the loop still runs, and the loop does not hear of it again."""

    async def main() -> None:
        ctx = AsyncContext(4)
        await ctx.read(fd, 4, 0)
        with pytest.warns(ResourceWarning, match="unclosed <libaio_shim.asyncio.AsyncContext depth=4"):  # noqa: PT031
            del ctx
            gc.collect()
        await asyncio.sleep(0)

    run(main())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: fork in a process that has threads
def test_a_forked_child_has_a_dead_context(fd: int) -> None:
    """EINVAL; closing it there does not disturb the parent's loop."""

    async def main() -> None:
        async with AsyncContext(4) as ctx:
            await ctx.read(fd, 4, 0)

            def child() -> int:
                try:
                    ctx.read(fd, 4, 0).send(None)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        return 1
                except StopIteration:
                    return 2
                ctx.close()
                return 0

            assert in_child(child) == 0
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert await ctx.read(fd, 4, 0) == b"AAAA"

    asyncio.run(main())


def test_what_is_no_buffer_is_named(run: Run[Any], path: Path) -> None:
    """A str above all."""

    async def main() -> None:
        async with AsyncContext() as ctx:
            with path.open("r+b", buffering=0) as file:
                requests: list[Any] = [ctx.write, ctx.write_all, ctx.read_into]
                for request in requests:
                    with pytest.raises(TypeError, match="bytes-like object is required, not 'str'"):
                        await request(file, "text", 0)

    run(main())


def test_bad_depths_are_refused() -> None:
    """EINVAL as io_setup says."""
    with raises_errno(errno.EINVAL):
        AsyncContext(0)


def test_direct_io(run: Run[Any], path: Path, payload: bytes) -> None:
    """O_DIRECT with an AlignedBuffer, several at once."""

    async def main() -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            async with AsyncContext(8) as ctx:
                buffers = [AlignedBuffer(BLOCK) for _ in range(16)]
                sizes = await asyncio.gather(
                    *(ctx.read_into(fd, buffer, i * BLOCK) for i, buffer in enumerate(buffers))
                )
                assert sizes == [BLOCK] * 16
                assert b"".join(buffer[:] for buffer in buffers) == payload
        finally:
            os.close(fd)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="n/a: asyncio.timeout is new in 3.11")
def test_asyncio_timeout(stall: Stall, stalled_fd: int) -> None:
    """A time-out around a request that has to finish: TimeoutError, as soon as it has."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            buffer = bytearray(4)
            with pytest.raises(TimeoutError), stall.holding():  # noqa: PT012
                asyncio.get_running_loop().call_later(0.05, stall.release)
                async with asyncio.timeout(0.02):
                    await ctx.read_into(stalled_fd, buffer, 0)
            assert buffer == b"AAAA"

    asyncio.run(main())
