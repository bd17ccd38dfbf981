"""Type checkers know every public name, and agree with what it does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SAMPLE = """
from typing_extensions import assert_type
import libaio_shim
import libaio_shim.asyncio
from libaio_shim import Context, Event, Iocb, prep_pread
from libaio_shim.asyncio import AsyncContext, BinaryFile, TextFile

def low(fd: int, buffer: bytearray) -> int:
    with Context(8) as context:
        request = prep_pread(fd, buffer, 0)
        assert_type(request, Iocb)
        assert_type(context.submit([request]), int)
        for event in context.getevents():
            assert_type(event, Event)
            assert_type(event.iocb, Iocb)
            return event.check()
        return 0

async def high(fd: int) -> bytes:
    async with AsyncContext() as context:
        assert_type(await context.read_into(fd, bytearray(1), 0), int)
        return await context.read(fd, 10, 0)

async def files() -> None:
    async with libaio_shim.asyncio.open("x") as text:
        assert_type(text, TextFile)
        assert_type(await text.readline(), str)
        async for line in text:
            assert_type(line, str)
    async with libaio_shim.asyncio.open("x", "rb") as binary:
        assert_type(binary, BinaryFile)
        assert_type(await binary.read(), bytes)

def wrong(context: Context) -> None:
    context.submit("x")  # type: ignore[arg-type]
    prep_pread("x", bytearray(1), 0)  # type: ignore[arg-type]
    prep_pread(0, "x", 0)  # type: ignore[arg-type]
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The binding alone, without the tools that live in the same package."""
    source, target = ROOT / "libaio_shim", tmp_path / "libaio_shim"
    target.mkdir()
    for path in [*source.glob("_*.py"), source / "caio.py", source / "py.typed"]:
        if path.name != "__main__.py":
            shutil.copy(path, target)
    shutil.copytree(source / "asyncio", target / "asyncio", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_mypy_finds_nothing(package: Path) -> None:
    """--strict, on the binding and on what a user may write, right and wrong."""
    pytest.importorskip("mypy", reason="mypy is not installed (pip install mypy types-cffi)")
    (package / "sample.py").write_text(SAMPLE)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--python-version", "3.10"]
    done = subprocess.run(
        [*command, "-p", "libaio_shim", "-m", "sample"], cwd=package, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_knows_every_type(package: Path) -> None:
    """--verifytypes: no public name whose type is unknown, ambiguous or undocumented."""
    pyright = shutil.which("pyright") or shutil.which("pyright", path=str(Path(sys.executable).parent))
    if not pyright:
        pytest.skip("pyright is not installed (pip install 'pyright[nodejs]')")
    done = subprocess.run(
        [pyright, "--pythonpath", sys.executable, "--verifytypes", "libaio_shim", "--ignoreexternal"],
        cwd=package,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(package), "HOME": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Type completeness score: 100%" in done.stdout, done.stdout + done.stderr
    assert "Functions without docstring: 0" in done.stdout
    assert "Classes without docstring: 0" in done.stdout
