"""stress-ng's AIO stressors, which make raw system calls only."""

from __future__ import annotations

from pathlib import Path

import needs
import pytest
import sides
from table import tried, version


@pytest.fixture(autouse=True)
def stress_ng() -> None:
    needs.program("stress-ng")


def command(directory: Path, requests: int, workers: int = 2) -> list[str]:
    words = ["stress-ng", "--aiol", str(workers), "--aiol-ops", "2000", "--aiol-requests", str(requests), "--verify"]
    return [*words, "--temp-path", str(directory), "--timeout", "40", "--metrics-brief"]


def test_the_shim_answers(shim: sides.Side, shim_without_kernel_aio: sides.Side, ext4: Path) -> None:
    """Seen by strace: no AIO system call gets through (but stress-ng's own checks with bad arguments)."""
    needs.program("strace")
    if not (shim.launcher and (shim.launcher.parent.parent / "lib" / "libaio_syscall.so").exists()):
        pytest.skip("n/a: raw system calls reach the shim only with libaio_syscall.so, which is not built")
    ran, calls = sides.aio_system_calls(shim_without_kernel_aio, command(ext4, 16, 1))
    ran.check()
    assert [call for call in calls if "= -1 E" not in call] == []


@tried("stress-ng", "stress-ng --aiol N --verify", "raw system calls, bad arguments, several processes",
       version=version("stress-ng", "--version"))  # fmt: skip
@pytest.mark.parametrize("requests", [1, 16, 128])
def test_verifies(side: sides.Side, ext4: Path, requests: int) -> None:
    """Its own verification passes."""
    ran = side.run(command(ext4, requests)).check()
    assert "fail" not in ran.stdout + ran.stderr
