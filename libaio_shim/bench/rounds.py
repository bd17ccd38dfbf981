"""Runs a case: every round runs all engines once, each round in another order; medians and ratios within a round.

Paired rounds compare what ran within seconds of each other, so that a machine that grows slow spoils a round, not
the ratio.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libaio_shim.bench import build, engines
from libaio_shim.bench.cases import Case, Load
from libaio_shim.bench.engines import ENGINES, KERNEL, Engine
from libaio_shim.bench.places import Places, UnavailableError

Sample = dict[str, Any]
EPOLL = Engine("epoll")


@dataclass
class CaseResult:
    """All rounds of one case: samples[engine][round], engines of fio as "fio:NAME"."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # engines that could not run, and why

    def values(self, engine: str, metric: str) -> list[float]:
        return [look_up(sample, metric) for sample in self.samples.get(engine, [])]

    def median(self, engine: str, metric: str) -> float:
        return statistics.median(self.values(engine, metric))

    def ratios(self, engine: str) -> list[float]:
        """Round by round, how much better than the baseline; made so that more is better."""
        baseline = f"fio:{KERNEL.name}" if engine.startswith("fio:") else self.case.baseline
        pairs = zip(self.values(engine, self.case.metric), self.values(baseline, self.case.metric), strict=False)
        return [mine / base if self.case.metric == "iops" else base / mine for mine, base in pairs if mine and base]


def look_up(sample: Sample, metric: str) -> float:
    """`submit_us.p99.9` is sample["submit_us"]["p99.9"]."""
    head, _, rest = metric.partition(".")
    value = sample[head]
    return float(value[rest] if rest else value)


def _aioload(engine: Engine, load: Load, path: Path | None, seconds: float) -> Sample:
    command = [str(build.aioload()), *load.aioload(str(path) if path else None, seconds)]
    outcome = engines.run(engine, command)
    sample: Sample = json.loads(outcome.stdout)
    sample["stats"] = outcome.stats
    sample["answered_by"] = outcome.answered_by()
    return sample


def _fio(engine: Engine, load: Load, path: Path, seconds: float) -> Sample | None:
    arguments = load.fio(str(path), engine.ioengine, seconds)
    if arguments is None:
        return None
    outcome = engines.run(engine, [shutil.which("fio") or "fio", *arguments])
    # fio may print warnings before its JSON.
    report = json.loads(outcome.stdout[outcome.stdout.index("{") :])
    return fio_sample(report) | {"stats": outcome.stats, "answered_by": outcome.answered_by()}


def fio_sample(report: dict[str, Any]) -> Sample:
    """fio's JSON in the words of aioload; of a mixed job the latencies of its reads."""
    job = report["jobs"][0]
    if job["error"]:
        raise engines.RunError(f"fio: error {job['error']}")
    directions = [job[name] for name in ("read", "write") if job[name]["total_ios"]]

    def latency(name: str) -> dict[str, float]:
        entry = directions[0][name]
        points = entry.get("percentile", {})
        return {
            "p50": points.get("50.000000", 0) / 1e3,
            "p99": points.get("99.000000", 0) / 1e3,
            "p99.9": points.get("99.900000", 0) / 1e3,
            "max": entry["max"] / 1e3,
            "mean": entry["mean"] / 1e3,
        }

    return {
        "ops": sum(direction["total_ios"] for direction in directions),
        "iops": sum(direction["iops"] for direction in directions),
        "submit_us": latency("slat_ns"),
        "complete_us": latency("lat_ns" if "percentile" in directions[0]["lat_ns"] else "clat_ns"),
    }


def run_case(
    case: Case,
    places: Places,
    names: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    fio_names: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
    file: Path | None = None,
) -> CaseResult:
    """All rounds of one case.  Raises UnavailableError if its place cannot be had."""
    path: Path | None = file
    seconds = max(seconds, case.least_seconds)
    if case.load.mode == "io" and path is None:
        path = places.file(case.place, "append" if case.load.extend else f"data-{case.load.size}", case.load.size)
    plan: list[tuple[str, Callable[[], Sample | None]]] = []

    def on_aioload(engine: Engine, load: Load) -> Callable[[], Sample | None]:
        return lambda: _aioload(engine, load, path, seconds)

    def on_fio(engine: Engine, at: Path) -> Callable[[], Sample | None]:
        return lambda: _fio(engine, case.load, at, max(seconds, 1))

    if case.versus:
        plan.append((EPOLL.name, on_aioload(EPOLL, case.versus)))
    plan += [(name, on_aioload(ENGINES[name], case.load)) for name in names if ENGINES[name].own]
    if path:
        if case.load.hot and fio_names:
            path.read_bytes()
        plan += [(f"fio:{name}", on_fio(ENGINES[name], path)) for name in fio_names]

    result = CaseResult(case)
    failed: set[str] = set()
    for number in range(rounds):
        # Turned by one each round: nobody always runs right after the same neighbour.
        turn = number % len(plan)
        for name, measure in plan[turn:] + plan[:turn]:
            if name in failed:
                continue
            progress(f"{case.name}: round {number + 1} of {rounds}: {name}")
            _settle(path)
            try:
                sample = measure()
            except (engines.RunError, UnavailableError) as error:
                failed.add(name)
                result.samples.pop(name, None)
                result.notes.append(f"{name}: {error}")
                continue
            if sample is None:
                failed.add(name)
            else:
                result.samples.setdefault(name, []).append(sample)
    return result


def _settle(path: Path | None) -> None:
    """One run's dirty pages are not the next one's burden."""
    if path and path.exists():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
