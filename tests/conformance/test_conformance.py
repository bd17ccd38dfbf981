"""Every behaviour in docs and contract as one item: test_conformance[VARIANT-PROGRAM.CASE].

The kernel's AIO (variant "kernel") is the oracle; the other variants are the shim, linked or preloaded, with all lanes
or with some.  Where the two rightly differ the C source says DIFFERS("name").
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import conformance
import needs
import pytest
from filesystems import Mounts

TIMEOUT_S = 30
SKIPPED = 77
CASES = [
    pytest.param(variant, source, case, id=f"{variant.name}-{source.stem}.{case}")
    for variant in conformance.VARIANTS
    for source in conformance.programs()
    if conformance.covers(variant, source)
    for case in conformance.cases(source)
]


def _need(variant: conformance.Variant) -> None:
    if variant.build == "plain":
        needs.system_libaio()
    if variant.implementation == "kernel" and not conformance.kernel_has_aio():
        pytest.skip("the kernel gives no AIO here (a kernel with CONFIG_AIO, outside a sandbox that forbids io_setup)")
    if variant.implementation == "shim" and not (conformance.BUILD / "lib" / "libaio.so.1").exists():
        pytest.skip("the shim is not built (make build)")


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


def _environment(variant: conformance.Variant, mounts: Mounts) -> dict[str, str]:
    """The test run's own environment, less what would choose a library, plus what the variant wants."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LD_PRELOAD", "LIBAIO_SHIM"))}
    environment.update(mounts.env)
    environment.update(variant.environment())
    return environment


@pytest.mark.parametrize("variant", conformance.VARIANTS, ids=lambda variant: variant.name)
def test_the_shim_answers_where_it_should(variant: conformance.Variant, mounts: Mounts, tmp_path: Path) -> None:
    """Before anything else: the statistics line appears if and only if the shim is the library in use."""
    _need(variant)
    program = conformance.build_program(conformance.SOURCES / "setup.c", variant.build)
    line = tmp_path / "stats.json"
    environment = _environment(variant, mounts) | {"LIBAIO_SHIM_STATS": str(line)}
    subprocess.run([program, "contexts_are_independent"], cwd=tmp_path, env=environment, check=True, timeout=TIMEOUT_S)
    assert line.exists() == (variant.implementation == "shim")
    if line.exists():
        stats = json.loads(line.read_text())
        assert stats["contexts"] == 2
        assert stats["submitted"] == 3


@pytest.mark.parametrize(("variant", "source", "case"), CASES)
def test_conformance(variant: conformance.Variant, source: Path, case: str, mounts: Mounts, tmp_path: Path) -> None:
    """Runs one case in a process and a directory of its own."""
    _need(variant)
    program = conformance.build_program(source, variant.build)
    environment = _environment(variant, mounts)
    mounts.release()
    process = subprocess.Popen(
        [program, case],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        where = _where_it_hangs(process.pid)
        # A request that the stalling file system keeps cannot be killed: let it go first.
        mounts.release()
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"still running after {TIMEOUT_S} s:\n{where}\n{output.decode(errors='replace')}")
    text = output.decode(errors="replace")
    if process.returncode == SKIPPED:
        pytest.skip(text.strip())
    if process.returncode:
        pytest.fail(f"{program.name} {case}: {_exit_text(process.returncode)}\n{text}", pytrace=False)


def _exit_text(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
