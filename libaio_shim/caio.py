"""In the place of caio: the same names and order of arguments, done by libaio-shim.

``aiofile`` and others that take a caio context work with this one unchanged::

    async with libaio_shim.caio.AsyncioContext() as context:
        async with aiofile.async_open("file", "rb", context=context) as file:
            ...

or, for contexts that a library makes for itself, once at the start of the program::

    libaio_shim.caio.install()

Beside what caio has, `AsyncioContext` need not be used with one loop only, and its `read` and `write` take any
objects with a file descriptor and any buffers.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import libaio_shim
from libaio_shim._native import raise_errno
from libaio_shim.asyncio import AsyncContext

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncioContext", "Context", "Operation", "install", "uninstall"]


class Operation:
    """One request, made by `read`, `write`, `fsync` or `fdsync`, submitted once."""

    __slots__ = ("__weakref__", "_callback", "_context", "_iocb", "_payload", "_priority", "_result")

    def __init__(self, iocb: libaio_shim.Iocb, payload: Any, priority: int) -> None:
        self._iocb = iocb
        self._payload = payload
        self._priority = priority
        self._result: int | None = None
        self._callback: Callable[[int], object] | None = None
        self._context: Context | None = None

    @classmethod
    def read(cls, nbytes: int, fd: int, offset: int, priority: int = 0) -> Operation:
        """nbytes bytes of fd from offset."""
        buffer = bytearray(nbytes)
        return cls(libaio_shim.prep_pread(fd, buffer, offset), buffer, priority)

    @classmethod
    def write(cls, payload_bytes: bytes, fd: int, offset: int, priority: int = 0) -> Operation:
        """payload_bytes into fd at offset.  ValueError if they are not bytes."""
        if not isinstance(payload_bytes, bytes):
            raise ValueError(f"payload_bytes must be bytes, got {payload_bytes!r}")
        return cls(libaio_shim.prep_pwrite(fd, payload_bytes, offset), payload_bytes, priority)

    @classmethod
    def fsync(cls, fd: int, priority: int = 0) -> Operation:
        """Makes fd's data and metadata durable."""
        return cls(libaio_shim.prep_fsync(fd), None, priority)

    @classmethod
    def fdsync(cls, fd: int, priority: int = 0) -> Operation:
        """Makes fd's data durable."""
        return cls(libaio_shim.prep_fdsync(fd), None, priority)

    def get_value(self) -> bytes | int | None:
        """The bytes that were read, the number of those written, None for fsync and fdsync; OSError if it failed.

        RuntimeError while it is in flight.
        """
        self._check_idle()
        result = self._result
        if result is None:
            return b"" if isinstance(self._payload, bytearray) else None
        if result < 0:
            raise_errno(result)
        if isinstance(self._payload, bytearray):
            return bytes(memoryview(self._payload)[:result])
        return result if self._payload is not None else None

    def _check_idle(self) -> None:
        if self._iocb.busy:
            raise RuntimeError("the operation is in flight")

    @property
    def fileno(self) -> int:
        """The descriptor."""
        return self._iocb.fd

    @property
    def offset(self) -> int:
        """Where in the file, in bytes."""
        return self._iocb.offset

    @property
    def payload(self) -> bytes | memoryview | None:
        """The buffer.  RuntimeError while it is in flight."""
        self._check_idle()
        return memoryview(self._payload) if isinstance(self._payload, bytearray) else self._payload

    @property
    def nbytes(self) -> int:
        """How many bytes were asked for."""
        return self._iocb.nbytes

    @property
    def priority(self) -> int:
        """As it was given; it has no effect."""
        return self._priority

    @property
    def context(self) -> Context | None:
        """Where it was submitted."""
        return self._context

    def set_callback(self, callback: Callable[[int], object]) -> bool:
        """Calls it with the result (a negative errno, if it failed) from `Context.process_events`."""
        if not callable(callback):
            raise ValueError(f"callback must be callable, got {callback!r}")
        self._callback = callback
        return True


class _FullError(BlockingIOError, OverflowError):
    """EAGAIN, for which caio raises OverflowError."""


class _RefusedError(OSError, ValueError):
    """EBADF, EINVAL, for which caio raises ValueError."""


def _report(error: BaseException) -> None:
    """Hands error to `sys.unraisablehook`, whose argument only the interpreter can make: when a C callback raises."""

    def raising() -> NoReturn:
        raise error

    ctypes.PYFUNCTYPE(None)(raising)()


