"""ioping -A, which makes the system calls by number, one request at a time."""

from __future__ import annotations

from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

COUNT = 100
MODES = {
    "buffered": [],
    "direct": ["-D"],
    "writes": ["-W", "-y"],
    "direct writes": ["-D", "-W"],
    "reads and writes": ["-W", "-G", "-D"],
    "cached": ["-C", "-L"],
}


@tried("ioping", "ioping -A, " + str(len(MODES)) + " modes", "raw system calls, depth 1",
       version=version("ioping", "-v"))  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_every_request_is_answered(side: sides.Side, ext4: Path, mode: str) -> None:
    """As many as were asked for, less the first, which warms up; the shim counts them all."""
    needs.program("ioping")
    ran = side.run(["ioping", "-A", *MODES[mode], "-B", "-c", str(COUNT), "-i", "0", "-S", "1m", ext4]).check()
    assert int(ran.stdout.split()[0]) == COUNT - 1
    if side.is_shim:
        assert sum(line["submitted"] for line in ran.stats) == COUNT
