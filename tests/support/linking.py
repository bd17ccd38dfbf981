"""Builds examples/linking/copy.c with the shim in every way that its README shows, and proves that the shim answers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import needs

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "linking"
WAYS = ("config", "pkg-config", "pkg-config libaio", "-laio", "cmake", "static", "static -laio", "static pkg-config")
STRICT = ["-Wall", "-Wextra", "-Werror"]


def clean_environment() -> dict[str, str]:
    unwanted = ("LD_", "LIBAIO_SHIM", "PYTHONPATH", "PKG_CONFIG", "CMAKE", "CPATH", "LIBRARY_PATH")
    return {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}


def output(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(
        command, env=clean_environment() | (env or {}), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def build(way: str, launcher: Path, directory: Path) -> Path:
    """Compiles the example in `directory`; launcher is the `libaio-shim` command that is asked where things are."""

    def config(*options: str) -> list[str]:
        return shlex.split(output(launcher, "config", *options))

    def where(option: str) -> str:
        return output(launcher, "config", option).removesuffix("\n")

    def packages(*options: str) -> list[str]:
        tool = needs.program("pkg-config")
        return shlex.split(output(tool, *options, env={"PKG_CONFIG_PATH": where("--pkgconfigdir")}))

    program = directory / "copy"
    compiler = [*shlex.split(os.environ.get("CC", "cc")), *STRICT, str(EXAMPLE / "copy.c"), "-o", str(program)]
    include, lib = where("--includedir"), where("--libdir")
    flags = {
        "config": lambda: config("--cflags", "--libs"),
        "pkg-config": lambda: packages("--cflags", "--libs", "libaio-shim"),
        "pkg-config libaio": lambda: packages("--cflags", "--libs", "libaio >= 0.3.110"),
        "-laio": lambda: [f"-I{include}", f"-L{lib}", "-laio"],
        "static": lambda: ["-static", *config("--cflags", "--libs", "--static")],
        "static -laio": lambda: ["-static", f"-I{include}", f"-L{lib}", "-laio"],
        "static pkg-config": lambda: ["-static", *packages("--static", "--cflags", "--libs", "libaio-shim")],
    }
    if way == "cmake":
        cmake = needs.program("cmake")
        prefix = f"-DCMAKE_PREFIX_PATH={Path(lib).parent}"
        output(cmake, "-S", EXAMPLE, "-B", directory / "cmake", prefix, cwd=directory)
        output(cmake, "--build", directory / "cmake", cwd=directory)
        return directory / "cmake" / "copy"
    output(*compiler, *flags[way]())
    return program


def prove(way: str, program: Path, launcher: Path, directory: Path) -> None:
    """Copies a file with the program, and finds the engine's line about it."""
    content = bytes(place * place >> 8 & 255 for place in range(1_000_003))
    (directory / "from").write_bytes(content)
    environment = {"LIBAIO_SHIM_STATS": str(directory / "stats")}
    if way == "-laio":
        environment["LD_LIBRARY_PATH"] = output(launcher, "config", "--libdir").strip()
    output(program, directory / "from", directory / "to", env=environment)
    assert (directory / "to").read_bytes() == content
    (line,) = [json.loads(line) for line in (directory / "stats").read_text().splitlines()]
    assert line["contexts"] == 1
    assert line["submitted"] == 32
