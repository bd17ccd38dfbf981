"""The life of one ``io_context_t``: set up, ended in time before the interpreter or when forked."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from libaio_shim._iocb import bad_argument
from libaio_shim._native import EVENT_BYTES, RING_HEADER_BYTES, begin_to_end, ffi, lib, raise_errno

if TYPE_CHECKING:
    from typing_extensions import Self

# Indexes of the 32-bit words in the ring's header (linux/aio.c: struct aio_ring).
NR = 1
HEAD = 2
TAIL = 3

_live: weakref.WeakSet[Ring] = weakref.WeakSet()


class Ring:
    """An ``io_context_t``.  `Context` and `AsyncContext` add the rules; whoever owns it calls `destroy`."""

    __slots__ = ("__weakref__", "_end", "handle", "inherited", "lock")

    handle: Any
    """The address that the engine's functions take, which is also where the ring is in memory."""
    inherited: bool
    """True in a forked child: the engine answers EINVAL, and the ring's memory may not be used."""
    lock: threading.Lock
    """The owner's, here so that a forked child gets a fresh one."""

    def __init__(self, depth: int) -> None:
        """Raises OSError: EINVAL for a depth that the engine refuses, EAGAIN for one that is too large, ENOMEM."""
        self.inherited = False
        self.lock = threading.Lock()
        out: Any = ffi.new("void **")
        try:
            result = lib.las_io_setup(depth, out)
        except (OverflowError, TypeError):
            raise bad_argument(depth=depth) from None
        if result < 0:
            raise_errno(result, f": depth={depth}")
        self.handle = out[0]
        # Who takes what is in it destroys the ring.  Not under the lock: the thread that closes may be in a signal
        # handler that came in the middle of its own submit.
        self._end = [self.handle]
        _live.add(self)

    def memory(self) -> tuple[memoryview, memoryview]:
        """The ring as memory: the header in 32-bit words, and the events in 64-bit words, four each."""
        start = ffi.cast("char *", self.handle)
        header = memoryview(ffi.buffer(start, RING_HEADER_BYTES)).cast("B").cast("I")
        whole = memoryview(ffi.buffer(start, RING_HEADER_BYTES + header[NR] * EVENT_BYTES)).cast("B")
        return header, whole[RING_HEADER_BYTES:].cast("q")

    def destroy(self) -> bool:
        """Returns when no request runs any more; the GIL is released meanwhile.  False if another call did it."""
        try:
            handle = self._end.pop()
        except IndexError:
            return False
        _live.discard(self)
        if not self.inherited:
            lib.las_io_destroy(handle)
        return True


def refuse_copy(owner: object) -> NoReturn:
    """The ``__reduce__`` of who owns a ring: a copy would destroy it under the original."""
    raise TypeError(f"{type(owner).__name__} objects can be neither copied nor pickled")


class Owner:
    """What owns a ring and must be closed: ends with its ``with``, warns when it is forgotten, is never copied."""

    # Until it is set up, there is nothing to close.
    _closed = True
    _ring: Ring

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def close(self) -> None:
        """Frees everything.  Closing twice is no error."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self._closed:
            raise ValueError(f"the {type(self).__name__.lower()} is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._closed:
            return
        if not self._ring.inherited:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        self.close()

    __reduce__ = refuse_copy


def _at_exit() -> None:
    begin_to_end()
    # The end of the interpreter frees buffers that the engine's threads may still be filling.
    for ring in list(_live):
        ring.destroy()


def _in_child() -> None:
    for ring in list(_live):
        ring.inherited = True
        ring.lock = threading.Lock()  # the thread that held it may not exist here


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
