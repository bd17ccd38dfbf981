"""How fast is file I/O from Python?  libaio_shim beside everything else that PyPI has for it.

    python bench/python.py [--rounds N] [--rows hot-4k,...] [--json FILE] [--plot FILE] [--docs docs/python.md]

In every round each way does the same reads once, in random order, so that what disturbs the machine disturbs all; the
ratios are those of the same round, and medians of the rounds are shown.  What is not installed, or does not work here,
is named and left out (pip install aiofiles aiofile anyio libaio liburing; where the processor has no AVX-512, which
liburing's newest wheels need, 'liburing<2026', which is compiled at installation).

The *stall* of a row with a cold page cache is the longest time in which the event loop did not come round, measured by
a task that wants to run every half millisecond: the least and the median of the rounds, since what others do on the
machine only adds to it.  A loop that has nothing to do shows how much that is.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.python_ways import (  # noqa: E402 - after the path is set
    AIOFILES,
    ASYNC,
    CAIO,
    IDLE,
    LIBAIO,
    LIBURING,
    PREAD,
    PREADV,
    SHIM,
    SHIM_BATCH,
    SHIM_CAIO,
    SHIM_CONTEXT,
    SHIM_FILE,
    SHIM_INTO,
    THREAD,
    Job,
    Way,
)

# Before what is short and sensitive: machines that are given a share of a processor get it for 100 ms at a time.
SETTLE_SECONDS = 0.25
MARKS = ("<!-- begin: bench/python.py -->", "<!-- end: bench/python.py -->")


@dataclass
class Row:
    """One kind of work, the ways that can do it, and what is promised."""

    key: str
    title: str
    size: int
    depth: int
    count: int
    cold: bool
    ways: Sequence[Way]
    targets: Sequence[tuple[str, str, float]] = field(default=())


# Targets: ours, the peer ("best async": the quickest of those for coroutines), and the ratio of speeds to be reached.
ROWS = [
    Row(
        "hot-4k",
        "4 KiB, cached, one at a time",
        4096,
        1,
        4000,
        False,
        [SHIM, SHIM_INTO, SHIM_FILE, SHIM_CAIO, PREAD, *ASYNC],
        [
            (SHIM.name, AIOFILES.name, 40.0),
            (SHIM.name, "best caio", 4.0),
            (SHIM.name, THREAD.name, 1.0),
        ],
    ),
    Row(
        "hot-4k-32",
        "4 KiB, cached, 32 at once",
        4096,
        32,
        6400,
        False,
        [SHIM, SHIM_CAIO, SHIM_BATCH, SHIM_CONTEXT, PREAD, LIBAIO, LIBURING, *ASYNC],
        [(SHIM.name, "best async", 1.5), (SHIM_BATCH.name, PREAD.name, 0.8), (SHIM.name, THREAD.name, 1.0)],
    ),
    Row(
        "hot-1m",
        "1 MiB, cached, one at a time",
        1 << 20,
        1,
        200,
        False,
        [SHIM_INTO, SHIM, SHIM_CAIO, PREADV, *ASYNC],
        [(SHIM_INTO.name, PREADV.name, 0.9), (SHIM_INTO.name, THREAD.name, 1.0)],
    ),
    Row(
        "cold-4k-32",
        "4 KiB, page cache cold, 32 at once",
        4096,
        32,
        1024,
        True,
        [SHIM, SHIM_CAIO, IDLE, *ASYNC],
        [(SHIM.name, "best async", 1.0), (SHIM.name, THREAD.name, 1.0)],
    ),
    Row(
        "cold-1m",
        "1 MiB, page cache cold, in order, 4 at once",
        1 << 20,
        4,
        128,
        True,
        [SHIM, SHIM_CAIO, IDLE, *ASYNC],
        [(SHIM.name, "best async", 1.0), (SHIM.name, THREAD.name, 1.0)],
    ),
]
STALL_LIMIT_SECONDS = 0.002


@dataclass
class Result:
    """A row's measurements: for each way, the seconds and the stall of every round."""

    row: Row
    seconds: dict[str, list[float]] = field(default_factory=dict)
    stalls: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rate(self, name: str) -> float:
        """Reads a second."""
        return self.row.count / statistics.median(self.seconds[name])

    def ratio(self, ours: str, theirs: str) -> float:
        """How many times as fast, by the rounds' own ratios."""
        pairs = zip(self.seconds[ours], self.seconds[theirs], strict=True)
        return statistics.median(their / our for our, their in pairs)

    def stall(self, name: str) -> float:
        """The longest stall in the round in which it was shortest: what others do on the machine only adds to it."""
        return min(self.stalls[name])

    def best(self, names: Sequence[str]) -> str:
        """The quickest of those that took part."""
        return max((name for name in names if name in self.seconds), key=self.rate)

    def verdicts(self) -> Iterator[tuple[str, bool]]:
        """Each target in words, and whether it was reached."""
        for ours, theirs, least in self.row.targets:
            if theirs == "best caio":
                names = [way.name for way in CAIO if way.name in self.seconds]
                peer = self.best(names) if names else ""
            elif theirs == "best async":
                peer = self.best([way.name for way in ASYNC])
            else:
                peer = theirs
            if peer in self.seconds:
                ratio = self.ratio(ours, peer)
                yield f"{self.row.title}: {ours} is {ratio:.2f} x {peer} (target {least})", ratio >= least
        if self.row.cold:
            stall = self.stall(SHIM.name)
            machine = self.stall(IDLE.name)
            yield (
                f"{self.row.title}: stall {stall * 1000:.2f} ms (target < 2; idle loop {machine * 1000:.2f})",
                stall < STALL_LIMIT_SECONDS,
            )


