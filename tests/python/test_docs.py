"""The examples of docs/python.md run as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    """The pattern above still finds them."""
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("source", EXAMPLES, ids=[str(i) for i in range(len(EXAMPLES))])
def test_example_runs(source: str, tmp_path: Path) -> None:
    """By itself, in a directory with a file of a mebibyte; with all warnings, and it must not cause any."""
    for module in re.findall(r"^import (trio|aiofile|numpy)", source, re.MULTILINE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (pip install {module})")
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 4096)
    (tmp_path / "example.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), **environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), source
    assert done.stdout or "install()" in source


def test_tensors_come_back(tmp_path: Path) -> None:
    """examples/python/tensors.py saves and loads, and checks it itself."""
    pytest.importorskip("numpy", reason="numpy is not installed (pip install numpy)")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "python" / "tensors.py", "--gib", "0.05", tmp_path / "tensors"],
        env={"PYTHONPATH": str(ROOT), **environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "loaded at" in done.stdout


def environment() -> dict[str, str]:
    """What an example may know of the tests' environment."""
    return {name: value for name, value in os.environ.items() if name.startswith(("LIBAIO_SHIM_", "PATH", "TMPDIR"))}
