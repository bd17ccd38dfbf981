"""Files to work on: ordinary ones, and ones whose device answers when the test says so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import conformance
import filesystems
import pytest

BLOCK = 4096


@pytest.fixture(autouse=True, scope="session")
def _the_library(build_dir: Path) -> None:
    """Everything here needs the engine."""


@pytest.fixture
def payload() -> bytes:
    """Sixteen blocks, no two alike."""
    return b"".join(bytes([65 + block]) * BLOCK for block in range(16))


@pytest.fixture
def path(tmp_path: Path, payload: bytes) -> Path:
    """A file that holds the payload."""
    path = tmp_path / "file"
    path.write_bytes(payload)
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    """The file, open for reading and writing."""
    number = os.open(path, os.O_RDWR)
    yield number
    os.close(number)


class Stall:
    """A file system that keeps requests waiting between `hold` and `release`: what runs there, runs on."""

    def __init__(self, mount: Path) -> None:
        self._control = mount / ".control"
        self.path = mount / "file"

    def hold(self) -> None:
        self._control.write_bytes(b"hold")

    def release(self) -> None:
        self._control.write_bytes(b"release")

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Holds until the end of the block, however it ends: inside a ``with Context()``, whose end waits."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    def held(self) -> int:
        return int(self._control.read_text().split()[0])

    def wait_until_held(self, count: int) -> None:
        """Returns when that many requests have reached the device."""
        wait_until(lambda: self.held() >= count)


@contextmanager
def raises_errno(*codes: int) -> Iterator[None]:
    """The block raises OSError with one of these numbers."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  (what matters is the number)
        yield
    assert caught.value.errno in codes


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test's own time-out is the limit."""
    while not condition():
        time.sleep(0.001)


@pytest.fixture(scope="session")
def _mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[filesystems.Mounts]:
    with filesystems.mounted(tmp_path_factory.mktemp("mounts"), conformance.build_stallfs) as made:
        yield made


@pytest.fixture
def stall(_mounts: filesystems.Mounts, payload: bytes) -> Iterator[Stall]:
    """The stalling file system with a file that holds the payload."""
    if _mounts.stall is None:
        pytest.skip(_mounts.why_not("stall"))
    made = Stall(_mounts.stall)
    made.path.write_bytes(payload)
    with made.path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or the first reads may not ask for it
    yield made
    made.release()
    made.path.unlink()


@pytest.fixture
def stalled_fd(stall: Stall) -> Iterator[int]:
    """A descriptor of the file on the stalling file system."""
    number = os.open(stall.path, os.O_RDWR)
    yield number
    stall.release()
    os.close(number)


def in_child(work: Callable[[], int]) -> int:
    """The exit status of a forked child that runs work."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
