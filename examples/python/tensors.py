"""Saves and loads tensors (numpy arrays) past the page cache, with many requests in flight.

    python examples/python/tensors.py [--gib 1] [--depth 32] [FILE]

This is how training frameworks swap parameters and write checkpoints (DeepSpeed's async_io and the like): large
aligned blocks, O_DIRECT, a queue that is never empty, and no copy where memory is aligned.  One thread keeps the
device busy.

The file: a JSON header of one or more blocks of 4096 bytes, then each tensor, beginning at a multiple of 4096 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from libaio_shim import AlignedBuffer, Context, Event, Iocb, alignment, prep_pread, prep_pwrite

PAGE = 4096
BLOCK_BYTES = 1 << 20
MAGIC = b"tensors1"


def round_up(size: int) -> int:
    return -(-size // PAGE) * PAGE


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor with O_DIRECT where the file system has that, without where it has not (tmpfs)."""
    try:
        fd = os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC, 0o666)
    except OSError:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        if max(alignment(fd)) > PAGE:
            raise ValueError(f"{path}: blocks of {max(alignment(fd))} bytes are too large for this format")
        yield fd
    finally:
        os.close(fd)


def run(requests: Iterable[Iocb], depth: int) -> Iterator[Event]:
    """Keeps `depth` requests in flight; yields their events as they come.  A request is made when there is room."""
    coming = iter(requests)
    with Context(depth) as context:
        while True:
            for request in coming:
                context.submit(request)
                if context.in_flight >= depth:
                    break
            if not context.in_flight:
                return
            for event in context.getevents():
                if event.check() != event.iocb.nbytes:
                    raise EOFError(f"{event.res} of {event.iocb.nbytes} bytes at {event.iocb.offset}")
                yield event


def save(path: Path, tensors: Mapping[str, np.ndarray], depth: int = 32) -> int:
    """Writes tensors and returns the number of bytes.  Durable when it returns."""
    where: dict[str, tuple[str, list[int], int]] = {}
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    end = 0
    for name, array in arrays.items():
        where[name] = (array.dtype.str, list(np.shape(tensors[name])), end)
        end = round_up(end + array.nbytes)
    text = json.dumps(where).encode()
    head = MAGIC + len(text).to_bytes(8, "little") + text
    begin = round_up(len(head))

    # Blocks go through aligned buffers of our own, used again and again: arrays lie where they lie.
    free = [AlignedBuffer(BLOCK_BYTES) for _ in range(depth)]

    def pieces() -> Iterator[tuple[memoryview, int]]:
        yield memoryview(head), 0
        for name, array in arrays.items():
            if array.nbytes:
                yield array.data.cast("B"), begin + where[name][2]

    def requests(fd: int) -> Iterator[Iocb]:
        for data, offset in pieces():
            for start in range(0, len(data), BLOCK_BYTES):
                block = data[start : start + BLOCK_BYTES]
                buffer = free.pop()
                buffer[: len(block)] = bytes(block) if len(block) < BLOCK_BYTES else block
                size = round_up(len(block))
                request = prep_pwrite(fd, memoryview(buffer)[:size], offset + start)
                buffers[request] = buffer
                yield request

    buffers: dict[Iocb, AlignedBuffer] = {}
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd:
        os.ftruncate(fd, begin + end)
        for event in run(requests(fd), depth):
            free.append(buffers.pop(event.iocb))
        os.fsync(fd)
    return begin + end


def load(path: Path, depth: int = 32) -> dict[str, np.ndarray]:
    """Reads the tensors; they share one piece of memory, into which the device wrote them."""
    with opened(path, os.O_RDONLY) as fd:
        first = AlignedBuffer(PAGE)
        for _ in run([prep_pread(fd, first, 0)], 1):
            pass
        if first[: len(MAGIC)] != MAGIC:
            raise ValueError(f"{path} holds no tensors")
        length = int.from_bytes(first[8:16], "little")
        begin = round_up(16 + length)
        size = os.fstat(fd).st_size
        memory = AlignedBuffer(size)
        view = memoryview(memory)
        blocks = range(0, size, BLOCK_BYTES)
        for _ in run((prep_pread(fd, view[at : at + BLOCK_BYTES], at) for at in blocks), depth):
            pass
    where = json.loads(memory[16 : 16 + length])
    return {
        name: np.frombuffer(memory, dtype, int(np.prod(shape)), begin + offset).reshape(shape)
        for name, (dtype, shape, offset) in where.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="how much to save and load (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=32, help="requests in flight (default: %(default)s)")
    parser.add_argument("file", type=Path, nargs="?", help="default: a temporary file")
    arguments = parser.parse_args()
    generator = np.random.default_rng(1)
    layers = max(int(arguments.gib * 64), 1)
    tensors = {f"layer{i}.weight": generator.random((1024, 2048)) for i in range(layers)}
    tensors["step"] = np.array(1234)
    with tempfile.TemporaryDirectory() as directory:
        path = arguments.file or Path(directory, "tensors")
        begin = time.perf_counter()
        size = save(path, tensors, arguments.depth)
        saved = time.perf_counter()
        loaded = load(path, arguments.depth)
        end = time.perf_counter()
    if not all(np.array_equal(tensors[name], loaded[name]) for name in tensors):
        raise SystemExit("what was loaded is not what was saved")
    print(f"{size / 1e6:,.0f} MB saved at {size / 1e6 / (saved - begin):,.0f} MB/s, durable")
    print(f"{size / 1e6:,.0f} MB loaded at {size / 1e6 / (end - saved):,.0f} MB/s, the page cache untouched")


if __name__ == "__main__":
    main()
