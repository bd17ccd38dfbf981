"""The engine as Python calls it: finds ``libaio_shim.so.0`` and loads it.

cffi is used in its out-of-line ABI mode: one wheel serves every Python, and the import needs neither a compiler nor
a parser.  Every call through ``lib`` releases the GIL while it runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import get_ident
from typing import Any, NoReturn

SONAME = "libaio_shim.so.0"


def _refuse_subinterpreter() -> None:
    """Raises ImportError outside the main interpreter.

    The engine's state, cffi's state and the hooks of fork and exit are one per process; a second interpreter that
    ends would free buffers under requests of the first.
    """
    try:
        # 3.13 renamed the module; neither is public, both are part of every CPython with subinterpreters.
        name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
        module: Any = __import__(name)
    except ImportError:
        return
    current, main = module.get_current(), module.get_main()
    # 3.13 answers (id, whence), older ones an id object.
    if isinstance(current, tuple):
        current, main = current[0], main[0]
    if current != main:
        raise ImportError("libaio_shim works in the main interpreter only, not in a subinterpreter")


_refuse_subinterpreter()

# A subinterpreter must be refused before cffi is loaded.
from libaio_shim import _places  # noqa: E402
from libaio_shim._ffi import ffi as _ffi  # noqa: E402

# Untyped on purpose: cffi's stubs do not know what a library's functions take.
ffi: Any = _ffi


def library() -> Path:
    """The engine's file: in the directory LIBAIO_SHIM_LIBDIR if that is set, else the package's or the checkout's."""
    override = os.environ.get("LIBAIO_SHIM_LIBDIR")
    return Path(override, SONAME) if override else _places.engine()


def _load() -> Any:
    try:
        # Under `libaio-shim run` the engine is there already; a second copy would be a second, separate engine.
        return ffi.dlopen(SONAME, os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        pass
    path = library()
    if not path.exists():
        told = (
            "as LIBAIO_SHIM_LIBDIR says" if os.environ.get("LIBAIO_SHIM_LIBDIR") else "in a checkout run `make build`"
        )
        raise ImportError(f"{path} not found; {told}")
    try:
        return ffi.dlopen(str(path), os.RTLD_NOW)
    except OSError as error:
        raise ImportError(f"{path} cannot be loaded: {error}") from None


lib: Any = _load()
libc: Any = ffi.dlopen(None)
NULL: Any = ffi.NULL

# What the iocb's fields mean; the numbers are the kernel's (linux/aio_abi.h).
IOCB_CMD_PREAD = 0
IOCB_CMD_PWRITE = 1
IOCB_CMD_FSYNC = 2
IOCB_CMD_FDSYNC = 3
IOCB_CMD_POLL = 5
IOCB_CMD_PREADV = 7
IOCB_CMD_PWRITEV = 8
IOCB_FLAG_RESFD = 1 << 0
IOCB_FLAG_IOPRIO = 1 << 1

# What las_io_submit_one returns and leaves in an iocb (libaio_shim.h).
SUBMITTED = -4096
KEY_RETURNED = 1

IOCB_BYTES = 64
EVENT_BYTES = 32
RING_HEADER_BYTES = 32

_CHARS = ffi.typeof("char[]")
_ADDRESS = ffi.typeof("uintptr_t")


def pin(buffer: Any, writable: bool) -> Any:
    """A cdata that points at the buffer's memory and exports the buffer for as long as it lives.

    Raises TypeError without the (contiguous) buffer protocol, BufferError where memory must be writable and is not.
    """
    try:
        return ffi.from_buffer(_CHARS, buffer, writable)
    except TypeError:
        raise no_buffer(buffer) from None


def no_buffer(value: Any) -> TypeError:
    """The exception for what is no buffer; cffi's own, of a str, does not say what is wanted."""
    return TypeError(f"a bytes-like object is required, not {type(value).__name__!r}")


def address_of(cdata: Any) -> int:
    return int(ffi.cast(_ADDRESS, cdata))


# The thread that ends the interpreter, as soon as it does.
_ending: int | None = None


def begin_to_end() -> None:
    """Says that the calling thread ends the interpreter, and that contexts end with it."""
    global _ending
    _ending = get_ident()


def raise_errno(negative_errno: int, about: str = "") -> NoReturn:
    """Raises the OSError (or its subclass, as BlockingIOError for EAGAIN) for a result of the engine.

    When the interpreter ends, its daemon threads fail because their contexts are gone.  They end then, without a word:
    a traceback is printed with the help of modules that must be imported, and a thread that never comes back from that
    keeps the lock which the end of the interpreter needs.
    """
    if _ending not in (None, get_ident()):
        raise SystemExit
    raise OSError(-negative_errno, os.strerror(-negative_errno) + about)
