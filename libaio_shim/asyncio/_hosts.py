"""What `AsyncContext` needs of an event loop, for each loop that it can be a guest of.

A host wakes the context when its eventfd is readable, and suspends coroutines and wakes them by the loop's own means.
It also holds the rules of cancellation, since a loop's ways decide how they are kept:

- what is still queued is taken back (`Guest.take_back`) and the cancellation goes on;
- what runs and may be abandoned is left behind; its slot is free, and its memory let go, when its event comes;
- what runs and may not be abandoned is waited for, then the cancellation goes on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Generator
from functools import partial
from types import coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Request(Protocol):
    """What a host sees of `Pending`."""

    done: bool
    result: int
    host: Host | None
    waiter: Any


class Guest(Protocol):
    """What a host sees of `AsyncContext`."""

    def take_back(self, pending: Any) -> bool:
        """Whether the request will not run, or is finished already."""
        ...


class Host:
    """An event loop.  This one is none at all, never the one that runs: where a context is before its first request."""

    def __init__(self, current: Callable[[], object], owner: Any) -> None:
        self.current = current
        """Tells the running loop..."""
        self.owner = owner
        """...which is this one when it is the same object."""

    def attach(self, eventfd: int, readable: Callable[[], None]) -> None:
        """Calls readable whenever eventfd is, until `detach`."""

    def detach(self) -> None:
        """Undoes `attach`; does nothing if the loop is closed."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Calls callback when the tasks that are ready now had their turn."""

    async def wait(self, guest: Guest, request: Request, abandon: bool) -> int:
        """Suspends until the request is done; its result."""
        return request.result

    def wake(self, waiter: Any) -> None:
        """Ends the suspension of the request with that waiter."""

    async def turn(self) -> None:
        """Lets the other tasks run."""

    async def off_loop(self, work: Callable[..., T], *arguments: Any, undo: Callable[[T], object] | None = None) -> T:
        """Runs what may block in a thread.  If it is cancelled, undo disposes of the result that comes later."""
        raise NotImplementedError  # of the host of no loop, which nobody asks for this

    async def close(self, fd: int) -> None:
        """Closes a descriptor in a thread: also for a cancelled task, and here if no thread can be had."""
        raise NotImplementedError  # as above


def homeless() -> Host:
    """A context's home before its first request."""
    return Host(lambda: None, object())


@coroutine
def _suspend_once() -> Generator[None, None, None]:
    yield