def make_file(path: Path, size: int) -> None:
    """A file of random bytes, on the disk."""
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())


def offsets_of(row: Row, file_size: int) -> list[int]:
    """Where to read: at random, or in order for the large cold reads."""
    if row.cold and row.size > 4096:
        return [i * row.size % file_size for i in range(row.count)]
    return [block * row.size for block in random.choices(range(file_size // row.size), k=row.count)]  # noqa: S311


def prepare(fd: int, cold: bool) -> None:
    """Page cache empty, or full, of the file."""
    if cold:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return
    for offset in range(0, os.fstat(fd).st_size, 1 << 20):
        os.pread(fd, 1 << 20, offset)


def measure(row: Row, path: Path, rounds: int) -> Result:
    """All ways of a row, round by round."""
    result = Result(row)
    ways = []
    for way in row.ways:
        missing = way.missing()
        if missing:
            result.notes.append(f"{way.name} is left out: {missing}")
        else:
            ways.append(way)
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    prepare(fd, row.cold)
    for number in range(rounds + 1):  # the first does not count: imports, threads, lazy set-up
        offsets = offsets_of(row, size)
        for way in random.sample(ways, len(ways)):
            if row.cold:
                prepare(fd, True)
                time.sleep(SETTLE_SECONDS)
            job = Job(path, fd, row.size, row.depth, offsets, watch=row.cold)
            gc.collect()
            try:
                way.work(job)
            except Exception as error:  # a peer that fails must not end the others' benchmark
                result.notes.append(f"{way.name} failed: {error!r}")
                ways.remove(way)
                result.seconds.pop(way.name, None)
                result.stalls.pop(way.name, None)
                continue
            if number:
                result.seconds.setdefault(way.name, []).append(job.seconds)
                result.stalls.setdefault(way.name, []).append(job.stall_seconds)
    os.close(fd)
    return result


def number(value: float) -> str:
    """Three digits that matter, with thousands separated."""
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value, -max(digits, 0)):,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def stalls(result: Result, name: str) -> list[str]:
    """The two columns of the loop's stalls."""
    return [number(result.stall(name) * 1000), number(statistics.median(result.stalls[name]) * 1000)]


def table(result: Result) -> list[str]:
    """A row as a Markdown table, the quickest first."""
    row = result.row
    ours = row.ways[0].name
    head = ["", "reads/s", "ours / this"]
    if row.cold:
        head += ["total ms", "stalled ms, least", "median"]
    lines = [f"**{row.title}**", "", "| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name in sorted(result.seconds, key=result.rate, reverse=True):
        if name == IDLE.name:
            continue
        cells = [f"**{name}**" if "libaio_shim" in name else name, number(result.rate(name))]
        cells.append("1" if name == ours else f"{result.ratio(ours, name):.2f}")
        if row.cold:
            cells += [number(statistics.median(result.seconds[name]) * 1000), *stalls(result, name)]
        lines.append("| " + " | ".join(cells) + " |")
    if IDLE.name in result.stalls:
        lines.append(f"| {IDLE.name} | | | | {' | '.join(stalls(result, IDLE.name))} |")
    return [*lines, ""]


def environment() -> str:
    """On what this was measured."""
    versions = [f"Python {platform.python_version()}", f"Linux {platform.release().split('-')[0]}"]
    for module in ("aiofiles", "aiofile", "caio", "anyio", "libaio", "liburing"):
        with contextlib.suppress(Exception):
            from importlib.metadata import version

            versions.append(f"{module} {version(module)}")
    return f"{os.cpu_count()} CPUs, {', '.join(versions)}"


def plot(results: Sequence[Result], path: Path) -> None:
    """Total time and loop stall of the rows with a cold page cache."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cold = [result for result in results if result.row.cold]
    figure, axes = pyplot.subplots(len(cold), 1, figsize=(8, 3.2 * len(cold)), squeeze=False)
    for axis, result in zip(axes[:, 0], cold, strict=True):
        names = sorted(set(result.seconds) - {IDLE.name}, key=result.stall, reverse=True)
        totals = [statistics.median(result.seconds[name]) * 1000 for name in names]
        stalls = [result.stall(name) * 1000 for name in names]
        places = range(len(names))
        axis.barh(places, totals, color="#c8d3de", label="total")
        axis.barh(places, stalls, color="#c0392b", height=0.45, label="longest time in which the loop stood still")
        for place, stall in zip(places, stalls, strict=True):
            axis.text(max(totals) * 1.01, place, f"{stall:.1f} ms", va="center", fontsize=8, color="#c0392b")
        axis.set_yticks(places, names, fontsize=8)
        axis.set_xlabel("ms")
        axis.set_title(result.row.title, fontsize=10)
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", default=",".join(row.key for row in ROWS), help="default: %(default)s")
    parser.add_argument("--size", type=int, default=256, help="of the file, in MiB (default: %(default)s)")
    parser.add_argument("--dir", default=None, help="where the file is made (default: the temporary directory)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="needs matplotlib")
    parser.add_argument("--docs", type=Path, help="a Markdown file: the tables replace what is between its marks")
    arguments = parser.parse_args()
    chosen = arguments.rows.split(",")
    if unknown := set(chosen) - {row.key for row in ROWS}:
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        path = Path(directory, "file")
        make_file(path, arguments.size << 20)
        for row in ROWS:
            if row.key in chosen:
                results.append(measure(row, path, arguments.rounds))
                print("\n".join([*table(results[-1]), *results[-1].notes]), flush=True)
    missed = 0
    for result in results:
        for words, reached in result.verdicts():
            print("reached" if reached else "MISSED ", words)
            missed += not reached
    where = environment()
    if arguments.json:
        record = {
            "environment": where,
            "rounds": arguments.rounds,
            "rows": {r.row.key: {"seconds": r.seconds, "stalls": r.stalls, "notes": r.notes} for r in results},
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    if arguments.docs:
        text = arguments.docs.read_text()
        before, rest = text.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        load = ", ".join(f"{value:.0f}" for value in os.getloadavg())
        body = [
            f"`python bench/python.py --rounds {arguments.rounds}`: {where}.  Load averages at the end: {load}.",
            "",
        ]
        for result in results:
            body += table(result)
        arguments.docs.write_text("\n".join([before + MARKS[0], "", *body, MARKS[1] + after]))
    if arguments.plot:
        plot(results, arguments.plot)
    return missed != 0


if __name__ == "__main__":
    sys.exit(main())
