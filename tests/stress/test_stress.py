"""Many threads, signals, forks and recycled descriptors for a moment each; see tests/fuzz/README.md for longer runs."""

from __future__ import annotations

from pathlib import Path

import engine_programs
import pytest

CASES = engine_programs.cases("stress")


@pytest.mark.parametrize("build", engine_programs.BUILDS, ids=lambda build: build.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_stress(build: engine_programs.Build, case: engine_programs.Case, tmp_path: Path) -> None:
    """Runs one case in a process and a directory of its own."""
    engine_programs.run(build, case, tmp_path)
