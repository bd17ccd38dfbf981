"""`--trap`: system calls made by the bare instruction, trap.c on the kernel and on the shim."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import case_program
import conformance
import needs
import pytest

SOURCE = Path(__file__).with_name("trap.c")
VARIANTS = {
    "kernel": conformance.Variant("kernel", "plain", "kernel"),
    "trap": conformance.Variant("trap", "plain", "shim", ("libaio_syscall.so", "libaio_trap.so")),
    "trap_crew": conformance.Variant("trap_crew", "plain", "shim", ("libaio_syscall.so", "libaio_trap.so"), "crew"),
    "trap_far": conformance.Variant("trap_far", "plain", "shim", ("libaio_syscall.so", "libaio_trap.so")),
    "trap_alone": conformance.Variant("trap_alone", "plain", "shim", ("libaio_trap.so",)),
}


CASES = [case for case in conformance.cases(SOURCE) if not case.startswith("helper_")]


@pytest.fixture(scope="session")
def far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that, preloaded first, has another one loaded between libc and the engine: they are no neighbours."""
    path = tmp_path_factory.mktemp("far") / "far.so"
    subprocess.run(["cc", "-shared", "-o", path, "-x", "c", "/dev/null", "-Wl,--no-as-needed", "-lm"], check=True)
    return path


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_trap(build_dir: Path, tmp_path: Path, far: Path, variant: str, case: str) -> None:
    """One case of trap.c in a process of its own."""
    how = VARIANTS[variant]
    if platform.machine() != "x86_64":
        pytest.skip("n/a: --trap is for x86-64")
    conformance.need(how)
    if how.implementation == "shim":
        needs.syscall_user_dispatch()
    environment = how.environment()
    if variant == "trap_far":
        environment["LD_PRELOAD"] = f"{far}:{environment['LD_PRELOAD']}"
    case_program.run([conformance.build_program(SOURCE, how.build), case], tmp_path, environment)


SANDBOX = conformance.SOURCES / "sandbox.c"


@pytest.mark.parametrize("case", conformance.cases(SANDBOX))
def test_trap_in_a_sandbox(build_dir: Path, tmp_path: Path, case: str) -> None:
    """The engine's second table of calls does without those that are forbidden, too."""
    how = conformance.Variant("trap_sandbox", "plain", "shim", (*conformance.PRELOAD, "libaio_trap.so"))
    if platform.machine() != "x86_64":
        pytest.skip("n/a: --trap is for x86-64")
    conformance.need(how)
    needs.syscall_user_dispatch()
    case_program.run([conformance.build_program(SANDBOX, how.build), case], tmp_path, how.environment())
