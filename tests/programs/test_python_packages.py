"""Python packages from PyPI that bring or bind AIO: caio (C, system calls by number), aiofile on it, libaio (cffi)."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import needs
import pytest
import sides
from table import tried

CAIO = """
import asyncio, os, sys
from caio.linux_aio_asyncio import AsyncioContext
from aiofile import async_open

async def main(path):
    context, fd = AsyncioContext(max_requests=64), os.open(path, os.O_RDWR | os.O_CREAT)
    blocks = [bytes([i]) * 4096 for i in range(200)]
    await asyncio.gather(*(context.write(block, fd, i << 12) for i, block in enumerate(blocks)))
    await context.fdsync(fd)
    assert await asyncio.gather(*(context.read(4096, fd, i << 12) for i in range(200))) == blocks
    context.close()
    async with async_open(path, "rb+", context=AsyncioContext()) as file:
        assert await file.read(8192) == blocks[0] + blocks[1]
        await file.write(b"tail")
    os.close(fd)

asyncio.run(main(sys.argv[1]))
"""
LIBAIO = """
import select, sys
from libaio import AIOBLOCK_MODE_READ, AIOBLOCK_MODE_WRITE, AIOBlock, AIOContext, EventFD

results = []
with open(sys.argv[1], "wb+", buffering=0) as file, EventFD() as eventfd, AIOContext(64) as context:
    blocks = [bytes([i]) * 4096 for i in range(50)]
    context.submit([
        AIOBlock(AIOBLOCK_MODE_WRITE, file, [bytearray(block)], i << 12, eventfd, lambda *them: results.append(them[1]))
        for i, block in enumerate(blocks)
    ])
    while len(results) < 50:
        select.select([eventfd], [], [])
        eventfd.read()
        context.getEvents(min_nr=None)
    assert results == [4096] * 50
    buffers = [bytearray(4096) for _ in blocks]
    context.submit([AIOBlock(AIOBLOCK_MODE_READ, file, [each], i << 12) for i, each in enumerate(buffers)])
    events = 0
    while events < 50:
        events += len(context.getEvents(1))
    assert buffers == [bytearray(block) for block in blocks]
"""


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def run(side: sides.Side, program: str, package: str, file: Path, requests: int) -> None:
    if not version(package):
        pytest.skip(f"{package} is not installed (pip install {package})")
    ran = side.run([sys.executable, "-c", program, file]).check()
    if side.is_shim:
        assert sum(line["submitted"] for line in ran.stats) >= requests


@tried("caio, aiofile", "python3, caio.linux_aio_asyncio", "raw system calls from C, eventfd in asyncio's loop",
       version=version("caio"))  # fmt: skip
def test_caio(side: sides.Side, ext4: Path) -> None:
    """Reads what it wrote, through both packages."""
    run(side, CAIO, "caio", ext4 / "file", 402)
    assert (ext4 / "file").read_bytes()[8192:8196] == b"tail"


@tried("libaio (PyPI)", "python3, libaio.AIOContext", "libaio bound from Python, eventfd", version=version("libaio"))
def test_libaio(side: sides.Side, ext4: Path) -> None:
    """Reads what it wrote; the library is opened by its name."""
    needs.system_libaio()
    run(side, LIBAIO, "libaio", ext4 / "file", 100)
