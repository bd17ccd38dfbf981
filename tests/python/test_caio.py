"""`libaio_shim.caio`: what uses caio does not notice."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import os
import select
import shutil
import sys
import warnings
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from python_tests import BLOCK, raises_errno

import libaio_shim.caio
from libaio_shim import stats

caio = pytest.importorskip("caio", reason="caio is not installed (pip install caio)")
aiofile = pytest.importorskip("aiofile", reason="aiofile is not installed (pip install aiofile)")


@pytest.fixture
def installed() -> Iterator[Any]:
    """caio with this implementation inside."""
    yield libaio_shim.caio.install()
    libaio_shim.caio.uninstall()


def test_every_name_of_caio_s_is_here() -> None:
    """Whatever caio's abstract classes and its asyncio base declare, with the same parameters first."""
    import inspect

    from caio.abstract import AbstractContext, AbstractOperation
    from caio.asyncio_base import AsyncioContextBase

    pairs = [
        (AbstractContext, libaio_shim.caio.Context),
        (AbstractOperation, libaio_shim.caio.Operation),
        (AsyncioContextBase, libaio_shim.caio.AsyncioContext),
    ]
    for theirs, ours in pairs:
        for name in vars(theirs):
            if name.startswith("_"):
                continue
            assert hasattr(ours, name), name
            if inspect.isfunction(inspect.unwrap(getattr(theirs, name))):
                expected = list(inspect.signature(getattr(theirs, name)).parameters)
                assert list(inspect.signature(getattr(ours, name)).parameters)[: len(expected)] == expected, name


def test_install_is_seen_by_those_who_ask_caio(installed: Any) -> None:
    """The names at the top of caio are ours until uninstall."""
    assert installed is caio
    assert caio.AsyncioContext is libaio_shim.caio.AsyncioContext
    assert caio.preferred.Context is caio.Context is libaio_shim.caio.Context
    assert caio.preferred_asyncio.AsyncioContext is libaio_shim.caio.AsyncioContext
    libaio_shim.caio.install()
    libaio_shim.caio.uninstall()
    assert caio.Context is not libaio_shim.caio.Context


def test_aiofile_runs_on_a_context_that_is_given(tmp_path: Path) -> None:
    """async_open(..., context=ctx), text and binary, as in aiofile's own documentation."""

    async def main() -> None:
        before = stats()
        async with libaio_shim.caio.AsyncioContext() as context:
            path = str(tmp_path / "file")
            async with aiofile.async_open(path, "w+", context=context) as file:
                await file.write("Hello ")
                await file.write("world")
                file.seek(0)
                assert await file.read() == "Hello world"
                await file.write("\nsecond\nthird\n")
                file.seek(0)
                assert [line async for line in file] == ["Hello world\n", "second\n", "third\n"]
            async with aiofile.AIOFile(path, "rb", context=context) as file:
                reader = aiofile.Reader(file, chunk_size=4)
                assert b"".join([chunk async for chunk in reader]) == b"Hello world\nsecond\nthird\n"
                await file.fsync()
        assert stats().submitted > before.submitted

    asyncio.run(main())


@pytest.mark.usefixtures("installed")
def test_aiofile_runs_on_its_own_context_after_install(tmp_path: Path) -> None:
    """Nothing is passed: aiofile asks caio for a context; a second loop gets its own."""

    async def main() -> None:
        async with aiofile.async_open(tmp_path / "file", "wb+") as file:
            await file.write(b"x" * 10_000)
            file.seek(5)
            assert await file.read(20_000) == b"x" * 9995

    for _ in range(2):
        before = stats().submitted
        asyncio.run(main())
        assert stats().submitted > before


