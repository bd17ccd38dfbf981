"""Shows results: a table (with rich where it is installed), JSON, and a plot (with matplotlib, an optional extra)."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from libaio_shim.bench.rounds import CaseResult, look_up

COLUMNS = (
    ("engine", "<"),
    ("ops/s", ">"),
    ("ratio", ">"),
    ("submit p50", ">"),
    ("p99", ">"),
    ("p99.9", ">"),
    ("max us", ">"),
    ("done p50", ">"),
    ("p99 us", ">"),
    ("cpu us/op", ">"),
    ("switches/op", ">"),
    ("lanes", "<"),
)


def number(value: float) -> str:
    """Three digits that matter, thousands with a comma."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def lanes(stats: dict[str, Any]) -> str:
    """Which lanes did the work, in percent of the requests."""
    total = stats.get("submitted") or 0
    shares = {name: stats.get(name, 0) / total for name in ("head", "native", "crew", "polled")} if total else {}
    return " ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)


def verdict(result: CaseResult, engine: str) -> str:
    """Whether the shim reached the case's target: "", "reached" or "missed"."""
    case = result.case
    if engine != "shim":
        return ""
    if engine not in result.samples:
        return "failed" if any(note.startswith(f"{engine}:") for note in result.notes) else ""
    if case.limit_us is not None:
        return "reached" if result.median(engine, case.metric) <= case.limit_us else "missed"
    ratios = result.ratios(engine)
    if case.target is None or not ratios:
        return ""
    return "reached" if statistics.median(ratios) >= case.target else "missed"


def target(result: CaseResult) -> str:
    case = result.case
    if case.limit_us is not None:
        return f"{case.metric} <= {number(case.limit_us)} us"
    return f">= {case.target:.3g}" if case.target else ""


def row(result: CaseResult, engine: str) -> list[str]:
    samples = result.samples[engine]

    def median(metric: str) -> str:
        try:
            return number(statistics.median(look_up(sample, metric) for sample in samples))
        except KeyError:
            return ""

    ratios = result.ratios(engine)
    baseline = engine in (result.case.baseline, f"fio:{result.case.baseline}")
    ratio = ""
    if ratios and not baseline:
        ratio = f"{number(statistics.median(ratios))} [{number(min(ratios))}..{number(max(ratios))}]"
    maximum = max((look_up(sample, "submit_us.max") for sample in samples), default=0)
    return [
        engine,
        median("iops"),
        "1" if baseline else ratio,
        median("submit_us.p50"),
        median("submit_us.p99"),
        median("submit_us.p99.9"),
        number(maximum),
        median("complete_us.p50"),
        median("complete_us.p99"),
        median("cpu_us_per_op"),
        median("switches_per_op"),
        lanes(samples[-1].get("stats", {})),
    ]


SUMMARY = (("case", "<"), ("shim", ">"), ("target", "<"), ("", "<"), ("cpu", ">"), ("shim/io_uring in fio", ">"))


def asides(result: CaseResult) -> list[str]:
    """Processor time per request as a multiple of the kernel's, and the shim against io_uring, both in fio."""
    cells = []
    pairs: tuple[tuple[str, str, str], ...] = (
        ("shim", "kernel", "cpu_us_per_op"),
        ("fio:shim", "fio:io_uring", "iops"),
    )
    for mine, base, metric in pairs:
        try:
            both = zip(result.values(mine, metric), result.values(base, metric), strict=False)
            cells.append(number(statistics.median(a / b for a, b in both)))
        except (KeyError, ZeroDivisionError, statistics.StatisticsError):
            cells.append("")
    return cells


