"""What the engine has done in this process."""

from __future__ import annotations

from typing import Any, NamedTuple

from libaio_shim._native import ffi, lib


class Stats(NamedTuple):
    """Counts since the program started (since the fork, in a child), over all contexts, also those of C code."""

    contexts: int
    """Contexts set up."""
    submitted: int
    """Requests that were accepted and have their event."""
    head: int
    """Of these: finished in the caller, inside submit."""
    native: int
    """Given to kernel AIO."""
    crew: int
    """Given to a thread."""
    polled: int
    """Waited for in the poll set: polls, pipes, sockets."""
    helped: int
    """Requests of the crew that a waiting caller ran itself."""
    cancelled: int
    """Taken back before they ran."""
    threads: int
    """Threads of the library's that were started."""


def stats() -> Stats:
    """The counts, now."""
    out: Any = ffi.new("las_stats *")
    lib.las_stats_get(out, ffi.sizeof("las_stats"))
    return Stats(*(getattr(out, field) for field in Stats._fields))


def version() -> str:
    """The engine's version, as in ``0.1.0``."""
    return str(ffi.string(lib.las_version()), "ascii")
