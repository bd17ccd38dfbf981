"""sysbench fileio in its asynchronous mode.

Its --validate is left out: sysbench checks and refills one buffer right after io_submit, which goes wrong on the
kernel's AIO too as soon as it is asynchronous (with --file-extra-flags=direct).
"""

from __future__ import annotations

import re
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

FILEIO = ["sysbench", "fileio", "--file-total-size=16M", "--file-num=4", "--file-io-mode=async", "--time=0"]
EVENTS = 2000


@pytest.fixture(autouse=True)
def prepared(ext4: Path) -> Path:
    """A directory with sysbench's files."""
    needs.program("sysbench")
    side = sides.Side("kernel", None, {})
    assert "16777216 bytes written" in side.run([*FILEIO, "prepare"], cwd=ext4).check().stdout
    return ext4


def run(side: sides.Side, directory: Path, *arguments: str) -> str:
    ran = side.run([*FILEIO, f"--events={EVENTS}", "--percentile=0", *arguments, "run"], cwd=directory).check()
    if side.is_shim:
        # All but its fsyncs between: those are plain system calls.
        assert sum(line["submitted"] for line in ran.stats) >= EVENTS * 0.9
    assert "FATAL" not in ran.stdout
    return ran.stdout


def test_the_shim_answers(shim: sides.Side, prepared: Path) -> None:
    """The shim counts sysbench's requests, and the kernel sees none of them."""
    needs.program("strace")
    run(shim, prepared, "--file-test-mode=rndrd")
    alone = sides.Side(shim.name, shim.launcher, {"LIBAIO_SHIM_LANES": "head,crew"})
    command = [*FILEIO, "--events=200", "--file-test-mode=rndrw", "run"]
    ran, calls = sides.aio_system_calls(alone, command, cwd=prepared)
    ran.check()
    assert calls == []


@tried("sysbench", "sysbench fileio --file-io-mode=async", "one context a thread, fsync between, partial reaps",
       version=version("sysbench", "--version"))  # fmt: skip
@pytest.mark.parametrize("flags", ["", "direct", "dsync"])
@pytest.mark.parametrize("mode", ["seqwr", "seqrewr", "seqrd", "rndrd", "rndwr", "rndrw"])
def test_mode(side: sides.Side, prepared: Path, mode: str, flags: str) -> None:
    """Every test mode ends well and counts the events that were asked for."""
    said = run(side, prepared, f"--file-test-mode={mode}", f"--file-extra-flags={flags}", "--threads=3",
               "--file-async-backlog=32")  # fmt: skip
    found = re.search(r"total number of events:\s+(\d+)", said)
    assert found
    assert int(found.group(1)) >= EVENTS
    assert [path.stat().st_size for path in sorted(prepared.iterdir())] == [4 << 20] * 4


@pytest.mark.parametrize("fsync", ["--file-fsync-all=on", "--file-fsync-mode=fdatasync", "--file-fsync-end=on"])
def test_fsync_modes(side: sides.Side, prepared: Path, fsync: str) -> None:
    """An fsync request after every write, fdsync instead, and one at the end."""
    run(side, prepared, "--file-test-mode=rndwr", fsync, "--file-block-size=4096")
