"""Requests: what a caller asks for, in the kernel's own form."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Union

from libaio_shim._native import (
    IOCB_BYTES,
    IOCB_CMD_FDSYNC,
    IOCB_CMD_FSYNC,
    IOCB_CMD_POLL,
    IOCB_CMD_PREAD,
    IOCB_CMD_PREADV,
    IOCB_CMD_PWRITE,
    IOCB_CMD_PWRITEV,
    IOCB_FLAG_IOPRIO,
    address_of,
    ffi,
    pin,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer


class HasFileno(Protocol):
    """Anything with ``fileno()``."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


FileDescriptorLike = Union[int, HasFileno]  # noqa: UP007  (needed at run time by those who inspect annotations)
"""An open file descriptor, or an object whose ``fileno()`` is one."""

_OPCODE_NAMES = {
    IOCB_CMD_PREAD: "pread",
    IOCB_CMD_PWRITE: "pwrite",
    IOCB_CMD_FSYNC: "fsync",
    IOCB_CMD_FDSYNC: "fdsync",
    IOCB_CMD_POLL: "poll",
    IOCB_CMD_PREADV: "preadv",
    IOCB_CMD_PWRITEV: "pwritev",
}


def descriptor(file: FileDescriptorLike) -> int:
    """The int of a descriptor or of an object with ``fileno()``.  TypeError if it is neither."""
    fileno = getattr(file, "fileno", None)
    number: Any = file if fileno is None else fileno()
    try:
        return index(number)
    except TypeError:
        if fileno is not None:
            raise TypeError(f"fileno() returned {type(number).__name__}, not int") from None
    raise TypeError(f"a file descriptor or an object with fileno() is needed, not {type(file).__name__}")


class Iocb(ctypes.Structure):
    """One request, made by a ``prep_*`` function and handed to `Context.submit`.

    It is the ``struct iocb`` of libaio.h, filled once.  When its event was fetched it can be submitted again, to the
    same context or another, and ``offset`` (bytes from the start of the file) may be changed before.  Its buffer is
    exported for as long as the Iocb lives, and at least until its event: it can neither be freed nor resized.
    """

    # A ctypes structure because the engine wants this memory at an address, and because setting a field of it costs
    # 50 ns; a Python property over a memoryview costs more, and cffi's struct three times as much to make.
    __slots__ = ("_address", "_home", "_keep", "buffer")

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("reqprio", ctypes.c_uint16),
        ("fd", ctypes.c_int32),
        ("buf", ctypes.c_uint64),
        ("nbytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved2", ctypes.c_uint64),
        ("aio_flags", ctypes.c_uint32),
        ("resfd", ctypes.c_int32),
    )

    if TYPE_CHECKING:
        opcode: int
        """IOCB_CMD_* of linux/aio_abi.h."""
        fd: int
        """The file descriptor."""
        nbytes: int
        """Length in bytes; the number of buffers for preadv and pwritev."""
        offset: int
        """Where in the file, in bytes from its start.  Read when the request is submitted; set, it loses what is beyond
        64 bits."""
        rw_flags: int
        """``os.RWF_*``."""
        reqprio: int
        """The priority, if one was given."""
        aio_flags: int
        """IOCB_FLAG_* of linux/aio_abi.h."""
        resfd: int
        """The eventfd of the context that it was last submitted to, -1 if that had none."""

        def __hash__(self) -> int:
            """By identity."""
            ...
    else:
        __hash__ = object.__hash__

    buffer: Any
    """The buffer, or the list of buffers, that was given; None for fsync, fdsync and poll."""

    @property
    def busy(self) -> bool:
        """True from an accepted submit until `Context.getevents` or `Context.cancel` returned the event."""
        # Missing in one that no prep_* function has made, which no context takes.
        return getattr(self, "_home", None) is not None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a request can be neither copied nor pickled: its memory and its buffer's have one address")

    def __repr__(self) -> str:
        name = _OPCODE_NAMES.get(self.opcode, str(self.opcode))
        state = ", busy" if self.busy else ""
        return f"<Iocb {name} fd={self.fd} nbytes={self.nbytes} offset={self.offset}{state}>"


_PACK = struct.Struct("=QIIHHiQQqQIi").pack_into
_addressof = ctypes.addressof
_first_byte = ctypes.c_char.from_buffer


def _make(
    opcode: int,
    fd: FileDescriptorLike,
    buffer: Any,
    keep: Any,
    address: int,
    nbytes: int,
    offset: int,
    flags: int,
    ioprio: int | None,
) -> Iocb:
    iocb = Iocb()
    if type(fd) is not int:
        fd = descriptor(fd)
    try:
        if ioprio is None:
            _PACK(iocb, 0, 0, 0, flags, opcode, 0, fd, address, nbytes, offset, 0, 0, -1)
        else:
            _PACK(iocb, 0, 0, 0, flags, opcode, ioprio, fd, address, nbytes, offset, 0, IOCB_FLAG_IOPRIO, -1)
    except struct.error as error:
        if opcode == IOCB_CMD_POLL:
            raise bad_argument(fd=fd, events=address) from error
        raise bad_argument(fd=fd, offset=offset, flags=flags, ioprio=ioprio or 0) from error
    iocb._address = _addressof(iocb)
    # The ring that it is in flight in.
    iocb._home = None
    iocb._keep = keep
    iocb.buffer = buffer
    return iocb


