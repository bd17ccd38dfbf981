"""What libaio does beside calling the kernel: facade.c, on the system's library and on ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import conformance
import needs
import pytest

SOURCE = Path(__file__).with_name("facade.c")
VARIANTS = {
    "system": conformance.Variant("system", "plain", "kernel"),
    "linked": conformance.Variant("linked", "linked", "shim"),
    "preloaded": conformance.Variant("preloaded", "plain", "shim", ("libaio.so.1",)),
    "preloaded_t64": conformance.Variant("preloaded_t64", "plain", "shim", ("libaio.so.1", "libaio.so.1t64")),
}


@pytest.mark.parametrize("case", conformance.cases(SOURCE))
@pytest.mark.parametrize("variant", VARIANTS)
def test_facade(build_dir: Path, tmp_path: Path, variant: str, case: str) -> None:
    """One case of facade.c in a process of its own."""
    how = VARIANTS[variant]
    if how.build == "plain":
        needs.system_libaio()
    if how.implementation == "kernel" and not conformance.kernel_has_aio():
        pytest.skip("n/a: this kernel or sandbox gives no AIO to compare with")
    program = conformance.build_program(SOURCE, how.build)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LD_PRELOAD", "LIBAIO_SHIM"))}
    done = subprocess.run(
        [program, case],
        cwd=tmp_path,
        env=clean | how.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout
