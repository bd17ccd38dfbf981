"""The table of programs that were tried, made from the tests that tried them (docs/programs.md)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest

_versions: dict[str, str] = {}


@dataclass
class Row:
    program: str
    version: str
    command: str
    exercises: str
    outcomes: dict[str, list[str]] = field(default_factory=dict)


_rows: dict[str, Row] = {}

# What is too large for a test.
BY_HAND = """\
## By hand

DeepSpeed 0.19.8 (PyPI, with torch 2.13.0+cpu and Python 3.11): its `AsyncIOBuilder().load()` built the real async_io
once on Debian's libaio-dev, then preloaded, and once on ours, found through `CFLAGS`, `LDFLAGS`, `CPATH`,
`LIBRARY_PATH` and `LD_RUN_PATH` set from `libaio-shim config`. Tensors written and read with `async_pwrite`,
`async_pread`, `sync_pwrite`, `sync_pread`, `aio_write` and `aio_read`, with blocks of 64 KiB at depth 8 and of 4 KiB
at depth 128, `single_submit` and `overlap_events` on and off, 1, 2 and 4 threads, on ext4 and tmpfs: the data was right
on the kernel, on the shim with all lanes, with `head,crew` and with `crew` alone, and linked with the shim. On ext4
each thread's part must be whole sectors, and `aio_write` needs an aligned tensor, on the kernel as on the shim.

The Linux Test Project (of August 2026), built from its sources, on ext4: all of `io_setup`, `io_destroy`, `io_submit`,
`io_cancel`, `io_getevents`, `io_pgetevents`, `aio01`, `aio02`, `aiocp`, `aiodio_append`, `aiodio_sparse`, `dio_sparse`,
`dirty` and `aio-stress` (29 runs) gave the same counts of passed and failed on the kernel and under `run --trap`.

xfstests (of January 2026), built from its sources, on ext4 and xfs: `fsx -A` in three modes, `fsstress` with `awrite`
and `aread`, `aiocp`, `aiodio_sparse2`, and the `aio-dio-regress` programs for races at the end of the file, in holes,
with fallocate, fcntl, stat and reflinks: the same exit statuses on the kernel and on the shim.

MySQL 9.7.4 (Debian unstable, in a chroot of its own), native AIO and O_DIRECT: initialized, filled with more than fits
its buffer pool, killed while it wrote, recovered: the same checksums on the kernel, on the shim, and with `head,crew`.

OceanBase seekdb 1.4.0 (PyPI, pylibseekdb), which brings a libaio of its own: filled over SQL, killed while it wrote,
recovered, read through an index: the same sums on all three. DiskANN (PyPI, diskannpy 0.7.0), whose wheel has libaio
under a name with a hash: an index built on disk and searched by two threads found the same neighbours on all three.

MariaDB's own test suite (mariadb-test 10.11.19, io_uring refused, native AIO and O_DIRECT): 15 tests of InnoDB that
crash, recover, purge and insert, in five page sizes, passed on all three. Debian unstable's QEMU 11.1.3 (`qemu-img
bench`, `convert -W`, `compare` on raw and qcow2), fio 3.41 (six jobs with verification, `--nowait`, `--sync=dsync`,
`--userspace_reap`) and MariaDB 11.8.9 (tables larger than its buffer pool) in the same chroot: the same checksums and
exit statuses on all three.

zvec 0.8.0 (PyPI, io_uring refused): an index of DiskANN's kind, 3,000 vectors, searched by four threads with 11,500
requests: the same neighbours on all three. pyvsag 0.18.5 (PyPI, a libaio under a name with a hash): an HGraph whose
precise vectors are read by AIO, built and searched with 110,000 requests, as quick as on the kernel.

sanlock as a daemon (without a watchdog): a lockspace joined, a lease held by a command, and left again.
qemu-system-x86_64 with its disk behind virtio-blk and virtio-scsi in an I/O thread, NVMe, AHCI, LSI SCSI and USB: the
same disk afterwards. fio with some 45 sets of options more than the table has (zones, verification by SHA-3, logs of
latencies, deduplication, priorities by block size, `/dev/null` and `/dev/full`, ...): the same exit statuses and
messages. Its `io_submit_mode=offload` hangs now and then while it starts its threads, on the kernel too; so does
btreplay (blktrace 1.2.0), which otherwise sent all 400 requests of a trace on all three.

fio, qemu-img, ioping and stress-ng with jemalloc, tcmalloc, libeatmydata, libfaketime, valgrind, gdb, strace,
bubblewrap, `unshare -Ur`, a sandbox without `/proc`, `chrt`, `ionice`, `taskset`, and limits on descriptors (14), the
stack, file size, locked memory and addresses: as on the kernel, and the shim answered. Valgrind notes `unknown 'how'
field` where the shim asks the kernel about a pointer.
""".splitlines()


def version(program: str, *arguments: str) -> str:
    """The first number with a dot that `program ARGUMENTS` prints, or its Debian package's."""
    key = " ".join([program, *arguments])
    if key not in _versions:
        path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        printed = ""
        if path and arguments:
            done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
            printed = done.stdout + done.stderr
        found = re.search(r"\d+(\.\d+)+", printed)
        _versions[key] = found.group() if found else ""
    return _versions[key]


def tried(program: str, command: str, exercises: str, *, version: str = "") -> pytest.MarkDecorator:
    """Marks a test as a line of the table."""
    return pytest.mark.tried(program=program, command=command, exercises=exercises, version=version)


def words(item: pytest.Item) -> dict[str, str]:
    """What the marker of a test says, and on which side it runs; empty for a test that is no line of the table."""
    mark = item.get_closest_marker("tried")
    if not mark:
        return {}
    parameters = getattr(item, "callspec", None)
    side = parameters.params.get("side", "both") if parameters else "both"
    return {**mark.kwargs, "side": str(side)}


def add_outcome(said: Any, outcome: str) -> None:
    """Counts one test.  said: what `words` gave, as pytest hands it on."""
    new = Row(said["program"], said["version"], said["command"], said["exercises"])
    row = _rows.setdefault(f"{new.program} {new.command}", new)
    row.outcomes.setdefault(said["side"], []).append(outcome)


def _result(outcomes: list[str]) -> str:
    if "failed" in outcomes:
        return "fails"
    passed = outcomes.count("passed")
    if not passed:
        return "not run"
    return "passes" if len(outcomes) == 1 else f"passes ({passed} variants)"


def render() -> str:
    """The page.  Programs in alphabetical order, commands in the order of the tests."""
    lines = [
        "# Programs tried on the shim",
        "",
        "Made by `pytest tests/programs --programs-table docs/programs.md`; not written by hand. Every program is the",
        "distribution's own binary or is compiled without knowing the shim; each runs on the kernel's AIO and on the",
        "shim, and both must give the same result.",
        "",
        "| program | command | kernel | shim | shim without kernel AIO | what it exercises |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(_rows.values(), key=lambda row: row.program):
        cells = []
        for side in ("kernel", "shim", "shim_without_kernel_aio"):
            cells.append(_result(row.outcomes.get(side, row.outcomes.get("both", []))))
        name = f"{row.program} {row.version}".strip()
        lines.append(f"| {name} | `{row.command}` | {' | '.join(cells)} | {row.exercises} |")
    lines += ["", *BY_HAND]
    return "\n".join(lines) + "\n"
