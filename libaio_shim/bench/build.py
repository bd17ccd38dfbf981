"""Compiles the C programs of the benchmark on demand, and finds the shim's launcher and the kernel's libaio.

The programs are linked with a libaio.so.1 of our own that only makes the system calls, and started with the
system's libaio where there is one; so the kernel's column exists on machines without any libaio as well.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from libaio_shim import _places

SOURCES = Path(__file__).resolve().parent / "src"

AIOLOAD = tuple(SOURCES / name for name in ("aioload.c", "hist.c", "io.c", "wait.c"))
SLOWFS = (SOURCES / "slowfs.c",)


class BuildError(Exception):
    """Something that the benchmark needs is not there; the message says what and how to get it."""


def tools_directory() -> Path:
    """Where compiled programs are kept: in a checkout's build, else in the user's cache."""
    if _places.home() != _places.PACKAGE:
        return _places.home() / "bench"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "libaio-shim" / "bench"


def launcher() -> Path:
    """The shell launcher: of the checkout's build, or installed inside the package."""
    path = _places.launcher()
    if not path.exists():
        raise BuildError(f"no {path}: run `make build` first")
    return path


@functools.cache
def _compile(output_name: str, sources: tuple[Path, ...], options: tuple[str, ...]) -> Path:
    """Compiles sources into the tools' directory, once for each content of the sources."""
    content = hashlib.sha256(repr(options).encode())
    for source in sorted({path for place in sources for path in place.parent.glob("*.[ch]")} | set(sources)):
        content.update(source.read_bytes())
    directory = tools_directory() / content.hexdigest()[:16]
    output = directory / output_name
    if output.exists():
        return output
    cc = shlex.split(os.environ.get("CC") or "cc")
    if not shutil.which(cc[0]):
        raise BuildError(f"the load generator is compiled on demand and there is no C compiler ({cc[0]})")
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f".{output_name}.{os.getpid()}"
    command = [*cc, "-std=c11", "-O2", f"-I{_places.headers()}", "-o", str(fresh)]
    command += [*map(str, sources), *options, "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own sources
    if done.returncode:
        raise BuildError(f"{shlex.join(command)}\n{done.stderr}")
    fresh.rename(output)
    return output


def kernel_library() -> Path:
    """A libaio.so.1 that makes the system calls and nothing else."""
    symbol_map = SOURCES / "kernel_aio.map"
    return _compile(
        "libaio.so.1",
        (SOURCES / "kernel_aio.c",),
        ("-shared", "-fPIC", "-Wl,-soname,libaio.so.1", f"-Wl,--version-script={symbol_map}"),
    )


def program(name: str, *sources: Path) -> Path:
    """An ordinary program that needs libaio.so.1."""
    return _compile(name, sources, (str(kernel_library()),))


def aioload() -> Path:
    return program("aioload", *AIOLOAD)


def slowfs() -> Path:
    return _compile("slowfs", SLOWFS, ())


def plain_environment() -> dict[str, str]:
    """This process's environment without any trace of the shim."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIBAIO_SHIM_")}
    preload = [p for p in re.split("[ :]+", environment.pop("LD_PRELOAD", "")) if p and "libaio" not in Path(p).name]
    if preload:
        environment["LD_PRELOAD"] = ":".join(preload)
    return environment


@functools.cache
def kernel_environment() -> tuple[tuple[str, str], ...]:
    """Variables that make a program that needs libaio.so.1 use the kernel's AIO: none where libaio is installed.

    Where distributions renamed it to libaio.so.1t64, our programs find that one under the old name.
    """
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        known = subprocess.run(  # noqa: S603 - a fixed command
            [ldconfig, "-p"], capture_output=True, text=True, check=False, env={**plain_environment(), "LC_ALL": "C"}
        ).stdout
    except OSError:
        known = ""
    paths = {line.split()[0]: line.split()[-1] for line in known.splitlines() if "=>" in line and "libaio.so" in line}
    if "libaio.so.1" in paths:
        return ()
    directory = kernel_library().parent
    if "libaio.so.1t64" in paths:
        directory = tools_directory() / "system"
        directory.mkdir(parents=True, exist_ok=True)
        link = directory / "libaio.so.1"
        link.unlink(missing_ok=True)
        link.symlink_to(paths["libaio.so.1t64"])
    inherited = plain_environment().get("LD_LIBRARY_PATH")
    return (("LD_LIBRARY_PATH", f"{directory}:{inherited}" if inherited else str(directory)),)
