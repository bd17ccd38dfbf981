"""The interposer on aarch64: compiled by a cross compiler, run in user-mode emulation."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import conformance
import needs
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = HERE / "syscall.c"
SYSTEM = Path("/usr/aarch64-linux-gnu")
# The emulator has no preadv2, and checks statx in an order of its own.
NOT_EMULATED = {"library_and_numbers_mix_on_one_context", "neighbouring_numbers_are_the_kernels"}
CASES = [case for case in conformance.cases(SOURCE) if case not in NOT_EMULATED]


@pytest.fixture(scope="module")
def compiler() -> str:
    """The cross compiler."""
    if platform.machine() == "aarch64":
        pytest.skip("n/a: this is one, and test_syscall.py runs on it")
    if not (SYSTEM / "include").exists():
        pytest.skip("no C library for aarch64 (apt-get install libc6-dev-arm64-cross)")
    return needs.program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")


@pytest.fixture(scope="module")
def arm_build(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Makefile's products for aarch64."""
    build = tmp_path_factory.mktemp("aarch64")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "CC", "CFLAGS"))}
    command = ["make", "-C", str(ROOT), "-s", "build", f"BUILD={build}", f"CC={compiler}", "CFLAGS=-O2"]
    subprocess.run([*command, "CFLAGS_EXTRA=-Werror"], env=clean, check=True)
    return build


@pytest.fixture(scope="module")
def program(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """syscall.c for aarch64."""
    output = tmp_path_factory.mktemp("program") / "syscall"
    support = ROOT / "tests" / "support"
    sources = [str(source) for source in (SOURCE, support / "las_test.c", support / "raw_aio.c")]
    options = ["-std=gnu11", "-O1", "-pthread", f"-I{support}", f"-I{ROOT / 'include'}", "-o", str(output), *sources]
    subprocess.run([compiler, *options, "-ldl", "-lutil"], check=True)
    return output


@pytest.mark.parametrize("case", CASES)
def test_syscall_on_aarch64(arm_build: Path, program: Path, tmp_path: Path, case: str) -> None:
    """One case of syscall.c, with the shim before libc's syscall()."""
    emulator = needs.program("qemu-aarch64", "qemu-user")
    preload = f"LD_PRELOAD={arm_build / 'lib' / 'libaio_syscall.so'}"
    done = subprocess.run(
        [emulator, "-L", SYSTEM, "-E", preload, program, case],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if done.returncode == 77:
        assert case == "context_of_the_kernel_stays_the_kernels"  # the emulator has no AIO of its own
        return
    assert done.returncode == 0, done.stdout + done.stderr


def test_trap_is_not_built_for_aarch64(arm_build: Path) -> None:
    """Its instruction and its kernel interface are x86-64's."""
    assert not (arm_build / "lib" / "libaio_trap.so").exists()


def test_which_reads_aarch64_code(program: Path) -> None:
    """The numbers are found, and so is that nothing here can run it."""
    from libaio_shim.which import verdict

    found = verdict.judge(str(program))
    ways = [way for way in found.ways if way.how == "syscall"]
    assert ways
    for call in ("io_setup", "io_submit", "io_getevents", "io_pgetevents"):
        assert call in ways[0].detail
    assert any("architecture" in obstacle for obstacle in found.obstacles)