def test_aiofile_copies_a_gibibyte(tmp_path: Path) -> None:
    """The copy has the same checksum."""
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("less than 4 GiB are free for temporary files (set TMPDIR)")
    source, target = tmp_path / "source", tmp_path / "target"
    written = hashlib.blake2b()
    random = os.urandom(2 << 20)
    with source.open("wb") as file:
        for i in range(1024):
            # No two blocks alike, and none of them where a block would be.
            block = random[i * 997 : i * 997 + (1 << 20)]
            written.update(block)
            file.write(block)

    async def main() -> None:
        async with (
            libaio_shim.caio.AsyncioContext() as context,
            aiofile.async_open(source, "rb", context=context) as read,
            aiofile.async_open(target, "wb", context=context) as write,
        ):
            async for chunk in read.iter_chunked(256 * 1024):
                await write.write(chunk)

    asyncio.run(main())
    copied = hashlib.blake2b()
    with target.open("rb") as copy:
        while block := copy.read(1 << 20):
            copied.update(block)
    source.unlink()
    target.unlink()
    assert copied.digest() == written.digest()


def test_operations_and_callbacks(fd: int, payload: bytes) -> None:
    """The low level: eventfd, process_events, callbacks, values."""
    context = libaio_shim.caio.Context(max_requests=8)
    assert context.max_requests == 8
    Operation = libaio_shim.caio.Operation  # noqa: N806
    read = Operation.read(BLOCK, fd, BLOCK)
    write = Operation.write(b"written", fd, 0, priority=3)
    bad = Operation.read(10, fd, 0)
    results: dict[str, int] = {}
    for name, operation in (("read", read), ("write", write)):
        assert operation.set_callback(partial(results.__setitem__, name))
    assert (read.fileno, read.offset, read.nbytes, write.priority) == (fd, BLOCK, BLOCK, 3)
    assert write.payload == b"written"
    assert context.submit(read, write) == 2
    assert context.submit(read) == 0  # as in caio: once and no more
    done = 0
    poller = select.poll()
    poller.register(context.fileno, select.POLLIN)
    while done < 2:
        assert poller.poll(10_000)
        context.poll()
        done += context.process_events()
    assert results == {"read": BLOCK, "write": 7}
    assert read.get_value() == payload[BLOCK : 2 * BLOCK]
    assert write.get_value() == 7
    assert read.context is context
    sync, data = Operation.fsync(fd), Operation.fdsync(fd)
    context.submit(sync, data)
    assert context.process_events(min_requests=2, timeout=-1) == 2
    assert sync.get_value() is data.get_value() is None
    assert bad.get_value() == b""
    assert context.cancel(bad) == 0
    failing = Operation.read(10, -1, 0)
    with raises_errno(errno.EBADF):
        context.submit(failing)
    text: Any = "x"
    for wrong in (lambda: context.submit(text), lambda: bad.set_callback(text), lambda: Operation.write(text, fd, 0)):
        with pytest.raises(ValueError, match=r"must|Invalid"):
            wrong()
    context.close()


def finish(context: Any, count: int) -> None:
    """Waits until count callbacks were called."""
    assert context.process_events(min_requests=count, timeout=-1) == count


def test_process_events_waits_as_caio_s_does(fd: int) -> None:
    """Not at all unless told to, for ever if the time-out is negative; impossible numbers are ValueError."""
    context = libaio_shim.caio.Context(8)
    assert context.process_events(min_requests=1) == 0
    assert context.process_events(min_requests=1, timeout=0) == 0
    for numbers in ({"max_requests": 1, "min_requests": 5}, {"min_requests": -1}, {"max_requests": -1}):
        with pytest.raises(ValueError, match="min_requests"):
            context.process_events(**numbers)
    context.submit(libaio_shim.caio.Operation.fsync(fd))
    finish(context, 1)
    context.close()


def test_an_operation_tells_nothing_while_in_flight(fd: int) -> None:
    """RuntimeError for its value and its payload until its event was processed."""
    context = libaio_shim.caio.Context(8)
    operation = libaio_shim.caio.Operation.read(4, fd, 0)
    context.submit(operation)
    for use in (lambda: operation.payload, operation.get_value):
        with pytest.raises(RuntimeError, match="in flight"):
            use()
    finish(context, 1)
    assert operation.get_value() == b"AAAA"
    context.close()


