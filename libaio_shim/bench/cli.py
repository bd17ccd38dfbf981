"""`libaio-shim bench`: chooses cases and engines, runs the rounds, shows and saves the results."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from libaio_shim.bench import build, engines, report
from libaio_shim.bench.cases import CASES, Case
from libaio_shim.bench.engines import ENGINES
from libaio_shim.bench.places import Places, UnavailableError
from libaio_shim.bench.rounds import CaseResult, run_case

DEFAULT_ROUNDS = 5
DEFAULT_SECONDS = 1.0


def wrong(message: str) -> NoReturn:
    """Ends the command, which could not do what was asked for."""
    raise SystemExit(f"libaio-shim: bench: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="libaio-shim bench", description=__doc__)
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="FILE|DIR|DEVICE",
        help="directory that stands for the disk (default: the current one), or a file or device, which is only read",
    )
    parser.add_argument("--case", action="append", default=[], metavar="PATTERN", help="only these cases; may repeat")
    parser.add_argument("--first", action="store_true", help="only the first five cases")
    parser.add_argument("--all", action="store_true", help="every case, not only those that have a target")
    parser.add_argument("--engine", action="append", default=[], metavar="NAME", help="engines; may repeat")
    parser.add_argument("--lanes", action="store_true", help="each lane of the shim alone as well")
    parser.add_argument("--fio", action="store_true", help="also through fio: kernel, shim, io_uring, posixaio")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds of each case (default {DEFAULT_ROUNDS})")
    parser.add_argument("--seconds", type=float, metavar="S", help=f"length of a run (default {DEFAULT_SECONDS:g})")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.3 s: to try things out, not to quote")
    parser.add_argument("--json", type=Path, metavar="F", help="write everything to F")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw F (.png or .svg); needs matplotlib")
    parser.add_argument("--list", action="store_true", help="list cases and engines, run nothing")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """What would otherwise be found out after minutes of measuring."""
    if arguments.rounds is not None and arguments.rounds < 1:
        wrong(f"--rounds {arguments.rounds}: at least one round is needed")
    if arguments.seconds is not None and not 0 < arguments.seconds < 3600:
        wrong(f"--seconds {arguments.seconds:g}: more than nothing, and less than an hour")
    if arguments.plot and arguments.plot.suffix not in (".png", ".svg"):
        wrong("--plot draws .png and .svg")
    if arguments.plot and not importlib.util.find_spec("matplotlib"):
        wrong("--plot needs matplotlib (pip install matplotlib)")
    for file in filter(None, (arguments.json, arguments.plot)):
        if file.is_dir() or not file.parent.is_dir():
            wrong(f"{file}: no such file can be made")


def choose_cases(arguments: argparse.Namespace) -> list[Case]:
    """Cases in the order of the list.  Raises SystemExit for a pattern that fits none."""
    if arguments.case:
        for pattern in arguments.case:
            if not fnmatch.filter(CASES, pattern):
                wrong(f"no case fits {pattern!r}; --list shows them")
        return [case for name, case in CASES.items() if any(fnmatch.fnmatch(name, p) for p in arguments.case)]
    if arguments.all:
        return list(CASES.values())
    group = "first" if arguments.first else "main"
    return [case for case in CASES.values() if group in case.groups]


def reads_of(cases: Sequence[Case], size: int) -> list[Case]:
    """Those cases that only read one file on the disk, fitted to a file of that size."""
    readers = [case for case in cases if case.place == "disk" and case.load.mode == "io" and not case.load.write]
    return [replace(case, load=replace(case.load, size=min(case.load.size, size))) for case in readers]


def _size_of(path: Path) -> int:
    """Of a file or device that is to be read.  Raises SystemExit for what cannot be."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as opened:
            size = opened.seek(0, 2)
    except OSError as error:
        wrong(f"{path}: {error.strerror}")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)) or size < 1 << 20:
        wrong(f"{path} is neither a directory, nor a file or device of at least 1 MiB")
    return size


