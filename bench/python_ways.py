"""The ways of reading files from Python that bench/python.py compares: one function each, and what it needs."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libaio_shim
import libaio_shim.asyncio
import libaio_shim.caio

TICK_SECONDS = 0.0005


@dataclass
class Job:
    """One row's work for one way of doing it, and what came of it."""

    path: Path
    fd: int
    size: int
    depth: int
    offsets: Sequence[int]
    watch: bool = False
    seconds: float = 0.0
    stall_seconds: float = 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """The part that counts."""
        begin = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - begin

    async def run(self, readers: Sequence[Callable[[int], Awaitable[object]]]) -> None:
        """The reads, by one task for each reader."""

        async def worker(reader: Callable[[int], Awaitable[object]], offsets: Sequence[int]) -> None:
            for offset in offsets:
                await reader(offset)

        ticker = asyncio.ensure_future(self._tick()) if self.watch else None
        await asyncio.sleep(0.005)
        count = len(readers)
        with self.timed():
            if count == 1:
                await worker(readers[0], self.offsets)
            else:
                await asyncio.gather(*(worker(reader, self.offsets[i::count]) for i, reader in enumerate(readers)))
        if ticker:
            await asyncio.sleep(2 * TICK_SECONDS)
            ticker.cancel()

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.perf_counter()
            self.stall_seconds = max(self.stall_seconds, now - last - TICK_SECONDS)
            last = now


@dataclass
class Way:
    """A way of reading files."""

    name: str
    work: Callable[[Job], Any]
    needs: str = ""
    peer: bool = True

    def missing(self) -> str:
        """Why it cannot take part."""
        for module in filter(None, self.needs.split(",")):
            try:
                importlib.import_module(module)
            except (ImportError, OSError) as error:
                return str(error)
        return self._fails() if self.peer else ""

    def _fails(self) -> str:
        """Why it does not work: tried in another process, for one that was compiled for other processors ends it."""
        if not self.needs:
            return ""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with Path("/dev/null").open("w") as nothing:
                    os.dup2(nothing.fileno(), 2)
                fd = os.open(__file__, os.O_RDONLY)
                self.work(Job(Path(__file__), fd, 512, 2, [0, 512]))
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return "" if status == 0 else f"killed by {signal.strsignal(-status)}" if status < 0 else "a first try failed"


# Ways without an event loop


def os_pread(job: Job) -> None:
    fd, size = job.fd, job.size
    with job.timed():
        for offset in job.offsets:
            os.pread(fd, size, offset)


def os_preadv(job: Job) -> None:
    fd = job.fd
    buffers = [bytearray(job.size)]
    with job.timed():
        for offset in job.offsets:
            os.preadv(fd, buffers, offset)


def shim_context(job: Job) -> None:
    """Context.submit and getevents: prepared requests, as many as the depth in a batch."""
    with libaio_shim.Context(job.depth) as context:
        requests = [libaio_shim.prep_pread(job.fd, bytearray(job.size), 0) for _ in range(job.depth)]
        with job.timed():
            for i in range(0, len(job.offsets), job.depth):
                for request, offset in zip(requests, job.offsets[i : i + job.depth], strict=False):
                    request.offset = offset
                context.submit(requests)
                for event in context.getevents(job.depth):
                    event.check()


def shim_batch(job: Job) -> None:
    """Batch.run: the same, without an object for every request and event."""
    with libaio_shim.Batch(job.fd, [bytearray(job.size) for _ in range(job.depth)]) as batch, job.timed():
        for i in range(0, len(job.offsets), job.depth):
            batch.run(job.offsets[i : i + job.depth])


def python_libaio(job: Job) -> None:
    import libaio

    with libaio.AIOContext(job.depth) as context, job.path.open("rb") as file:
        buffers = [bytearray(job.size) for _ in range(job.depth)]
        with job.timed():
            for i in range(0, len(job.offsets), job.depth):
                blocks = [
                    libaio.AIOBlock(libaio.AIOBLOCK_MODE_READ, file, [buffer], offset)
                    for buffer, offset in zip(buffers, job.offsets[i : i + job.depth], strict=False)
                ]
                context.submit(blocks)
                context.getEvents(min_nr=job.depth)


def liburing_batch(job: Job) -> None:
    import liburing as u

    # Renamed in 2026.
    ring, cqe = (u.Ring(), u.Cqe()) if hasattr(u, "Ring") else (u.io_uring(), u.io_uring_cqe())
    u.io_uring_queue_init(job.depth, ring)
    buffers = [bytearray(job.size) for _ in range(job.depth)]
    try:
        with job.timed():
            for i in range(0, len(job.offsets), job.depth):
                for k, offset in enumerate(job.offsets[i : i + job.depth]):
                    sqe = u.io_uring_get_sqe(ring)
                    u.io_uring_prep_read(sqe, job.fd, buffers[k], job.size, offset)
                    sqe.user_data = k + 1
                u.io_uring_submit(ring)
                for _ in range(job.depth):
                    u.io_uring_wait_cqe(ring, cqe)
                    entry = cqe[0]
                    if entry.res != job.size:
                        raise OSError(f"read {entry.res} bytes")
                    u.io_uring_cqe_seen(ring, entry)
    finally:
        u.io_uring_queue_exit(ring)