class AsyncioHost(Host):
    """asyncio, and loops that behave as asyncio does (uvloop)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The same as get_running_loop, but None where no loop runs.
        super().__init__(asyncio._get_running_loop, loop)
        self._eventfd = -1

    def attach(self, eventfd: int, readable: Callable[[], None]) -> None:
        self.owner.add_reader(eventfd, readable)
        self._eventfd = eventfd

    def detach(self) -> None:
        if not self.owner.is_closed():
            self.owner.remove_reader(self._eventfd)

    def soon(self, callback: Callable[[], None]) -> None:
        self.owner.call_soon(callback)

    async def wait(self, guest: Guest, request: Request, abandon: bool) -> int:
        cancelled: asyncio.CancelledError | None = None
        while not request.done:
            request.waiter = waiter = self.owner.create_future()
            request.host = self
            try:
                await waiter
            except asyncio.CancelledError as error:
                # A second one changes nothing: the request has to finish.
                if cancelled is None:
                    cancelled = error
                    if guest.take_back(request) or abandon:
                        break
            finally:
                request.host = request.waiter = None
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                cancelled = None  # breaks the cycle of exception, traceback and frame
        return request.result

    def wake(self, waiter: asyncio.Future[None]) -> None:
        # Tried rather than asked before, since it nearly always works.
        try:
            waiter.set_result(None)
        except asyncio.InvalidStateError:
            pass  # cancelled
        except RuntimeError:
            # A closed loop wakes nobody; its tasks are gone.
            if not self.owner.is_closed():
                raise

    async def turn(self) -> None:
        await _suspend_once()

    async def off_loop(self, work: Callable[..., T], *arguments: Any, undo: Callable[[T], object] | None = None) -> T:
        future = self.owner.run_in_executor(None, partial(work, *arguments))
        try:
            result: T = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(partial(_dispose, undo))
            raise
        return result

    async def close(self, fd: int) -> None:
        left = [fd]
        try:
            await self.off_loop(_close, left)
        except RuntimeError:  # the loop's threads have ended, or there are too many to start one
            _close(left)


def _close(left: list[int]) -> None:
    """Closes the descriptor that is left: who said that it had no thread may find one later all the same."""
    try:
        fd = left.pop()
    except IndexError:
        return
    os.close(fd)


def _dispose(undo: Callable[[T], object] | None, future: asyncio.Future[T]) -> None:
    # Asking for the exception also keeps asyncio from complaining that nobody did.
    if not future.cancelled() and future.exception() is None and undo is not None:
        undo(future.result())


def _make_trio_host(trio: Any) -> Host:
    def current() -> object:
        try:
            return trio.lowlevel.current_trio_token()
        except RuntimeError:
            return None

    class TrioHost(Host):
        """trio; anyio on trio."""

        def __init__(self) -> None:
            super().__init__(current, current())
            self._scope: Any = None
            self._eventfd = -1

        def attach(self, eventfd: int, readable: Callable[[], None]) -> None:
            self._eventfd = eventfd
            self._scope = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._watch, self._scope, eventfd, readable)

        @staticmethod
        async def _watch(scope: Any, eventfd: int, readable: Callable[[], None]) -> None:
            with scope:
                # The descriptor is closed right after the scope is cancelled.
                while not scope.cancel_called:
                    try:
                        await trio.lowlevel.wait_readable(eventfd)
                    except trio.ClosedResourceError:
                        return
                    if not scope.cancel_called:  # nor after this task was woken
                        readable()

        def detach(self) -> None:
            if self.current() is self.owner:
                self._scope.cancel()
                trio.lowlevel.notify_closing(self._eventfd)

        def soon(self, callback: Callable[[], None]) -> None:
            self.owner.run_sync_soon(callback)

        async def wait(self, guest: Guest, request: Request, abandon: bool) -> int:
            if request.done:
                return request.result
            raise_cancel: Any = None

            def abort(raiser: Any) -> Any:
                nonlocal raise_cancel
                # trio reschedules the task if we say so; an event found by take_back must not do it, too.
                request.host = None
                if guest.take_back(request) or abandon:
                    return trio.lowlevel.Abort.SUCCEEDED
                request.host = self
                raise_cancel = raiser
                return trio.lowlevel.Abort.FAILED

            request.host = self
            request.waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
            if raise_cancel is not None:
                raise_cancel()
            return request.result

        def wake(self, waiter: Any) -> None:
            trio.lowlevel.reschedule(waiter)

        async def turn(self) -> None:
            await trio.lowlevel.checkpoint()

        async def off_loop(
            self, work: Callable[..., T], *arguments: Any, undo: Callable[[T], object] | None = None
        ) -> T:
            # trio waits for the thread before it raises a cancellation: there is always somebody for the result.
            result: T = await trio.to_thread.run_sync(partial(work, *arguments))
            return result

        async def close(self, fd: int) -> None:
            left = [fd]
            with trio.CancelScope(shield=True):  # trio starts no thread for a cancelled task
                try:
                    await trio.to_thread.run_sync(_close, left)
                except RuntimeError:  # too many to start one
                    _close(left)
            await trio.lowlevel.checkpoint_if_cancelled()

    return TrioHost()


def current_host() -> Host:
    """The event loop that runs the calling coroutine.  RuntimeError if there is none."""
    loop = asyncio._get_running_loop()
    # trio in guest mode runs inside an asyncio loop; then trio is the one that runs the coroutine.
    trio = sys.modules.get("trio")
    if trio is not None and _in_trio(trio):
        return _make_trio_host(trio)
    if loop is None:
        raise RuntimeError("no running event loop")
    return AsyncioHost(loop)


def _in_trio(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
