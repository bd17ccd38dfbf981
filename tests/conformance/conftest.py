"""Builds the conformance programs once and makes the file systems they want."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

import conformance  # noqa: E402  (found through the line above)
import filesystems  # noqa: E402


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[filesystems.Mounts]:
    """Scratch file systems of many kinds, as an environment for the programs."""
    with filesystems.mounted(tmp_path_factory.mktemp("mounts"), conformance.build_stallfs) as made:
        yield made
