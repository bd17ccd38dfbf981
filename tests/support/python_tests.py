"""What the tests of the Python package share beside their fixtures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK = 4096


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
