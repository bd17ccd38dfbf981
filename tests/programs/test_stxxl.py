"""STXXL, containers and sorting on disk for C++, with its file type linuxaio: a thread of its own reaps for all."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import needs
import pytest
import sides
from table import tried

VERSION = "1.4.1"


@pytest.fixture(autouse=True)
def stxxl() -> None:
    needs.program("stxxl_tool", "libstxxl1-bin")


@tried("STXXL", "stxxl_tool benchmark_files -f linuxaio -p wv", "raw system calls, one thread reaps for all",
       version=VERSION)  # fmt: skip
@pytest.mark.parametrize("mode", [[], ["--no-direct"], ["--sync"]], ids=["direct", "buffered", "sync"])
@pytest.mark.parametrize("block", ["4KiB", "64KiB", "2MiB"])
def test_blocks_are_found_again(side: sides.Side, kernel: sides.Side, ext4: Path, block: str, mode: list[str]) -> None:
    """Two files at once; the program looks at every word that it wrote, and the files are as the kernel leaves them."""
    options = [*mode, "--block_size", block, "--batch_size", "16", "-p", "wv"]
    size = "4MiB" if block == "4KiB" else "32MiB"
    sums = []
    for each in (kernel, side):
        command = ["stxxl_tool", "benchmark_files", "-f", "linuxaio", *options, size, "one", "two"]
        ran = each.run(command, cwd=ext4).check()
        assert "Verify: all okay." in ran.stdout + ran.stderr
        assert (sum(line["submitted"] for line in ran.stats) >= 32) == each.is_shim
        sums.append([hashlib.sha256((ext4 / name).read_bytes()).digest() for name in ("one", "two")])
        for name in ("one", "two"):
            (ext4 / name).unlink()
    assert sums[0] == sums[1]


@tried("STXXL", "stxxl_tool benchmark_sort -M 16MiB 32MiB", "sorting of more than fits in memory", version=VERSION)
def test_sorts_on_disk(side: sides.Side, ext4: Path) -> None:
    """Runs are written, read ahead and merged, by three interfaces and for three kinds of elements."""
    (ext4 / "stxxl").write_text(f"disk={ext4}/disk,256MiB,linuxaio unlink\n")
    command = [shutil.which("env") or "env", f"STXXLCFG={ext4}/stxxl", "stxxl_tool", "benchmark_sort", "-M", "16MiB"]
    ran = side.run([*command, "32MiB"], cwd=ext4).check()
    said = ran.stdout + ran.stderr
    assert "I/O implementation: linuxaio" in said
    assert said.count("finished in") == 12
    assert (sum(line["submitted"] for line in ran.stats) >= 500) == side.is_shim