# Ways for coroutines


def shim_read(job: Job) -> None:
    async def main() -> None:
        async with libaio_shim.asyncio.AsyncContext() as context:

            def read(offset: int) -> Awaitable[bytes]:
                return context.read(job.fd, job.size, offset)

            await job.run([read] * job.depth)

    asyncio.run(main())


def shim_read_into(job: Job) -> None:
    async def main() -> None:
        async with libaio_shim.asyncio.AsyncContext() as context:
            fd = job.fd

            def reader() -> Callable[[int], Awaitable[int]]:
                buffer = bytearray(job.size)

                def read(offset: int) -> Awaitable[int]:
                    return context.read_into(fd, buffer, offset)

                return read

            await job.run([reader() for _ in range(job.depth)])

    asyncio.run(main())


def shim_file(job: Job) -> None:
    async def main() -> None:
        async with libaio_shim.asyncio.open(job.path, "rb") as file:

            def read(offset: int) -> Awaitable[bytes]:
                return file.pread(job.size, offset)

            await job.run([read] * job.depth)

    asyncio.run(main())


def idle(job: Job) -> None:
    """Nothing, for about as long as the reads take."""

    async def main() -> None:
        async def wait(offset: int) -> None:
            await asyncio.sleep(0.2)

        job.offsets = job.offsets[: job.depth]
        await job.run([wait] * job.depth)

    asyncio.run(main())


def to_thread(job: Job) -> None:
    async def main() -> None:
        def read(offset: int) -> Awaitable[bytes]:
            return asyncio.to_thread(os.pread, job.fd, job.size, offset)

        await job.run([read] * job.depth)

    asyncio.run(main())


def by_aiofiles(job: Job) -> None:
    import aiofiles

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:

            async def reader() -> Callable[[int], Awaitable[bytes]]:
                file = await stack.enter_async_context(aiofiles.open(job.path, "rb"))

                async def read(offset: int) -> Any:
                    await file.seek(offset)
                    return await file.read(job.size)

                return read

            await job.run([await reader() for _ in range(job.depth)])

    asyncio.run(main())


def by_anyio(job: Job) -> None:
    import anyio

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:

            async def reader() -> Callable[[int], Awaitable[bytes]]:
                file = await stack.enter_async_context(await anyio.open_file(job.path, "rb"))

                async def read(offset: int) -> Any:
                    await file.seek(offset)
                    return await file.read(job.size)

                return read

            await job.run([await reader() for _ in range(job.depth)])

    asyncio.run(main())


def by_aiofile(module: str) -> Callable[[Job], None]:
    """aiofile on one of caio's implementations, or on ours."""

    def work(job: Job) -> None:
        import aiofile

        async def main() -> None:
            async with (
                importlib.import_module(module).AsyncioContext(max(job.depth, 32)) as context,
                aiofile.AIOFile(str(job.path), "rb", context=context) as file,
            ):

                def read(offset: int) -> Awaitable[bytes]:
                    return file.read_bytes(job.size, offset)

                await job.run([read] * job.depth)

        asyncio.run(main())

    return work


SHIM = Way("libaio_shim AsyncContext.read", shim_read, peer=False)
SHIM_INTO = Way("libaio_shim AsyncContext.read_into", shim_read_into, peer=False)
SHIM_FILE = Way("libaio_shim asyncio.open().pread", shim_file, peer=False)
SHIM_CAIO = Way("aiofile on libaio_shim.caio", by_aiofile("libaio_shim.caio"), "aiofile", peer=False)
SHIM_CONTEXT = Way("libaio_shim Context.submit, getevents", shim_context, peer=False)
SHIM_BATCH = Way("libaio_shim Batch.run", shim_batch, peer=False)
IDLE = Way("(a loop that has nothing to do)", idle, peer=False)
PREAD = Way("os.pread loop", os_pread)
PREADV = Way("os.preadv loop", os_preadv)
LIBAIO = Way("python-libaio, batches", python_libaio, "libaio")
LIBURING = Way("liburing, batches", liburing_batch, "liburing")
CAIO = [
    Way(f"aiofile on caio {name}", by_aiofile(f"caio.{module}_asyncio"), f"aiofile,caio.{module}_asyncio")
    for name, module in (
        ("linux_aio", "linux_aio"),
        ("linux_uring", "linux_uring"),
        ("thread_aio", "thread_aio"),
        ("python_aio", "python_aio"),
    )
]
THREAD = Way("asyncio.to_thread(os.pread)", to_thread)
AIOFILES = Way("aiofiles", by_aiofiles, "aiofiles")
ANYIO = Way("anyio.open_file", by_anyio, "anyio")
ASYNC = [*CAIO, THREAD, AIOFILES, ANYIO]
