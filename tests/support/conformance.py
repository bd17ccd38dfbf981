"""Where the conformance programs are, how they are built, and the variants they run in.

The C sources are the one list of cases: ``TEST(name)`` at the start of a line.  A program is compiled again only when a
source or library is newer than it, so that a second run starts at once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import functools
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LIBAIO_SHIM_BUILD") or ROOT / "build").resolve()
SUPPORT = ROOT / "tests" / "support"
SOURCES = ROOT / "tests" / "conformance"
OUTPUT = BUILD / "tests" / "conformance"
CFLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wno-unused-parameter", "-pthread"]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of running every case: how it is linked, who answers, which lanes may run requests."""

    name: str
    build: str  # "linked": with the shim, "plain": with the system's libaio, "raw": system calls only
    implementation: str  # "kernel" or "shim"
    preload: tuple[str, ...] = ()
    lanes: str = ""

    def environment(self) -> dict[str, str]:
        """What a program of this variant needs beside the environment of the test run."""
        env = {"LAS_TEST_IMPLEMENTATION": self.implementation}
        if self.preload:
            env["LD_PRELOAD"] = ":".join(str(BUILD / "lib" / name) for name in self.preload)
        if self.lanes:
            env["LIBAIO_SHIM_LANES"] = self.lanes
        if self.build != "raw":
            env["LAS_TEST_MODULE"] = str(build_module(SOURCES / "modules" / "module.c", self.build))
        library = system_libaio()
        if library is not None:
            env["LAS_TEST_SYSTEM_LIBAIO"] = str(library)
        return env


#: What the launcher preloads.
PRELOAD = ("libaio.so.1", "libaio.so.1t64", "libaio_syscall.so")

VARIANTS = (
    Variant("kernel", "plain", "kernel"),
    Variant("linked", "linked", "shim"),
    Variant("preloaded", "plain", "shim", PRELOAD),
    Variant("raw", "raw", "shim", PRELOAD),
    Variant("crew", "linked", "shim", (), "crew"),
    Variant("head_crew", "linked", "shim", (), "head,crew"),
)


def need(variant: Variant) -> None:
    """Skips the test if this machine cannot run that variant."""
    if variant.build == "plain":
        needs.system_libaio()
    if variant.implementation == "kernel" and not kernel_has_aio():
        pytest.skip("the kernel gives no AIO here (a kernel with CONFIG_AIO, outside a sandbox that forbids io_setup)")
    if variant.implementation == "shim" and not (BUILD / "lib" / "libaio.so.1").exists():
        pytest.skip("the shim is not built (make build)")


def programs() -> list[Path]:
    """All conformance programs, by source file."""
    return sorted(SOURCES.glob("*.c"))


def covers(variant: Variant, source: Path) -> bool:
    """False for a program that is about the library where a variant does without it."""
    return not (variant.build == "raw" and source.stem == "library")


def cases(source: Path) -> list[str]:
    """The case names in a source file, in order."""
    return re.findall(r"^TEST\((\w+)\)", source.read_text(), re.MULTILINE)


@functools.cache
def system_libaio() -> Path | None:
    """The machine's own libaio, or None."""
    try:
        return needs.system_libaio()
    except pytest.skip.Exception:
        return None


@functools.cache
def kernel_has_aio() -> bool:
    """False where a sandbox forbids io_setup or the kernel was built without it."""
    library = system_libaio()
    if library is None:
        return False
    context = ctypes.c_void_p()
    answers = ctypes.CDLL(str(library))
    if answers.io_setup(1, ctypes.byref(context)) != 0:
        return False
    answers.io_destroy(context)
    return True


@contextmanager
def _build_lock() -> Iterator[None]:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with (OUTPUT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(output: Path, inputs: list[Path], arguments: list[str], also_newer_than: list[Path]) -> Path:
    with _build_lock():
        stamps = [path.stat().st_mtime for path in [*inputs, *also_newer_than] if path.exists()]
        if output.exists() and output.stat().st_mtime > max(stamps):
            return output
        output.parent.mkdir(parents=True, exist_ok=True)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        # For a sanitized build (make build CFLAGS_EXTRA=-fsanitize=...): the programs need its runtime first.
        extra = shlex.split(os.environ.get("LAS_TEST_CFLAGS", ""))
        command = [*compiler, *CFLAGS, *extra, *map(str, inputs), "-o", str(output), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}\n{done.stderr}")
        if done.stderr:
            print(done.stderr)
    return output


@functools.cache
def build_program(source: Path, how: str) -> Path:
    """The program built in one of the ways that Variant.build names."""
    headers = [SUPPORT / "las_test.h", *SOURCES.glob("*.h")]
    include = ["-I", str(SUPPORT), "-I", str(ROOT / "include")]
    inputs = [source, SUPPORT / "las_test.c"]
    newer = list(headers)
    libraries = ["-ldl", "-lutil"]
    if how == "linked":
        libraries += ["-L", str(BUILD / "lib"), f"-Wl,-rpath,{BUILD / 'lib'}", "-laio"]
        # Only its presence matters for linking; a rebuilt library is picked up when the program starts.
    elif how == "plain":
        library = system_libaio()
        assert library is not None
        libraries.append(str(library))
    elif how == "raw":
        inputs.append(SUPPORT / "raw_aio.c")
    return _compile(OUTPUT / how / source.stem, inputs, [*include, *libraries], newer)


@functools.cache
def build_module(source: Path, how: str) -> Path:
    """A shared object for a program that loads one (tests/conformance/modules)."""
    libraries = ["-shared", "-fPIC", "-I", str(ROOT / "include")]
    if how == "linked":
        libraries += ["-L", str(BUILD / "lib"), f"-Wl,-rpath,{BUILD / 'lib'}", "-laio"]
    else:
        library = system_libaio()
        assert library is not None
        libraries.append(str(library))
    return _compile(OUTPUT / how / f"{source.stem}.so", [source], libraries, [])


def build_stallfs() -> Path | None:
    """The FUSE file system that stalls on request, or None where libfuse3's headers are missing."""
    if not shutil.which("pkg-config"):
        return None
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=False)
    if flags.returncode:
        return None
    return _compile(OUTPUT / "stallfs", [SUPPORT / "stallfs.c"], shlex.split(flags.stdout), [])
