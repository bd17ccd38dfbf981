"""Runs a program on the kernel's AIO or on the shim, with the proof of which it was."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filesystems
import pytest

from libaio_shim.bench import build

ROOT = Path(__file__).resolve().parents[2]
CFLAGS = ("-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")


@dataclass
class Ran:
    """How a program ended, and the lines that the shim wrote at the end of each process that used it."""

    status: int
    stdout: str
    stderr: str
    stats: list[dict[str, Any]]

    def check(self) -> Ran:
        assert self.status == 0, f"exit status {self.status}\n{self.stdout[-3000:]}\n{self.stderr[-3000:]}"
        return self


@dataclass(frozen=True)
class Side:
    """Who answers a program's calls."""

    name: str
    launcher: Path | None
    variables: Mapping[str, str]

    @property
    def is_shim(self) -> bool:
        return self.launcher is not None

    def command(self, command: Sequence[str | Path]) -> list[str]:
        prefix = [str(self.launcher), "run", "--"] if self.launcher else []
        return [*prefix, *map(str, command)]

    def environment(self, stats: Path | None = None) -> dict[str, str]:
        variables = build.plain_environment() | dict(self.variables)
        if stats:
            variables["LIBAIO_SHIM_STATS"] = str(stats)
        return variables

    def run(self, command: Sequence[str | Path], *, cwd: Path | None = None, timeout: float = 180, own: bool = False,
            before: Sequence[str | Path] = ()) -> Ran:  # fmt: skip
        """Runs command to its end.

        `own`: one of our programs, which finds a libaio where the system has none.  `before`: words in front of the
        launcher, such as strace's.
        """
        with tempfile.TemporaryDirectory() as directory:
            stats = Path(directory) / "stats"
            environment = self.environment(stats) | (dict(build.kernel_environment()) if own else {})
            done = subprocess.run(
                [*map(str, before), *self.command(command)],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
            lines = stats.read_text().splitlines() if stats.exists() else []
        if not self.is_shim:
            assert not lines, f"the shim answered where the kernel was to: {lines}"
        return Ran(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines])

    def start(
        self, command: Sequence[str | Path], *, cwd: Path | None = None, own: bool = False
    ) -> subprocess.Popen[str]:
        """Starts command; the caller ends it."""
        environment = self.environment() | (dict(build.kernel_environment()) if own else {})
        return subprocess.Popen(
            self.command(command),
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def kernel_has_aio() -> bool:
    """Asks with the plain system calls."""
    library = ctypes.CDLL(str(build.kernel_library()))
    context = ctypes.c_void_p()
    if library.io_setup(1, ctypes.byref(context)) != 0:
        return False
    library.io_destroy(context)
    return True


def wait_until(condition: Any, seconds: float = 100) -> None:
    """Until condition() is true; fails the test after that many seconds, which only a hang takes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def free_port() -> int:
    """A port of the loopback device on which nobody listens; none of those that clients get meanwhile."""
    while True:
        with socket.socket() as probe:
            port = random.randrange(10000, 30000)  # noqa: S311
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def listens(path: Path) -> bool:
    """Whether a server takes connections at this socket, which exists a moment earlier."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(words[-1] == str(path) and words[3] == "00010000" for words in lines)


def fresh_directory(mounts: filesystems.Mounts, kind: str) -> Iterator[Path]:
    """An empty directory on a file system of that kind."""
    base = mounts.env.get(f"LAS_TEST_{kind.upper()}")
    if not base:
        pytest.skip(mounts.why_not(kind))
    directory = Path(tempfile.mkdtemp(dir=base))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


AIO_CALLS = "io_setup,io_destroy,io_submit,io_cancel,io_getevents,io_pgetevents"


def aio_system_calls(side: Side, command: Sequence[str | Path], *, cwd: Path | None = None) -> tuple[Ran, list[str]]:
    """Runs command under strace: the AIO system calls of all its processes and threads."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        ran = side.run(command, cwd=cwd, before=["strace", "-f", "-qq", "-e", f"trace={AIO_CALLS}", "-e", "signal=none",
                                                 "-o", log])  # fmt: skip
        lines = log.read_text().splitlines()
    return ran, [line for line in lines if any(f"{call}(" in line for call in AIO_CALLS.split(","))]


def compile_style(source: Path, output: Path, *, raw: bool, libaio: bool = False) -> Path:
    """One of the programs in styles/, on libaio or on plain system calls; `libaio`: it needs the library anyway."""
    cc = os.environ.get("CC") or "cc"
    libraries = [] if raw and not libaio else [str(build.kernel_library())]
    command = [*cc.split(), *CFLAGS, f"-DRAW={int(raw)}", f"-I{ROOT / 'include'}", str(source), "-o", str(output)]
    done = subprocess.run([*command, *libraries], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output
