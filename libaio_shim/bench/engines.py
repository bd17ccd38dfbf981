"""Who answers a program's AIO calls: how to start a program on each engine, and the proof of who answered."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libaio_shim.bench import build


class RunError(Exception):
    """A run that failed, or was answered by another library than the one to be measured."""


class NoAioError(RunError):
    """The kernel has no AIO, or a sandbox forbids it."""


@dataclass(frozen=True)
class Engine:
    """One column: `shim` says whether the launcher is used, `ioengine` is fio's name for it.

    An engine without `own` exists only in fio.
    """

    name: str
    shim: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    ioengine: str = "libaio"
    own: bool = True

    def start(self, command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment that run `command` on this engine."""
        environment = build.plain_environment() | dict(build.kernel_environment()) | dict(self.environment)
        prefix = [str(build.launcher()), "run", "--"] if self.shim else []
        return [*prefix, *command], environment


KERNEL = Engine("kernel")
SHIM = Engine("shim", shim=True)
ENGINES = {
    engine.name: engine
    for engine in (
        KERNEL,
        SHIM,
        # A lane alone: what it cannot take falls to the crew or is run in the submitter.
        Engine("shim:head", shim=True, environment={"LIBAIO_SHIM_LANES": "head"}),
        Engine("shim:native", shim=True, environment={"LIBAIO_SHIM_LANES": "native"}),
        Engine("shim:crew", shim=True, environment={"LIBAIO_SHIM_LANES": "crew"}),
        Engine("shim:head+crew", shim=True, environment={"LIBAIO_SHIM_LANES": "head,crew"}),
        Engine("io_uring", ioengine="io_uring", own=False),
        Engine("posixaio", ioengine="posixaio", own=False),
    )
}


def fio_knows(engine: Engine) -> bool:
    """Whether fio is installed and was built with this engine."""
    fio = shutil.which("fio")
    if not fio:
        return False
    listed = subprocess.run([fio, "--enghelp"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    return engine.ioengine in listed.split()


@dataclass
class Outcome:
    """What one run printed, and who answered it."""

    stdout: str
    libraries: list[str]  # every libaio in the program's memory, the one that answers first
    stats: dict[str, object]  # the shim's own line, empty without the shim
    threads: int  # the most that were seen

    def answered_by(self) -> str:
        """In a few words, for a table."""
        if self.stats:
            return f"libaio-shim {self.stats.get('libaio_shim', '')}".strip()
        names = [name for name in self.libraries if Path(name).name.startswith("libaio.so")]
        ours = str(build.tools_directory())
        if names and names[0].startswith(ours) and not Path(names[0]).is_symlink():
            return "kernel (system calls)"
        return f"kernel ({Path(names[0]).name})" if names else "kernel"


def _look(pid: int) -> tuple[list[str], int]:
    """The libaio libraries mapped by process pid, and its number of threads; empty once it is gone."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
        threads = int(re.search(r"Threads:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))  # type: ignore[union-attr]
    except (OSError, AttributeError):
        return [], 0
    found = dict.fromkeys(re.findall(r"(/\S*libaio\S*\.so\S*)", maps))
    return list(found), threads


def run(engine: Engine, command: Sequence[str], *, timeout: float = 120) -> Outcome:
    """Runs command on engine to its end and checks that this engine answered.

    Raises NoAioError if the program said so (exit status 3), RunError for any other failure.
    """
    with tempfile.TemporaryDirectory(prefix="libaio-shim-") as directory:
        stats_file = Path(directory) / "stats"
        argv, environment = engine.start(command)
        # Set for every engine: a kernel run that writes it was no kernel run.
        environment["LIBAIO_SHIM_STATS"] = str(stats_file)
        with subprocess.Popen(  # noqa: S603 - the caller's command
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            libraries, threads = _watch(process, Path(command[0]).name, timeout)
            stdout, stderr = process.communicate()
        stats: dict[str, object] = {}
        if stats_file.exists():
            for line in stats_file.read_text().splitlines():
                stats = json.loads(line)
    if process.returncode == 3:
        raise NoAioError(stderr.strip())
    if process.returncode:
        raise RunError(f"{engine.name}: {' '.join(command)}: exit {process.returncode}\n{stderr.strip()}")
    if engine.shim != bool(stats):
        raise RunError(f"{engine.name}: {'the shim did not answer' if engine.shim else 'the shim answered'}: {argv}")
    return Outcome(stdout, libraries, stats, threads)


def _watch(process: subprocess.Popen[str], name: str, timeout: float) -> tuple[list[str], int]:
    """Waits for the end, looking into the process meanwhile.  Its output must fit a pipe (64 KiB)."""
    libraries: list[str] = []
    threads = 0
    deadline = time.monotonic() + timeout
    pause = 0.005
    while process.poll() is None:
        # The launcher becomes the program by exec; before that, what is mapped is the shell's.
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process.pid}/comm").read_text().strip() == name[:15]:
                seen, count = _look(process.pid)
                libraries = seen or libraries
                threads = max(threads, count)
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise RunError(f"{name}: no end after {timeout:.0f} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause)
        # Often until it was seen, since a short run is over soon; then seldom, not to disturb what is measured.
        pause = min(pause * 2, 0.2) if libraries else pause
    return libraries, threads
