"""`Batch`: many transfers in one call."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
from pathlib import Path

import pytest
from python_tests import BLOCK, Stall, in_child, raises_errno

from libaio_shim import Batch


def test_each_buffer_gets_its_offset(fd: int, payload: bytes) -> None:
    """Run after run, also with fewer offsets than buffers, also with none."""
    buffers = [bytearray(BLOCK) for _ in range(16)]
    with Batch(fd, buffers) as batch:
        assert len(batch) == 16
        for shift in range(3):
            offsets = [(i * 5 + shift) % 16 * BLOCK for i in range(16)]
            assert batch.run(offsets) == [BLOCK] * 16
            assert [bytes(buffer) for buffer in buffers] == [payload[o : o + BLOCK] for o in offsets]
        assert batch.run([15 * BLOCK, 15 * BLOCK + 10, 16 * BLOCK]) == [BLOCK, BLOCK - 10, 0]
        assert batch.run([]) == []


def test_writes(fd: int, path: Path) -> None:
    """The other direction; read-only buffers will do."""
    with Batch(fd, [b"one", memoryview(b"two"), bytearray(b"three")], write=True) as batch:
        assert batch.run([0, 10, 20]) == [3, 3, 5]
    assert path.read_bytes()[:26] == b"oneAAAAAAAtwoAAAAAAAthreeA"


def test_results_keep_their_places_when_they_come_late(stall: Stall, stalled_fd: int, payload: bytes) -> None:
    """In whatever order the device answers."""
    buffers = [bytearray(size) for size in range(1, 17)]
    with Batch(stalled_fd, buffers) as batch:
        offsets = [(16 - i) * 3000 for i in range(16)]
        with stall.holding():
            threading.Timer(0.05, stall.release).start()
            assert batch.run(offsets) == list(range(1, 17))
        assert [bytes(b) for b in buffers] == [payload[o : o + len(b)] for o, b in zip(offsets, buffers, strict=True)]


def test_failures_are_raised_when_all_is_done(fd: int, path: Path) -> None:
    """What is refused, and what fails later; then the batch is as good as before."""
    buffers = [bytearray(8) for _ in range(4)]
    with Batch(fd, buffers) as batch:
        with raises_errno(errno.EINVAL):
            batch.run([0, 8, -1, 16])
        assert buffers[1] == b"A" * 8
        assert batch.run([0, 1, 2, 3]) == [8] * 4
        with pytest.raises(ValueError, match="5 offsets for 4 buffers"):
            batch.run([0] * 5)
        with pytest.raises(TypeError):
            batch.run(["0"])  # type: ignore[list-item]
        with pytest.raises(OverflowError):
            batch.run([1 << 70])
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with Batch(direct, buffers) as batch, raises_errno(errno.EINVAL):
        batch.run([1, 2, 3, 4])
    os.close(direct)
    with Batch(-1, buffers) as batch, raises_errno(errno.EBADF):
        batch.run([0])
    with pytest.raises(ValueError, match="at least one"):
        Batch(fd, [])
    with pytest.raises(BufferError):
        Batch(fd, [b"read-only"])


def test_closed_means_closed(fd: int) -> None:
    """The buffers are free, further runs are ValueError; a forgotten one is named."""
    buffer = bytearray(8)
    batch = Batch(fd, [buffer])
    with pytest.raises(BufferError):
        buffer.clear()
    batch.close()
    batch.close()
    buffer.clear()
    with pytest.raises(ValueError, match="closed"):
        batch.run([0])
    forgotten = Batch(fd, [bytearray(8)])
    with pytest.warns(ResourceWarning, match="unclosed <libaio_shim.Batch of 1>"):  # noqa: PT031
        del forgotten
        gc.collect()


def test_a_signal_handler_that_raises_waits_for_the_device(stall: Stall, stalled_fd: int) -> None:
    """The exception comes when no buffer is in use any more."""

    class Stop(Exception):  # noqa: N818
        pass

    def handler(number: int, frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, handler)
    buffers = [bytearray(8) for _ in range(4)]
    try:
        with Batch(stalled_fd, buffers) as batch, stall.holding():
            threading.Timer(0.1, stall.release).start()
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(Stop):
                batch.run([0, 8, 16, 24])
            assert buffers == [b"A" * 8] * 4
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: fork in a process that has threads
def test_a_forked_child_has_a_dead_batch(fd: int) -> None:
    """EINVAL, and closing is possible."""

    def child() -> int:
        try:
            batch.run([0])
        except OSError as error:
            batch.close()
            return 0 if error.errno == errno.EINVAL else 1
        return 2

    with Batch(fd, [bytearray(8)]) as batch:
        assert in_child(child) == 0
        assert batch.run([0]) == [8]


def test_threads_take_turns(fd: int, payload: bytes) -> None:
    """Runs do not mix."""
    buffers = [bytearray(16) for _ in range(8)]
    with Batch(fd, buffers) as batch:

        def work(which: int) -> None:
            for i in range(200):
                assert batch.run([(which * 1000 + i * 8) % 60_000] * 8) == [16] * 8

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
