"""Random calls (README.md): answered like the kernel answers them, and survived.  A seed gives the sequence."""

from __future__ import annotations

import os
import re
from pathlib import Path

import engine_programs
import pytest

DIFFERENTIAL = engine_programs.ROOT / "tests" / "fuzz" / "differential.c"
# Its cases are the kinds of files.
KINDS = [
    engine_programs.Case(DIFFERENTIAL, name)
    for name in re.findall(
        r'^\t\{ "(\w+)", open_', (engine_programs.ROOT / "tests/unit/support/kinds.c").read_text(), re.MULTILINE
    )
]
CALLS = [case for case in engine_programs.cases("fuzz") if case.source.stem == "calls"]
LANES = {"all": "all", "head_crew": "head,crew", "crew": "crew"}


def settings(lanes: str, rounds: int) -> dict[str, str]:
    """What a program is told; LAS_FUZZ_ROUNDS outside is stronger."""
    return {"LIBAIO_SHIM_LANES": LANES[lanes], "LAS_FUZZ_ROUNDS": os.environ.get("LAS_FUZZ_ROUNDS", str(rounds))}


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda case: case.name)
def test_answers_like_the_kernel(kind: engine_programs.Case, lanes: str, tmp_path: Path) -> None:
    """The same random requests to kernel AIO and to the shim, on one kind of file."""
    rounds = 300 if lanes == "all" else 100
    engine_programs.run(engine_programs.PLAIN, kind, tmp_path, settings(lanes, rounds))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("build", engine_programs.BUILDS, ids=lambda build: build.name)
@pytest.mark.parametrize("case", CALLS, ids=lambda case: case.name)
def test_survives_and_loses_nothing(
    build: engine_programs.Build, case: engine_programs.Case, lanes: str, tmp_path: Path
) -> None:
    """Every call with every kind of argument."""
    engine_programs.run(build, case, tmp_path, settings(lanes, 1000))
