"""Files to work on: ordinary ones, and ones whose device answers when the test says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import conformance
import filesystems
import pytest
from python_tests import BLOCK, Stall


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