def _list() -> None:
    for case in CASES.values():
        goal = f">= {case.target:.3g}" if case.target else f"<= {case.limit_us:g} us" if case.limit_us else ""
        print(f"{case.name:36} {case.place:13} {goal:12} {' '.join(sorted(case.groups))}")
    print("engines:", " ".join(ENGINES))


def _choose_engines(arguments: argparse.Namespace) -> list[str]:
    names: list[str] = arguments.engine or ["kernel", "shim"]
    if arguments.lanes:
        names = [*names, *(name for name in ENGINES if name.startswith("shim:") and name not in names)]
    for name in names:
        if name not in ENGINES:
            wrong(f"no engine {name!r}; there are {' '.join(ENGINES)}")
    return names


class _Progress:
    """One line on a terminal's stderr, rewritten; a line for each case elsewhere."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._live = sys.stderr.isatty()
        self._prefix = ""

    def case(self, number: int, count: int, case: Case) -> None:
        self._prefix = f"[{number}/{count}] "
        if not self._live:
            print(f"{self._clock()} {self._prefix}{case.name}", file=sys.stderr, flush=True)

    def __call__(self, text: str) -> None:
        if self._live:
            print(f"\r\x1b[K{self._clock()} {self._prefix}{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes}:{seconds:02}"


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 if everything that was to be measured was, 1 otherwise."""
    if arguments.list:
        _list()
        return 0
    _check(arguments)
    cases, names = choose_cases(arguments), _choose_engines(arguments)
    rounds = arguments.rounds or (3 if arguments.quick else DEFAULT_ROUNDS)
    seconds = arguments.seconds or (0.3 if arguments.quick else DEFAULT_SECONDS)
    fio_names = []
    if arguments.fio:
        fio_names = [n for n in ("kernel", "shim", "io_uring", "posixaio") if engines.fio_knows(ENGINES[n])]
        if not fio_names:
            print("fio is not installed; only our own load generator runs", file=sys.stderr)

    path: Path | None = arguments.path
    file = None
    if path and not path.is_dir():
        cases = reads_of(cases, _size_of(path))
        file, path = path, None

    results: list[CaseResult] = []
    incomplete = False
    progress = _Progress()
    try:
        build.aioload()
        if any(ENGINES[name].shim for name in (*names, *fio_names)):
            build.launcher()
        with Places(path) as places:
            for index, case in enumerate(cases, 1):
                progress.case(index, len(cases), case)
                try:
                    result = run_case(
                        case,
                        places,
                        names,
                        rounds=rounds,
                        seconds=seconds,
                        fio_names=fio_names,
                        progress=progress,
                        file=file,
                    )
                except UnavailableError as error:
                    progress.clear()
                    print(f"{case.name}: skipped: {error}\n", flush=True)
                    continue
                progress.clear()
                report.show(result)
                incomplete |= any(name not in result.samples for name in names if ENGINES[name].own)
                results.append(result)
    except build.BuildError as error:
        wrong(str(error))
    except KeyboardInterrupt:
        progress.clear()
        print("interrupted: what follows covers the cases that were finished", file=sys.stderr)
        incomplete = True
    summary(results)
    if arguments.json:
        report.write_json(arguments.json, results, {"rounds": rounds, "seconds": seconds, "quick": arguments.quick})
    if arguments.plot and not report.plot(arguments.plot, results):
        wrong("nothing to plot: no case ran on both the shim and its baseline")
    return int(incomplete)


def summary(results: Sequence[CaseResult]) -> None:
    """The targets, on a page; with the processor time of a request, and fio's io_uring where it ran."""
    rows = []
    for result in results:
        state = report.verdict(result, "shim")
        if state:
            reached = report.row(result, "shim")[2] if result.ratios("shim") else ""
            rows.append([result.case.name, reached, report.target(result), state, *report.asides(result)])
    if rows:
        report.show_table("targets", report.SUMMARY, rows)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    return run(_parser().parse_args(arguments))
