"""The shim built for musl, and programs of that C library on it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import needs
import pytest

ROOT = Path(__file__).resolve().parents[2]
AIOUSER = ROOT / "tests" / "python" / "aiouser.c"
# musl-gcc leaves the kernel's headers out, which are the same for every C library.
KERNEL_HEADERS = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
SONAMES = ["libaio.so.1", "libaio.so.1t64"]


@pytest.fixture(scope="module")
def musl_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Makefile's products, compiled by musl-gcc."""
    needs.program("musl-gcc", "musl-tools")
    build = tmp_path_factory.mktemp("musl")
    options = ["CC=musl-gcc", f"CPPFLAGS={' '.join(KERNEL_HEADERS)}", "CFLAGS=-O1"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "CC", "CFLAGS"))}
    subprocess.run(["make", "-C", ROOT, "-s", "build", f"BUILD={build}", *options], env=clean, check=True)
    return build


def run(musl_build: Path, directory: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "LIBAIO_SHIM"))}
    launcher = musl_build / "bin" / "libaio-shim"
    return subprocess.run(
        [launcher, "run", "--stats=stats", *command],
        cwd=directory,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def compile_user(musl_build: Path, program: Path, *options: str | Path) -> Path:
    include = f"-I{ROOT / 'include'}"
    subprocess.run(["musl-gcc", include, "-o", program, AIOUSER, *options], check=True)
    return program


@pytest.mark.parametrize("soname", SONAMES)
def test_musl_program_that_needs_a_libaio_gets_the_shim(musl_build: Path, tmp_path: Path, soname: str) -> None:
    """Setup, submit, getevents and destroy, end to end."""
    lib = musl_build / "lib"
    program = compile_user(musl_build, tmp_path / "user", "-DLINKED", lib / soname, f"-Wl,-rpath-link,{lib}")
    done = run(musl_build, tmp_path, program)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "stats").read_text())["submitted"] == 1


@pytest.mark.parametrize("soname", SONAMES)
def test_musl_program_that_opens_a_libaio_gets_the_shim(musl_build: Path, tmp_path: Path, soname: str) -> None:
    """By name, at run time."""
    done = run(musl_build, tmp_path, compile_user(musl_build, tmp_path / "user"), soname)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "stats").read_text())["submitted"] == 1


def test_program_of_glibc_is_refused(musl_build: Path, tmp_path: Path) -> None:
    """The other way round of what the launcher's tests show."""
    done = run(musl_build, tmp_path, "true")
    assert done.returncode == 126
    assert "built for musl" in done.stderr
