"""Asynchronous file I/O that does not block when it is submitted: Python's door to libaio-shim.

`Context` and the ``prep_*`` functions are the low level, after libaio; `libaio_shim.asyncio` is for coroutines;
`libaio_shim.caio` stands in for caio.  ``libaio-shim run PROGRAM`` runs an unmodified libaio program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libaio_shim._aligned import AlignedBuffer, Alignment, alignment
    from libaio_shim._batch import Batch
    from libaio_shim._context import Context, Event, SubmitError
    from libaio_shim._iocb import (
        FileDescriptorLike,
        HasFileno,
        Iocb,
        prep_fdsync,
        prep_fsync,
        prep_poll,
        prep_pread,
        prep_preadv,
        prep_pwrite,
        prep_pwritev,
    )
    from libaio_shim._stats import Stats, stats, version

__all__ = [
    "AlignedBuffer",
    "Alignment",
    "Batch",
    "Context",
    "Event",
    "FileDescriptorLike",
    "HasFileno",
    "Iocb",
    "Stats",
    "SubmitError",
    "alignment",
    "prep_fdsync",
    "prep_fsync",
    "prep_poll",
    "prep_pread",
    "prep_preadv",
    "prep_pwrite",
    "prep_pwritev",
    "stats",
    "version",
]

_MODULES = {
    "AlignedBuffer": "_aligned",
    "Alignment": "_aligned",
    "alignment": "_aligned",
    "Batch": "_batch",
    "Context": "_context",
    "Event": "_context",
    "SubmitError": "_context",
    "Stats": "_stats",
    "stats": "_stats",
    "version": "_stats",
}


def __getattr__(name: str) -> Any:
    # Late, because the command line works without cffi and before anything is built.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_MODULES.get(name, '_iocb')}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
