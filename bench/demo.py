"""The demo: an ordinary libaio program reads a file on the kernel's AIO and on the shim, side by side.

    python bench/demo.py [--directory DIR] [--size MIB] [--rounds N] [--seconds S] [--no-fio] [--json F]

Makes a file of 1 GiB, compiles tests/programs/coldread.c (which includes only <libaio.h> and knows nothing of the
shim), and runs the same binary both ways in turn, the file's page cache dropped each time.  If fio is installed, the
same comparison with fio follows.  Who answered is read from /proc/PID/maps while the program runs and from the line
that the shim alone writes at exit (LIBAIO_SHIM_STATS).  The file is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from libaio_shim.bench import build, engines, places, report, rounds  # noqa: E402 - after the path is set
from libaio_shim.bench.engines import KERNEL, SHIM, Engine, Outcome  # noqa: E402

COLUMNS = (("", "<"), ("kernel AIO", ">"), ("libaio-shim", ">"), ("shim better by", ">"))
Measure = Callable[[Engine], tuple[dict[str, Any], Outcome]]


@dataclass
class Column:
    """All rounds of one engine, or the reason why there are none."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome | None = None
    absent: str = ""

    def median(self, metric: str) -> float:
        return statistics.median(rounds.look_up(sample, metric) for sample in self.samples)


def compare(measure: Measure, count: int, say: Callable[[str], None]) -> dict[str, Column]:
    """Runs the two engines in turn, `count` times each, the order changing from round to round."""
    columns = {KERNEL.name: Column(), SHIM.name: Column()}
    for number in range(count):
        for engine in (KERNEL, SHIM) if number % 2 == 0 else (SHIM, KERNEL):
            column = columns[engine.name]
            if column.absent:
                continue
            say(f"round {number + 1} of {count}: {engine.name}")
            try:
                sample, outcome = measure(engine)
                column.samples.append(sample)
                if outcome.libraries or not column.outcome:  # a short run may end before it is looked at
                    column.outcome = outcome
            except engines.NoAioError:
                column.absent = "no AIO here"
            except engines.RunError as error:
                if engine.shim:
                    raise
                column.absent = "failed"
                print(error, file=sys.stderr)
    return columns


def rows(columns: dict[str, Column]) -> list[list[str]]:
    """The lines of the table: medians over the rounds, and how many times better the shim is."""
    kernel, shim = columns[KERNEL.name], columns[SHIM.name]
    lines = []
    for name, metric in (
        ("reads per second", "iops"),
        ("io_submit p50, us", "submit_us.p50"),
        ("io_submit p99, us", "submit_us.p99"),
        ("io_submit max, us", "submit_us.max"),
    ):
        cells = [column.absent or report.number(column.median(metric)) for column in (kernel, shim)]
        ratio = ""
        if kernel.samples and shim.samples:
            base, mine = kernel.median(metric), shim.median(metric)
            better = mine / base if metric == "iops" else base / mine if mine else 0
            ratio = f"{report.number(better)} x" if better else ""
        lines.append([name, *cells, ratio])
    answered = [column.outcome.answered_by() if column.outcome else column.absent for column in (kernel, shim)]
    lines.append(["who answered", *answered, ""])
    return lines


def proof(columns: dict[str, Column]) -> list[str]:
    """What shows that each column is what it says."""
    lines = []
    for name, column in columns.items():
        if not column.outcome:
            continue
        mapped = ", ".join(_short(path) for path in column.outcome.libraries) or "nothing seen"
        lines.append(f"  {name:6} /proc/PID/maps: {mapped}")
        if column.outcome.stats:
            counts = {k: v for k, v in column.outcome.stats.items() if v and k not in ("pid", "program")}
            lines.append(f"  {'':6} LIBAIO_SHIM_STATS: {json.dumps(counts)}")
    return lines


def _short(path: str) -> str:
    place = Path(path)
    return str(place.relative_to(ROOT)) if place.is_relative_to(ROOT) else path


def coldread(file: Path, seconds: float) -> Measure:
    program = build.program("coldread", ROOT / "tests" / "programs" / "coldread.c")

    def measure(engine: Engine) -> tuple[dict[str, Any], Outcome]:
        command = [str(program), "--json", "--check", "--count=262144", f"--seconds={seconds}", str(file)]
        outcome = engines.run(engine, command)
        return json.loads(outcome.stdout), outcome

    return measure


def fio(file: Path, seconds: float) -> Measure:
    words = ["--name=demo", f"--filename={file}", "--rw=randread", "--bs=4k", "--iodepth=32", "--ioengine=libaio"]
    words += ["--invalidate=1", "--time_based", f"--runtime={round(seconds * 1000)}ms", "--slat_percentiles=1"]
    words += ["--output-format=json", "--percentile_list=50:99:99.9", f"--size={file.stat().st_size}", "--thread"]

    def measure(engine: Engine) -> tuple[dict[str, Any], Outcome]:
        outcome = engines.run(engine, [shutil.which("fio") or "fio", *words])
        return rounds.fio_sample(json.loads(outcome.stdout[outcome.stdout.index("{") :])), outcome

    return measure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="where the file is made")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="length of one run at most")
    parser.add_argument("--no-fio", action="store_true")
    parser.add_argument("--json", type=Path, metavar="F", help="write all samples to F")
    arguments = parser.parse_args()

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    results: dict[str, dict[str, Column]] = {}
    with tempfile.TemporaryDirectory(prefix="libaio-shim-demo-", dir=arguments.directory) as directory:
        file = Path(directory) / "data"
        print(f"making a file of {arguments.size} MiB in {arguments.directory}", flush=True)
        places.write_stamped(file, arguments.size << 20)
        jobs = {"coldread": coldread}
        if shutil.which("fio") and not arguments.no_fio:
            jobs["fio --ioengine=libaio"] = fio
        for name, job in jobs.items():
            try:
                columns = compare(job(file, arguments.seconds), arguments.rounds, say)
            except (build.BuildError, engines.RunError) as error:
                say("")
                print(error, file=sys.stderr)
                return 1
            say("")
            title = f"{name}: random 4 KiB reads, nothing cached, 32 in flight; medians of {arguments.rounds} rounds"
            if job is coldread:
                title += ", every block checked"
            print()
            report.show_table(title, COLUMNS, rows(columns))
            print("\n".join(proof(columns)), flush=True)
            results[name] = columns
    if "fio --ioengine=libaio" not in results and not arguments.no_fio:
        print("\nfio is not installed; with it (apt-get install fio) the same comparison with fio follows here")
    if arguments.json:
        samples = {name: {k: c.samples for k, c in columns.items()} for name, columns in results.items()}
        arguments.json.write_text(json.dumps({"machine": report.machine(), "rounds": samples}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except OSError as error:
        raise SystemExit(f"demo: {error.filename or 'the file'}: {error.strerror}") from None
