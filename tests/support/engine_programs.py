"""The C programs that are linked with the engine's own objects: where they are, how they are built, and how they run.

tests/unit, tests/stress and tests/fuzz each collect theirs through here.  A case is ``TEST(name)`` in the source; each
runs in a process and a directory of its own, in up to three builds: plain, and with the sanitizers of the compiler.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import case_program
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LIBAIO_SHIM_BUILD") or ROOT / "build").resolve()
# Longer runs are asked for in milliseconds of stress, or in rounds of fuzzing.
TIMEOUT_S = 60 + int(os.environ.get("LAS_STRESS_MS", "0")) // 500 + int(os.environ.get("LAS_FUZZ_ROUNDS", "0")) // 100


@dataclasses.dataclass(frozen=True)
class Build:
    """One way of building engine and programs."""

    name: str
    flags: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def directory(self) -> Path:
        """Where its objects and programs are."""
        return BUILD if not self.flags else BUILD / self.name

    @functools.cache  # noqa: B019  (three of them, for the whole run)
    def lacks(self) -> str | None:
        """Why this machine cannot run such programs, or None."""
        if not self.flags:
            return None
        compiler = os.environ.get("CC", "cc")
        with tempfile.TemporaryDirectory() as scratch:
            source, program = Path(scratch) / "empty.c", Path(scratch) / "empty"
            source.write_text("int main(void) { return 0; }\n")
            command = [*shlex.split(compiler), *self.flags.split(), str(source), "-o", str(program)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return f"{compiler} has no {self.name} (Debian: apt-get install gcc libc6-dev)"
            if subprocess.run([program], capture_output=True, check=False).returncode:
                return f"programs with {self.name} do not run here (sysctl vm.mmap_rnd_bits=28 helps some kernels)"
        return None


PLAIN = Build("plain")
ASAN = Build(
    "asan",
    "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer",
    (("ASAN_OPTIONS", "detect_leaks=0:handle_abort=0"), ("UBSAN_OPTIONS", "print_stacktrace=1")),
)
TSAN = Build(
    "tsan",
    "-fsanitize=thread -fno-omit-frame-pointer",
    (("TSAN_OPTIONS", "halt_on_error=1:exitcode=66:die_after_fork=0:report_signal_unsafe=0"),),
)
BUILDS = (PLAIN, ASAN, TSAN)


@dataclasses.dataclass(frozen=True)
class Case:
    """One named case of one program."""

    source: Path
    name: str

    @property
    def id(self) -> str:
        """program.case"""
        return f"{self.source.stem}.{self.name}"


def cases(group: str, pattern: str = r"^TEST\((\w+)\)") -> list[Case]:
    """The cases in all sources of a directory under tests."""
    return [
        Case(source, name)
        for source in sorted((ROOT / "tests" / group).glob("*.c"))
        for name in re.findall(pattern, source.read_text(), re.MULTILINE)
    ]


@functools.cache
def build(kind: Build) -> None:
    """Makes what is not up to date; make knows what that is."""
    command = [
        "make",
        "-f",
        "tests/unit/programs.mk",
        f"-j{os.cpu_count() or 1}",
        "programs",
        f"BUILD={kind.directory}",
    ]
    if kind.flags:
        command.append(f"CFLAGS_EXTRA={kind.flags}")
    kind.directory.mkdir(parents=True, exist_ok=True)
    with (kind.directory / ".programs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}", pytrace=False)


def run(kind: Build, case: Case, directory: Path, extra: dict[str, str] | None = None) -> None:
    """Builds, runs the case there, and says what came of it."""
    reason = kind.lacks()
    if reason:
        pytest.skip(reason)
    build(kind)
    program = kind.directory / case.source.relative_to(ROOT).with_suffix("")
    case_program.run([program, case.name], directory, dict(kind.environment) | (extra or {}), TIMEOUT_S)
