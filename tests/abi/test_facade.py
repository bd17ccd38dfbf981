"""What libaio does beside calling the kernel: facade.c, on the system's library and on ours."""

from __future__ import annotations

from pathlib import Path

import case_program
import conformance
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
    conformance.need(how)
    case_program.run([conformance.build_program(SOURCE, how.build), case], tmp_path, how.environment())
