"""What all tests share: the directory under test, and what happens to skipped tests.

A test that this machine cannot run is skipped with a reason that says how to enable it, for example
``pytest.skip("fio is not installed (apt-get install fio)")``.  At the end the reasons are listed.  With
LIBAIO_SHIM_NO_SKIP=1 (or --no-skip) a skipped test is a failed one: the machine was meant to run everything.
A reason that begins with ``n/a:`` is no lack of this machine (another processor's test, say) and never a failure.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skip",
        action="store_true",
        default=os.environ.get("LIBAIO_SHIM_NO_SKIP", "0") not in ("", "0"),
        help="a skipped test is a failed test (also: LIBAIO_SHIM_NO_SKIP=1)",
    )


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """What `make build` left: ``lib`` and ``bin``.  `make BUILD=... test` passes another one."""
    path = Path(os.environ.get("LIBAIO_SHIM_BUILD") or ROOT / "build").resolve()
    if not (path / "lib" / "libaio.so.1").exists():
        pytest.skip("the shim is not built (make build)")
    return path


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Why the test was skipped, None if it was not (an expected failure is not)."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return None
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def fail_if_skipped(config: pytest.Config, report: Any) -> None:
    reason = skip_reason(report)
    if reason is not None and config.getoption("--no-skip") and not reason.startswith("n/a:"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be skipped: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    fail_if_skipped(item.config, outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    outcome = yield
    fail_if_skipped(collector.config, outcome.get_result())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reasons = collections.Counter(skip_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if not reasons:
        return
    terminalreporter.section("skipped, and what would enable it")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5}  {reason}")
