"""Memory for O_DIRECT, and what O_DIRECT asks of it."""

from __future__ import annotations

import errno
import mmap
import os
import platform
import stat
from pathlib import Path
from typing import Any, NamedTuple

from libaio_shim._iocb import FileDescriptorLike, descriptor
from libaio_shim._native import address_of, ffi, libc, pin


class AlignedBuffer(mmap.mmap):
    """`size` bytes of zeroed memory that begins at a multiple of `alignment` bytes, as O_DIRECT wants it.

    It is an anonymous private mapping, so it begins on a page, and has all that `mmap.mmap` has: the buffer protocol,
    slices, ``close()``, which raises BufferError while a request or a memoryview uses it.  numpy sees it as it is:
    ``numpy.frombuffer(AlignedBuffer(1 << 20), dtype)``.

    ValueError if size is not positive or if alignment is no power of two or larger than a page (no file system asks
    for more); OSError (ENOMEM) if there is not enough memory.
    """

    def __new__(cls, size: int, alignment: int = mmap.PAGESIZE) -> AlignedBuffer:
        """size: bytes, also what ``len()`` says; O_DIRECT transfers must be multiples of `Alignment.offset` long."""
        if alignment <= 0 or alignment & (alignment - 1):
            raise ValueError(f"alignment must be a power of two, not {alignment}")
        if alignment > mmap.PAGESIZE:
            raise ValueError(f"alignment must be at most a page ({mmap.PAGESIZE} bytes), not {alignment}")
        if size <= 0:
            raise ValueError(f"size must be positive, not {size}")
        return super().__new__(cls, -1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    @property
    def address(self) -> int:
        """Where it begins in memory."""
        return address_of(pin(self, True))


class Alignment(NamedTuple):
    """What a request on a file opened with O_DIRECT must be a multiple of, in bytes."""

    memory: int
    """The buffer's address."""
    offset: int
    """The offset in the file, and the length."""


_STATX_DIOALIGN = 0x2000
_AT_EMPTY_PATH = 0x1000
# struct statx is 256 bytes; stx_mask is its first word, stx_dio_mem_align and stx_dio_offset_align follow at 152.
_STATX_BYTES = 256
_STATX_DIO_WORDS = slice(152 // 4, 152 // 4 + 2)
# Older C libraries have no statx(); the system call has had the same number on all newer architectures.
_SYS_STATX = {"x86_64": 332, "aarch64": 291, "riscv64": 291, "ppc64le": 383, "s390x": 379}
# Right for every disk there is, and more than most ask for.
_FALLBACK = 4096


def alignment(fd: FileDescriptorLike) -> Alignment:
    """What O_DIRECT asks for on this file: by statx(2) where kernel (6.1) and file system tell, else guessed safely.

    The guess is the device's logical block size if it can be found, at least for block devices, and 4096 otherwise.
    OSError (EINVAL) if the file does not support O_DIRECT and says so; EBADF.
    """
    number = descriptor(fd)
    status = os.fstat(number)
    told = _statx_dioalign(number)
    if told is not None:
        if told.offset == 0:
            raise OSError(errno.EINVAL, "the file does not support O_DIRECT")
        return told
    device = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    block = _logical_block_size(device) or _FALLBACK
    return Alignment(block, block)


def _statx_dioalign(fd: int) -> Alignment | None:
    number = _SYS_STATX.get(platform.machine())
    if number is None:
        return None
    out: Any = ffi.new("uint32_t[]", _STATX_BYTES // 4)
    arguments = (("int", fd), ("char *", ffi.from_buffer(b"\0")), ("int", _AT_EMPTY_PATH), ("int", _STATX_DIOALIGN))
    result = libc.syscall(number, *(ffi.cast(kind, value) for kind, value in arguments), out)
    if result != 0 or not out[0] & _STATX_DIOALIGN:
        return None
    memory, offset = out[_STATX_DIO_WORDS]
    return Alignment(memory, offset)


def _logical_block_size(device: int) -> int | None:
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    # A partition has its queue in the disk's directory.
    for queue in (block / "queue", block / ".." / "queue"):
        try:
            return int((queue / "logical_block_size").read_text())
        except (OSError, ValueError):
            continue
    return None
