"""`open`: files for coroutines."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, Union, overload

from libaio_shim.asyncio._binary import AsyncFile, BinaryFile
from libaio_shim.asyncio._context import AsyncContext
from libaio_shim.asyncio._hosts import AsyncioHost, current_host
from libaio_shim.asyncio._text import TextFile

Path = Union[str, bytes, int, "os.PathLike[str]", "os.PathLike[bytes]"]
"""A path, or an open descriptor."""

Opener = Callable[[Any, int], int]
"""As the built-in open's: called with the path and the flags, returns an open descriptor."""

TextMode = Literal["r", "r+", "w", "w+", "a", "a+", "x", "x+", "rt", "wt", "at", "xt"]
BinaryMode = Literal["rb", "rb+", "r+b", "wb", "wb+", "w+b", "ab", "ab+", "a+b", "xb", "xb+", "x+b"]

F = TypeVar("F", bound=AsyncFile)

_FLAGS = {"r": 0, "w": os.O_CREAT | os.O_TRUNC, "a": os.O_CREAT | os.O_APPEND, "x": os.O_CREAT | os.O_EXCL}


def _flags(mode: str) -> int:
    letters = set(mode)
    kinds = letters & set("rwax")
    if len(letters) != len(mode) or letters - set("rwax+bt") or len(kinds) != 1 or {"b", "t"} <= letters:
        raise ValueError(f"invalid mode: {mode!r}")
    (kind,) = kinds
    access = os.O_RDWR if "+" in letters else os.O_RDONLY if kind == "r" else os.O_WRONLY
    return _FLAGS[kind] | access | os.O_CLOEXEC


class Opening(Generic[F]):
    """A file that is about to be opened: ``async with`` it, or ``await`` it and close it yourself."""

    def __init__(self, opener: Callable[[], Generator[Any, None, F]]) -> None:
        self._opener = opener
        self._file: F | None = None

    def __await__(self) -> Generator[Any, None, F]:
        return self._opener()

    async def __aenter__(self) -> F:
        self._file = await self
        return self._file

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            await self._file.close()


@overload
def open(
    file: Path,
    mode: TextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    flags: int = 0,
    context: AsyncContext | None = None,
) -> Opening[TextFile]: ...


@overload
def open(
    file: Path,
    mode: BinaryMode,
    buffering: int = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    flags: int = 0,
    context: AsyncContext | None = None,
) -> Opening[BinaryFile]: ...


@overload
def open(
    file: Path,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    flags: int = 0,
    context: AsyncContext | None = None,
) -> Opening[Any]: ...


def open(
    file: Path,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
    flags: int = 0,
    context: AsyncContext | None = None,
) -> Opening[Any]:
    """Opens a file, off the loop: ``async with open(path) as file``, or ``file = await open(path)``.

    The arguments are the built-in `open`'s, except: text is UTF-8 unless told otherwise; ``buffering`` changes nothing,
    as no write is ever kept back; ``flags`` are more ``os.O_*``; ``context`` is the `AsyncContext` to use, by default
    one that all files of the event loop share.  A descriptor that is given keeps its own offset: the file begins there.
    OSError as `os.open`; ValueError for a bad mode or combination, LookupError for an unknown encoding.
    """
    binary = "b" in mode
    if buffering < -1:
        raise ValueError("invalid buffering size")
    if buffering == 0 and not binary:
        raise ValueError("can't have unbuffered text I/O")
    if isinstance(file, int):
        if file < 0:
            raise ValueError("negative file descriptor")
    elif not closefd:
        raise ValueError("Cannot use closefd=False with file name")
    else:
        file = os.fspath(file)
    if binary and (encoding is not None or errors is not None or newline is not None):
        raise ValueError("binary mode doesn't take an encoding, errors or newline argument")
    flags |= _flags(mode)

    async def opening() -> AsyncFile:
        used = context if context is not None else default_context()
        if isinstance(file, int):
            if stat.S_ISDIR(os.fstat(file).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
            fd = file
        else:
            fd = await current_host().off_loop(_open, file, flags, opener, undo=os.close)
        try:
            if binary:
                return BinaryFile(used, fd, file, mode, closefd)
            return TextFile(used, fd, file, mode, closefd, encoding, errors, newline)
        except BaseException:
            if not isinstance(file, int):
                os.close(fd)
            raise

    def begin() -> Generator[Any, None, AsyncFile]:
        return opening().__await__()

    return Opening(begin)


def _open(file: Any, flags: int, opener: Opener | None) -> int:
    """A descriptor, not inherited, of anything but a directory."""
    fd = os.open(file, flags, 0o666) if opener is None else opener(file, flags)
    if fd < 0:
        raise ValueError(f"opener returned {fd}")
    try:
        if opener is not None:
            os.set_inheritable(fd, False)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
    except BaseException:
        os.close(fd)
        raise
    return fd


# The contexts that `open` makes, for asyncio's loops; trio keeps its own with its run.
_contexts: dict[Any, AsyncContext] = {}
_run_variable: Any = None


def default_context() -> AsyncContext:
    """The context that the files of the running event loop share.  It ends after the loop, with its last file."""
    global _run_variable
    host = current_host()
    if isinstance(host, AsyncioHost):
        context = _contexts.get(host.owner)
        if context is None or context.closed:
            # Other threads do the same for their loops.  A file that outlives its loop keeps the context.
            for loop in list(_contexts):
                if loop.is_closed():
                    _contexts.pop(loop, None)
            context = _contexts[host.owner] = _make_context()
        return context
    if _run_variable is None:
        _run_variable = sys.modules["trio"].lowlevel.RunVar("libaio_shim", default=None)
    context = _run_variable.get()
    if context is None or context.closed:
        context = _make_context()
        _run_variable.set(context)
    return context


def _make_context() -> AsyncContext:
    context = AsyncContext()
    context._own_care = True
    return context
