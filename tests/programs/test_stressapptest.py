"""stressapptest's disk thread: iocbs on the stack, one request at a time, a context per thread, O_DIRECT and O_SYNC."""

from __future__ import annotations

import os
from pathlib import Path

import needs
import pytest
import sides
from table import tried

SECONDS = (1, 10, 60)


@pytest.fixture
def disk(ext4: Path) -> Path:
    needs.program("stressapptest")
    path = ext4 / "disk"
    path.write_bytes(bytes(64 << 20))
    with path.open("rb") as written:
        os.fsync(written.fileno())
    return path


def run(side: sides.Side, disk: Path) -> sides.Ran:
    """It writes patterns to the file, reads them back and compares.

    Again and for longer if it came to nothing, or the disk, which all tests share, took longer than the five seconds after
    which the program takes it for broken.
    """
    for seconds in SECONDS:
        command = ["stressapptest", "-s", str(seconds), "-M", "16", "-m", "1", "-d", str(disk), "--destructive"]
        ran = side.run([*command, "--read-block-size", "4096", "--write-block-size", "4096"])
        if "Disk: 0.00M" not in ran.stdout and "Timeout doing async" not in ran.stdout:
            break
    return ran.check()


def test_the_shim_answers(shim: sides.Side, disk: Path) -> None:
    """The shim counts its requests."""
    assert sum(line["submitted"] for line in run(shim, disk).stats) > 0


@tried("stressapptest", "stressapptest -d FILE --destructive", "iocbs on the stack; data compared by itself",
       version="1.0.6")  # fmt: skip
def test_finds_no_error(side: sides.Side, disk: Path) -> None:
    """Its own comparison finds what it wrote, and it did write."""
    said = run(side, disk).stdout
    assert "Status: PASS" in said
    assert "0 errors" in said
    assert "Disk: 0.00M" not in said
