"""Asynchronous file I/O for asyncio, uvloop and trio."""

from libaio_shim.asyncio._context import AsyncContext

__all__ = ["AsyncContext"]
