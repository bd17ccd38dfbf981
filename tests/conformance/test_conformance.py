"""Every behaviour in docs and contract as one item: test_conformance[VARIANT-PROGRAM.CASE].

The kernel's AIO (variant "kernel") is the oracle; the other variants are the shim, linked or preloaded, with all lanes
or with some.  Where the two rightly differ the C source says DIFFERS("name").
"""

from __future__ import annotations

import json
from pathlib import Path

import case_program
import conformance
import pytest
from filesystems import Mounts

CASES = [
    pytest.param(variant, source, case, id=f"{variant.name}-{source.stem}.{case}")
    for variant in conformance.VARIANTS
    for source in conformance.programs()
    if conformance.covers(variant, source)
    for case in conformance.cases(source)
]


def _environment(variant: conformance.Variant, mounts: Mounts) -> dict[str, str]:
    """What the programs find beside the test run's own environment."""
    return mounts.env | variant.environment()


@pytest.mark.parametrize("variant", conformance.VARIANTS, ids=lambda variant: variant.name)
def test_the_shim_answers_where_it_should(variant: conformance.Variant, mounts: Mounts, tmp_path: Path) -> None:
    """Before anything else: the statistics line appears if and only if the shim is the library in use."""
    conformance.need(variant)
    program = conformance.build_program(conformance.SOURCES / "setup.c", variant.build)
    line = tmp_path / "stats.json"
    environment = _environment(variant, mounts) | {"LIBAIO_SHIM_STATS": str(line)}
    case_program.run([program, "contexts_are_independent"], tmp_path, environment)
    assert line.exists() == (variant.implementation == "shim")
    if line.exists():
        stats = json.loads(line.read_text())
        assert stats["contexts"] == 2
        assert stats["submitted"] == 3


@pytest.mark.parametrize(("variant", "source", "case"), CASES)
def test_conformance(variant: conformance.Variant, source: Path, case: str, mounts: Mounts, tmp_path: Path) -> None:
    """Runs one case in a process and a directory of its own."""
    conformance.need(variant)
    program = conformance.build_program(source, variant.build)
    # A request that the stalling file system keeps cannot be killed: it is let go first.
    mounts.release()
    case_program.run([program, case], tmp_path, _environment(variant, mounts), let_go=mounts.release)