class Context:
    """caio's low level: submit operations, wait for `fileno`, let `process_events` call their callbacks."""

    def __init__(self, max_requests: int = 32) -> None:
        self._max_requests = max_requests
        self._context = libaio_shim.Context(max_requests)
        self._operations: dict[libaio_shim.Iocb, Operation] = {}
        self._fileno = self._context.fileno()

    @property
    def max_requests(self) -> int:
        """As given."""
        return self._max_requests

    @property
    def fileno(self) -> int:
        """An eventfd that is readable when there are events."""
        return self._fileno

    def submit(self, *aio_operations: Operation) -> int:
        """Starts operations, except those that were started before; returns how many: the first so many of them.

        OSError if the first is refused, which is also a ValueError (EBADF, EINVAL) or an OverflowError (EAGAIN: there
        is no room), as with caio.
        """
        fresh = []
        for operation in aio_operations:
            if not isinstance(operation, Operation):
                raise ValueError(f"Invalid Operation {operation!r}")
            if operation._context is None:
                operation._context = self
                self._operations[operation._iocb] = operation
                fresh.append(operation)
        accepted = 0
        try:
            accepted = self._context.submit([operation._iocb for operation in fresh]) if fresh else 0
        except BlockingIOError as error:
            raise _FullError(*error.args) from None
        except OSError as error:
            raise _RefusedError(*error.args) from None
        finally:
            for operation in fresh[accepted:]:
                operation._context = None
                del self._operations[operation._iocb]
        return accepted

    def cancel(self, *aio_operations: Operation) -> int:
        """Takes back those that do not run yet; returns 0."""
        for operation in aio_operations:
            if operation._iocb in self._operations and operation._iocb.busy:
                try:
                    event = self._context.cancel(operation._iocb)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                else:
                    if event is not None:
                        self._done(event)
        return 0

    def poll(self) -> int:
        """The number of events since the last call.  BlockingIOError if there are none."""
        return os.eventfd_read(self._fileno)

    def process_events(self, max_requests: int = 512, min_requests: int = 0, timeout: int = 0) -> int:
        """Waits up to timeout seconds (negative: for ever) for min_requests events, calls the callbacks, returns how
        many events there were.

        What a callback raises goes to `sys.unraisablehook`.  ValueError if min_requests is negative or more than
        max_requests.
        """
        if not 0 <= min_requests <= max_requests:
            raise ValueError(f"min_requests must be from 0 to max_requests, not {min_requests}")
        events = self._context.getevents(min_requests, max_requests, timeout if timeout >= 0 else None)
        for event in events:
            self._done(event)
        return len(events)

    def _done(self, event: libaio_shim.Event) -> None:
        operation = self._operations.pop(event.iocb)
        operation._result = event.res
        if operation._callback is not None:
            try:
                operation._callback(event.res)
            except BaseException as error:  # the other events would be lost
                _report(error)

    def close(self) -> None:
        """Waits for what runs and frees everything; also done when the context is forgotten, since caio's has none."""
        self._context.close()

    def __del__(self) -> None:
        if hasattr(self, "_fileno"):
            self.close()


class AsyncioContext:
    """caio's context for coroutines.

    Unlike caio's it does not fail when a loop differs from the one at its creation, and reads of cached data do not
    go through the loop at all.
    """

    MAX_REQUESTS_DEFAULT = 512
    OPERATION_CLASS = Operation
    CONTEXT_CLASS = Context

    def __init__(
        self,
        max_requests: int | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        deferred: bool = False,
        **kwargs: Any,
    ) -> None:
        """deferred is accepted and has no effect: requests that wait are submitted together in any case."""
        self._loop = loop or asyncio._get_running_loop()
        self.deferred = deferred
        self.context: AsyncContext = AsyncContext(max_requests or self.MAX_REQUESTS_DEFAULT)
        # aiofile's default context is closed with its loop, or never.
        self.context._own_care = True
        # A method of a method costs a coroutine more at every request: these are the context's own.
        self._read = self.context.read
        self._write = self.context.write

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The one that runs, else that of the creation.  RuntimeError if there is neither."""
        return asyncio._get_running_loop() or self._loop or asyncio.get_running_loop()

    def read(self, nbytes: int, fd: int, offset: int, priority: int = 0) -> Awaitable[bytes]:
        """nbytes bytes of fd from offset, fewer at the end of the file."""
        return self._read(fd, nbytes, offset)

    def write(self, payload: bytes, fd: int, offset: int, priority: int = 0) -> Awaitable[int]:
        """payload into fd at offset; the number of bytes written."""
        return self._write(fd, payload, offset)

    def fsync(self, fd: int) -> Awaitable[None]:
        """Makes fd's data and metadata durable."""
        return self.context.fsync(fd)

    def fdsync(self, fd: int) -> Awaitable[None]:
        """Makes fd's data durable."""
        return self.context.fdatasync(fd)

    async def submit(self, op: Operation) -> bytes | int | None:
        """Runs an operation and returns its value."""
        if not isinstance(op, Operation):
            raise ValueError("Operation object expected")
        payload = op._payload
        if payload is None:
            sync = self.context.fdatasync if op._iocb.opcode == _FDSYNC else self.context.fsync
            await sync(op.fileno)
            op._result = 0
        elif isinstance(payload, bytearray):
            op._result = await self.context.read_into(op.fileno, payload, op.offset)
        else:
            op._result = await self.context.write(op.fileno, payload, op.offset)
        return op.get_value()

    def close(self) -> None:
        """Waits for what runs and frees everything."""
        self.context.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.context.aclose()


_FDSYNC = libaio_shim.prep_fdsync(0).opcode
_NAMES = ("Context", "Operation", "AsyncioContext", "preferred", "preferred_asyncio")
_replaced: dict[str, Any] = {}


def install() -> ModuleType:
    """Makes caio's preferred implementation this one, for all who ask caio for one from now on; returns caio.

    ImportError without caio.  `uninstall` undoes it.
    """
    import caio

    this = sys.modules[__name__]
    if not _replaced:
        _replaced.update({name: getattr(caio, name) for name in _NAMES})
    replacements = (Context, Operation, AsyncioContext, this, this)
    for name, value in zip(_NAMES, replacements, strict=True):
        setattr(caio, name, value)
    # For who asks what an object is by caio's abstract classes.
    caio.AbstractContext.register(Context)
    caio.AbstractOperation.register(Operation)
    return caio


def uninstall() -> None:
    """Gives caio its own implementation back.  Contexts that exist stay what they are."""
    import caio

    for name, value in _replaced.items():
        setattr(caio, name, value)
    _replaced.clear()
