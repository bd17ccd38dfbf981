"""Builds the conformance programs once and makes the file systems they want."""

from __future__ import annotations

from collections.abc import Iterator

import conformance
import filesystems
import pytest


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[filesystems.Mounts]:
    """Scratch file systems of many kinds, as an environment for the programs."""
    with filesystems.mounted(tmp_path_factory.mktemp("mounts"), conformance.build_stallfs) as made:
        yield made
