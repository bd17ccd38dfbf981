"""`pip install .` into any virtual environment: the command on its PATH, libraries and headers inside the package."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import linking
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = ("csrc", "include", "compat", "libaio_shim")
FILES = ("Makefile", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

pytestmark = pytest.mark.timeout(300)


def environment() -> dict[str, str]:
    """Without anything that would lead to the checkout."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LD_PRELOAD", "LIBAIO_SHIM", "PYTHONPATH", "MAKE", "BUILD", "CFLAGS"))
    }


def succeed(*command: str | Path, cwd: Path, more: Mapping[str, str] | None = None) -> str:
    """Runs a command that must succeed and returns what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env=environment() | dict(more or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that nothing of this checkout's build can get into a wheel.

    Its path has a space, as a user's may have.
    """
    source = tmp_path_factory.mktemp("the source")
    for directory in SOURCES:
        shutil.copytree(ROOT / directory, source / directory, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, source / file)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    output = tmp_path_factory.mktemp("wheel")
    succeed(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", output, source, cwd=output)
    (path,) = output.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with nothing but the wheel and what it needs."""
    path = tmp_path_factory.mktemp("venv") / "env"
    succeed(sys.executable, "-m", "venv", path, cwd=path.parent)
    succeed(path / "bin" / "python", "-m", "pip", "install", "-q", wheel, cwd=path.parent)
    return path


def test_one_wheel_serves_every_python_of_a_platform(wheel: Path) -> None:
    """Nothing in it is compiled against Python."""
    assert "-py3-none-linux_" in wheel.name


def test_what_is_missing_to_build_is_told(wheel: Path, source: Path, tmp_path: Path) -> None:
    """Where there is no make, or the compiler fails: in one line, without a traceback of ours."""
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source)
    for missing in ({"PATH": str(tmp_path)}, {"CC": "/no/compiler"}):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment() | missing, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        printed = done.stdout + done.stderr
        assert "error: `make build` failed, which needs make and a C compiler" in printed
        assert "Traceback" not in printed


def test_package_holds_libraries_headers_and_launcher(venv: Path) -> None:
    """All that `libaio-shim run` and a compiler need."""
    (package,) = venv.glob("lib/python*/site-packages/libaio_shim")
    libraries = {path.name for path in (package / "lib").iterdir()}
    machine = {"x86_64": {"libaio_syscall.so", "libaio_trap.so"}, "aarch64": {"libaio_syscall.so"}}
    assert libraries == {
        *("libaio.so.1", "libaio.so.1t64", "libaio_shim.so.0"),
        *("libaio.so", "libaio_shim.so", "libaio.a", "libaio_shim.a", "pkgconfig"),
        *machine.get(platform.machine(), ()),
    }
    assert {path.name for path in (package / "include").iterdir()} == {"libaio.h", "libaio_shim.h"}
    assert os.access(package / "bin" / "libaio-shim", os.X_OK)
    assert (package / "py.typed").exists()


@pytest.mark.parametrize("how", [("libaio-shim",), ("python", "-m", "libaio_shim")])
def test_installed_command_puts_a_program_on_the_shim(venv: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    """Compiled with the installed header, linked with the installed library, run by the installed command."""
    (package,) = venv.glob("lib/python*/site-packages/libaio_shim")
    lib = package / "lib"
    compile_it = ["cc", f"-I{package / 'include'}", "-DLINKED", str(HERE / "aiouser.c"), str(lib / "libaio.so.1")]
    succeed(*compile_it, f"-Wl,-rpath-link,{lib}", "-o", "user", cwd=tmp_path)
    path = {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
    succeed(*how, "run", "--stats=stats", "./user", cwd=tmp_path, more=path)
    assert json.loads((tmp_path / "stats").read_text())["submitted"] == 1


@pytest.mark.parametrize("way", linking.WAYS)
def test_installed_package_is_linked_with(venv: Path, tmp_path: Path, way: str) -> None:
    """As a checkout's build is: headers, libraries and pkg-config's files come along."""
    launcher = venv / "bin" / "libaio-shim"
    linking.prove(way, linking.build(way, launcher, tmp_path), launcher, tmp_path)


def test_installed_command_tells_the_projects_version(wheel: Path, venv: Path, tmp_path: Path) -> None:
    """One place: pyproject.toml; the wheel, the command and the engine repeat it."""
    version = wheel.name.split("-")[1]
    assert succeed(venv / "bin" / "libaio-shim", "--version", cwd=tmp_path) == f"libaio-shim {version}\n"
    show = "import ctypes as c, sys; f = c.CDLL(sys.argv[1]).las_version; f.restype = c.c_char_p; print(f().decode())"
    (engine,) = venv.glob("lib/python*/site-packages/libaio_shim/lib/libaio_shim.so.0")
    assert succeed(venv / "bin" / "python", "-c", show, engine, cwd=tmp_path) == f"{version}\n"


def test_uninstalling_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    """After use, from a path with a space."""

    def files() -> set[Path]:
        return set((tmp_path / "an env").rglob("*"))

    succeed(sys.executable, "-m", "venv", tmp_path / "an env", cwd=tmp_path)
    python = tmp_path / "an env" / "bin" / "python"
    succeed(python, "-m", "pip", "--version", cwd=tmp_path)
    before = files()
    succeed(python, "-m", "pip", "install", "-q", "--no-compile", "--no-deps", wheel, cwd=tmp_path)
    assert files() > before
    succeed(python.with_name("libaio-shim"), "--version", cwd=tmp_path)
    succeed(python, "-m", "pip", "uninstall", "-q", "-y", "libaio-shim", cwd=tmp_path)
    assert {path for path in files() - before if "libaio" in str(path)} == set()
