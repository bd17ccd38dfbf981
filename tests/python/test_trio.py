"""`AsyncContext` on trio, and through anyio on both of its backends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import time
from typing import Any

import pytest
from python_tests import BLOCK, Stall, raises_errno

from libaio_shim.asyncio import AsyncContext

trio = pytest.importorskip("trio", reason="trio is not installed (pip install trio)")
anyio = pytest.importorskip("anyio", reason="anyio is not installed (pip install anyio)")


async def until(condition: Any) -> None:
    while not condition():
        await anyio.sleep(0.001)


@pytest.fixture(params=["trio", "asyncio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(main: Any, backend: str) -> None:
    async def limited() -> None:
        with anyio.fail_after(60):
            await main()

    anyio.run(limited, backend=backend)


def test_reads_quick_and_slow(backend: str, fd: int, stall: Stall, stalled_fd: int, payload: bytes) -> None:
    """What is cached and what must wait, from many tasks, through few slots."""

    async def main() -> None:
        async with AsyncContext(3) as ctx:
            results = {}

            async def read(i: int) -> None:
                results[i] = await ctx.read(stalled_fd if i % 2 else fd, BLOCK, i * BLOCK)

            with stall.holding():
                async with anyio.create_task_group() as group:
                    for i in range(16):
                        group.start_soon(read, i)
                    await until(lambda: ctx.in_flight == 3)
                    stall.release()
            assert b"".join(results[i] for i in range(16)) == payload

    run(main, backend)


def test_cancellation_keeps_the_rules(backend: str, stall: Stall, stalled_fd: int) -> None:
    """Queued: taken back.  A running read: abandoned.  A running read_into: finished first, then cancelled."""

    async def main() -> None:
        async with AsyncContext(2) as ctx:
            buffer = bytearray(4)
            ended: list[str] = []

            async def read() -> None:
                await ctx.read(stalled_fd, 4, 0)
                ended.append("read")

            async def write() -> None:
                await ctx.write(stalled_fd, b"never", 0)
                ended.append("write")

            with stall.holding():
                async with anyio.create_task_group() as group:
                    group.start_soon(read)
                    await until(lambda: stall.held() == 1)
                    group.cancel_scope.cancel()
                assert ctx.in_flight == 1
                async with anyio.create_task_group() as outer:
                    with anyio.CancelScope() as scope:
                        async with anyio.create_task_group() as group:
                            group.start_soon(ctx.read_into, stalled_fd, buffer, 0)
                            await until(lambda: ctx.in_flight == 2)
                            group.start_soon(write)
                            await until(lambda: ctx.waiting == 1)
                            scope.cancel()

                            async def release() -> None:
                                with anyio.CancelScope(shield=True):
                                    await until(lambda: ctx.waiting == 0)
                                    assert buffer == bytes(4)
                                    stall.release()

                            outer.start_soon(release)
                assert scope.cancelled_caught
            assert buffer == b"AAAA"
            assert ended == []
            await until(lambda: ctx.in_flight == 0)
            assert await ctx.read(stalled_fd, 4, 0) == b"AAAA"

    run(main, backend)


def test_polls_and_errors(backend: str) -> None:
    """Waiting for a socket, cancelling it, and an error."""

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            async with AsyncContext(2) as ctx:
                with anyio.move_on_after(0.02) as scope:
                    await ctx.poll(left, select.POLLIN)
                assert scope.cancelled_caught
                right.send(b"x")
                assert await ctx.poll(left, select.POLLIN) & select.POLLIN
                with raises_errno(errno.EBADF):
                    await ctx.read(-1, 1, 0)

    run(main, backend)


def test_aclose_in_the_turn_in_which_an_event_arrives(backend: str) -> None:
    """trio wakes the tasks of a turn in random order: the one that waits for events may come after the end."""

    async def main() -> None:
        for _ in range(20):
            left, right = socket.socketpair()
            with left, right:
                ctx = AsyncContext(2)

                async def poll(ctx: AsyncContext = ctx, left: socket.socket = left) -> None:
                    with contextlib.suppress(OSError):  # taken back, if the event came too late
                        await ctx.poll(left, select.POLLIN)

                async with anyio.create_task_group() as group:
                    group.start_soon(poll)
                    await until(lambda ctx=ctx: ctx.in_flight == 1)
                    right.send(b"x")
                    time.sleep(0.005)
                    await anyio.sleep(0)
                    ctx.close()

    run(main, backend)


def test_aclose_finishes_what_runs(backend: str, stall: Stall, stalled_fd: int) -> None:
    """Closing waits for a write that the device has."""

    async def main() -> None:
        ctx = AsyncContext(2)
        with stall.holding():
            async with anyio.create_task_group() as group:
                group.start_soon(ctx.write, stalled_fd, b"written", 0)
                await until(lambda: stall.held() == 1)
                group.start_soon(ctx.aclose)
                await until(lambda: ctx.closed)
                stall.release()
        assert os.pread(stalled_fd, 7, 0) == b"written"

    run(main, backend)


def test_cached_reads_give_turns(backend: str, fd: int) -> None:
    """Fairness is the loop's own checkpoint."""

    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await anyio.sleep(0)
                turns += 1

        async with AsyncContext(4) as ctx, anyio.create_task_group() as group:
            group.start_soon(other)
            await anyio.sleep(0)
            for _ in range(2000):
                await ctx.read(fd, BLOCK, 0)
            assert turns >= 3
            group.cancel_scope.cancel()

    run(main, backend)


def test_one_context_after_the_other_loop(fd: int, stalled_fd: int) -> None:
    """From asyncio to trio and back."""
    ctx = AsyncContext(4)

    async def main() -> None:
        assert await ctx.read(fd, 4, 0) == b"AAAA"
        os.posix_fadvise(stalled_fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert await ctx.read(stalled_fd, 4, 0) == b"AAAA"

    trio.run(main)
    asyncio.run(main())
    trio.run(main)
    ctx.close()


def test_trio_may_be_a_guest_of_asyncio(fd: int, stall: Stall, stalled_fd: int) -> None:
    """In guest mode it is trio that runs the coroutine, whatever loop asyncio knows of."""

    async def inside() -> bytes:
        async with AsyncContext(4) as ctx:
            await ctx.read(stalled_fd, 4, 0)
            data: bytes = await ctx.read(fd, 4, 0)
            return data

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            inside, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        data: bytes = (await done).unwrap()
        return data

    assert asyncio.run(main()) == b"AAAA"


def test_a_context_moves_between_kinds_of_loops(fd: int) -> None:
    """Also when all that it does is read cached data, which needs no loop but for a turn now and then."""

    async def reads() -> None:
        for _ in range(1000):
            assert await ctx.read(fd, 4, 0) == b"AAAA"

    ctx = AsyncContext(4)
    asyncio.run(reads())
    trio.run(reads)
    asyncio.run(reads())
    ctx.close()