def bad_argument(**arguments: Any) -> Exception:
    """The exception for arguments of which one does not fit into an iocb."""
    for name, value in arguments.items():
        try:
            index(value)
        except TypeError:
            return TypeError(f"{name} must be an int, not {type(value).__name__}")
    return OverflowError(f"out of range: {', '.join(f'{name}={value}' for name, value in arguments.items())}")


def prep_pread(fd: FileDescriptorLike, buf: Buffer, offset: int, *, flags: int = 0, ioprio: int | None = None) -> Iocb:
    """Read at ``offset`` into a writable buffer, as many bytes as it has.

    flags: ``os.RWF_*``.  ioprio: as in `ioprio_set(2)`.  The event's ``res`` is the number of bytes read, fewer at
    the end of the file.  TypeError or BufferError if buf is not a writable contiguous buffer.
    """
    keep: Any
    try:
        keep = _first_byte(buf)  # exports the buffer, half the cost of cffi's way
        address = _addressof(keep)
    except (TypeError, ValueError):  # read-only or empty
        keep = pin(buf, True)
        address = address_of(keep)
    try:
        nbytes = len(buf) if type(buf) is bytearray else memoryview(buf).nbytes
    except ValueError:  # numpy has no format for some of its types
        nbytes = len(pin(buf, True))
    return _make(IOCB_CMD_PREAD, fd, buf, keep, address, nbytes, offset, flags, ioprio)


def prep_pwrite(fd: FileDescriptorLike, buf: Buffer, offset: int, *, flags: int = 0, ioprio: int | None = None) -> Iocb:
    """Write the buffer's bytes at ``offset``.  The event's ``res`` is the number of bytes written."""
    keep = pin(buf, False)
    return _make(IOCB_CMD_PWRITE, fd, buf, keep, address_of(keep), len(keep), offset, flags, ioprio)


def vector(buffers: Sequence[Buffer], writable: bool) -> tuple[Any, list[Any]]:
    """An iovec array, and the exports that must live for as long as it is used."""
    pins = [pin(buffer, writable) for buffer in buffers]
    return ffi.new("las_iovec[]", [(memory, len(memory)) for memory in pins]), pins


def _make_vector(
    opcode: int, fd: FileDescriptorLike, buffers: Sequence[Buffer], offset: int, flags: int, ioprio: int | None
) -> Iocb:
    buffers = list(buffers)
    iov, pins = vector(buffers, opcode == IOCB_CMD_PREADV)
    return _make(opcode, fd, buffers, (iov, pins), address_of(iov), len(pins), offset, flags, ioprio)


def prep_preadv(
    fd: FileDescriptorLike, buffers: Sequence[Buffer], offset: int, *, flags: int = 0, ioprio: int | None = None
) -> Iocb:
    """Read at ``offset`` into several writable buffers, one after the other.  As `os.preadv`; at most 1024 buffers."""
    return _make_vector(IOCB_CMD_PREADV, fd, buffers, offset, flags, ioprio)


def prep_pwritev(
    fd: FileDescriptorLike, buffers: Sequence[Buffer], offset: int, *, flags: int = 0, ioprio: int | None = None
) -> Iocb:
    """Write several buffers, one after the other, at ``offset``.  As `os.pwritev`; at most 1024 buffers."""
    return _make_vector(IOCB_CMD_PWRITEV, fd, buffers, offset, flags, ioprio)


def prep_fsync(fd: FileDescriptorLike, *, ioprio: int | None = None) -> Iocb:
    """Make data and metadata durable.  The event's ``res`` is 0."""
    return _make(IOCB_CMD_FSYNC, fd, None, None, 0, 0, 0, 0, ioprio)


def prep_fdsync(fd: FileDescriptorLike, *, ioprio: int | None = None) -> Iocb:
    """Make data durable, and of the metadata what is needed to read it.  The event's ``res`` is 0."""
    return _make(IOCB_CMD_FDSYNC, fd, None, None, 0, 0, 0, 0, ioprio)


def prep_poll(fd: FileDescriptorLike, events: int) -> Iocb:
    """Wait, once, for ``select.POLL*`` events (a mask).  The event's ``res`` is the mask of those that happened."""
    return _make(IOCB_CMD_POLL, fd, None, None, events, 0, 0, 0, None)


assert ctypes.sizeof(Iocb) == IOCB_BYTES  # noqa: S101