def test_a_callback_that_raises_takes_no_other_s_event(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are called, what they raise is reported as unraisable, as caio does."""
    context = libaio_shim.caio.Context(8)
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: reported.append((hook.exc_type, hook.exc_value.args)))

    def bad(result: int) -> None:
        raise KeyError(result)

    operations = [libaio_shim.caio.Operation.write(b"x", fd, i) for i in range(3)]
    for operation in operations:
        operation.set_callback(bad)
    context.submit(*operations)
    finish(context, 3)
    assert reported == [(KeyError, (1,))] * 3
    assert [operation.get_value() for operation in operations] == [1, 1, 1]
    context.close()


def test_refusals_are_caio_s_exceptions_too(fd: int) -> None:
    """OverflowError when there is no room, ValueError for a bad descriptor; both are OSError as well."""
    context = libaio_shim.caio.Context(1)
    with pytest.raises(ValueError, match="descriptor") as refused:
        context.submit(libaio_shim.caio.Operation.read(1, -1, 0))
    assert isinstance(refused.value, OSError)
    operations = [libaio_shim.caio.Operation.read(1, fd, 0) for _ in range(5000)]
    accepted = context.submit(*operations)
    with pytest.raises(OverflowError) as full:
        context.submit(*operations[accepted:])
    assert isinstance(full.value, BlockingIOError)
    context.close()


def test_a_forgotten_low_level_context_says_nothing(fd: int) -> None:
    """caio's has no close(): nobody is to blame.  Operations with callbacks that know them are collected."""
    context = libaio_shim.caio.Context(8)
    operation = libaio_shim.caio.Operation.read(1, fd, 0)
    operation.set_callback(partial(print, operation))
    gone = weakref.ref(operation)
    context.submit(operation)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        del context, operation
        gc.collect()
    assert gone() is None
    assert not caught


def test_a_context_made_outside_of_a_loop_knows_the_loop_that_runs(fd: int) -> None:
    """Nobody asks asyncio for a current loop, which from Python 3.14 on there is not."""
    context = libaio_shim.caio.AsyncioContext(4)
    with pytest.raises(RuntimeError, match="no running event loop"):
        _ = context.loop

    async def main() -> None:
        assert context.loop is asyncio.get_running_loop()
        assert await context.read(4, fd, 0) == b"AAAA"

    for _ in range(2):
        asyncio.run(main())
    context.close()


@pytest.mark.usefixtures("installed")
def test_objects_are_instances_of_caio_s_abstract_classes(fd: int) -> None:
    """For who asks."""
    assert isinstance(libaio_shim.caio.Operation.fsync(fd), caio.AbstractOperation)
    assert issubclass(libaio_shim.caio.Context, caio.AbstractContext)


def test_operations_on_the_asyncio_context(fd: int, payload: bytes) -> None:
    """submit(op), which caio's read and write are made of."""

    async def main() -> None:
        async with libaio_shim.caio.AsyncioContext(4) as context:
            operation = context.OPERATION_CLASS
            assert await context.submit(operation.read(8, fd, BLOCK - 4)) == payload[BLOCK - 4 : BLOCK + 4]
            assert await context.submit(operation.write(b"abc", fd, 0)) == 3
            assert await context.submit(operation.fsync(fd)) is None
            assert await context.submit(operation.fdsync(fd)) is None
            assert await context.read(3, fd, 0) == b"abc"
            assert await context.write(b"de", fd, 3) == 2
            await context.fsync(fd)
            await context.fdsync(fd)
            with pytest.raises(ValueError, match="Operation"):
                await context.submit("x")  # type: ignore[arg-type]

    asyncio.run(main())
