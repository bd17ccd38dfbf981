"""Runs one case of a C program of ours (las_test.h): what it is told, what its end means, and what it hangs in."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

SKIPPED = 77


def clean_environment() -> dict[str, str]:
    """The test run's own, without what chooses a library or tells the shim something."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("LD_PRELOAD", "LIBAIO_SHIM"))}


def run(
    command: Sequence[str | Path],
    directory: Path,
    environment: Mapping[str, str],
    seconds: int = 100,
    let_go: Callable[[], None] = lambda: None,
) -> None:
    """Runs it in that directory, with more environment, and fails or skips the test as it says.

    let_go: called before a program that hangs is killed, which may wait for something that cannot be.
    """
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=clean_environment() | dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        where = _where_it_hangs(process.pid)
        let_go()
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"still running after {seconds} s:\n{where}\n{output.decode(errors='replace')}", pytrace=False)
    text = output.decode(errors="replace")
    code = process.returncode
    if code == SKIPPED:
        pytest.skip(text.strip())
    if code:
        ended = f"exit {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
        pytest.fail(f"{' '.join(map(str, command))}: {ended}\n{text}", pytrace=False)


def _where_it_hangs(pid: int) -> str:
    """What each thread of a stuck process is doing, for the report."""
    lines = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            words = [(task / name).read_text().strip() for name in ("comm", "wchan", "syscall")]
        except OSError:
            continue
        lines.append(f"  {task.name}: {' | '.join(words)}")
    return "\n".join(lines)
