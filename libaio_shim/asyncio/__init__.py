"""Asynchronous file I/O for asyncio, uvloop and trio.

`AsyncContext` works on descriptors and buffers; `open` gives files as people know them.
"""

from libaio_shim.asyncio._binary import AsyncFile, BinaryFile
from libaio_shim.asyncio._context import AsyncContext
from libaio_shim.asyncio._open import Opening, open
from libaio_shim.asyncio._paths import listdir, mkdir, rename, replace, rmdir, stat, unlink
from libaio_shim.asyncio._text import TextFile

__all__ = [
    "AsyncContext",
    "AsyncFile",
    "BinaryFile",
    "Opening",
    "TextFile",
    "listdir",
    "mkdir",
    "open",
    "rename",
    "replace",
    "rmdir",
    "stat",
    "unlink",
]