def show_table(
    title: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], out: TextIO = sys.stdout
) -> None:
    """One table: boxed by rich if it is there and `out` is a terminal, otherwise aligned columns."""
    body = [list(line) for line in rows]
    try:
        if not out.isatty():
            raise ImportError
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(line[i]) for line in [[name for name, _ in columns], *body]) for i in range(len(columns))]
        print(title, file=out)
        for line in [[name for name, _ in columns], *body]:
            cells = (f"{cell:{align}{width}}" for cell, (_, align), width in zip(line, columns, widths, strict=True))
            print("  " + "  ".join(cells).rstrip(), file=out)
        return
    table = Table(title=title, title_justify="left")
    for name, align in columns:
        table.add_column(name, justify="right" if align == ">" else "left")
    for line in body:
        table.add_row(*line)
    Console(file=out).print(table)


def show(result: CaseResult, out: TextIO = sys.stdout) -> None:
    """The table of one case, as soon as its rounds are over."""
    rounds = max((len(samples) for samples in result.samples.values()), default=0)
    words = [result.case.name, f"({result.case.place})" if result.case.place else ""]
    words += [f"{rounds} round{'s' * (rounds != 1)}"]
    words += [f"target {target(result)}" if target(result) else "", verdict(result, "shim")]
    show_table("  ".join(word for word in words if word), COLUMNS, (row(result, name) for name in result.samples), out)
    for note in result.notes:
        print(f"  {note}", file=out)
    print(file=out, flush=True)


def machine() -> dict[str, Any]:
    """What was measured on; nothing that names the host."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "libc": " ".join(platform.libc_ver()),
    }


def as_json(results: Sequence[CaseResult], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything: each round's sample, and the medians that the tables show."""
    cases = {}
    for result in results:
        engines = {}
        for name, samples in result.samples.items():
            ratios = result.ratios(name)
            engines[name] = {
                "ratio": statistics.median(ratios) if ratios else None,
                "ratio_min": min(ratios, default=None),
                "ratio_max": max(ratios, default=None),
                "iops": result.median(name, "iops"),
                "verdict": verdict(result, name),
                "rounds": samples,
            }
        case = result.case
        cases[case.name] = {
            "place": case.place,
            "metric": case.metric,
            "baseline": case.baseline,
            "target": case.target,
            "limit_us": case.limit_us,
            "load": vars(case.load),
            "engines": engines,
            "notes": result.notes,
        }
    return {"machine": machine(), "settings": settings, "cases": cases}


def write_json(path: Path, results: Sequence[CaseResult], settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(as_json(results, settings), indent=1) + "\n")


def plot(path: Path, results: Sequence[CaseResult]) -> bool:
    """Ratios with their spread and targets on the left, p99 of io_submit on the right.  False if there are none."""
    import matplotlib as mpl  # an optional extra: only who asks for a plot needs it

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    shown = [result for result in results if result.ratios("shim")]
    if not shown:
        return False
    shown.reverse()
    positions = range(len(shown))
    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(12, 1.5 + 0.34 * len(shown)), layout="constrained"
    )
    medians = [statistics.median(result.ratios("shim")) for result in shown]
    low = [median - min(result.ratios("shim")) for median, result in zip(medians, shown, strict=True)]
    high = [max(result.ratios("shim")) - median for median, result in zip(medians, shown, strict=True)]
    left.barh(positions, medians, xerr=[low, high], color="#4878a8", error_kw={"ecolor": "#333333", "capsize": 2})
    for position, result in zip(positions, shown, strict=True):
        if result.case.target:
            left.plot([result.case.target] * 2, [position - 0.4, position + 0.4], color="#c03030", linewidth=2)
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(ticker.FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    left.set_yticks(list(positions), [result.case.name for result in shown])
    left.set_xlabel("shim / baseline (kernel AIO or epoll), median and spread; red: target")
    for name, color, mark in (("kernel", "#888888", "o"), ("shim", "#4878a8", "D")):
        points = [
            (result.median(name, "submit_us.p99"), position)
            for position, result in zip(positions, shown, strict=True)
            if name in result.samples
        ]
        right.plot([x for x, _ in points], [y for _, y in points], mark, color=color, label=name)
    right.set_xscale("log")
    right.set_xlabel("io_submit p99, microseconds")
    right.grid(axis="y", linewidth=0.3)
    right.legend()
    figure.savefig(path)
    pyplot.close(figure)
    return True
