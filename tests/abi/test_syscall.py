"""What stands before libc: syscall() with the AIO numbers, and the functions that end or replace a process."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import case_program
import conformance
import needs
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = HERE / "syscall.c"
PRELOADED = ("libaio.so.1", "libaio.so.1t64", "libaio_syscall.so")
VARIANTS = {
    "kernel": conformance.Variant("kernel", "plain", "kernel"),
    "shim": conformance.Variant("shim", "plain", "shim", PRELOADED),
    "shim_linked": conformance.Variant("shim_linked", "linked", "shim", PRELOADED[2:]),
}
BLOCKS = b"".join(bytes([65 + block % 26]) * 65536 for block in range(64))

Compile = Callable[..., Path]


@pytest.fixture(scope="module")
def compiled(build_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles C sources of this directory with options."""
    directory = tmp_path_factory.mktemp("compiled")

    def compile_sources(name: str, *words: str | Path) -> Path:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        command = [*compiler, "-Wall", "-Wextra", f"-I{ROOT / 'include'}", "-o", directory / name, *words]
        subprocess.run(command, check=True, cwd=HERE)
        return directory / name

    return compile_sources


def run_on_shim(
    build_dir: Path,
    directory: Path,
    *command: str | Path,
    env: dict[str, str] | None = None,
    options: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """In `directory`, where the lines of the engine go to the file `stats`."""
    return subprocess.run(
        [build_dir / "bin" / "libaio-shim", "run", "--stats=stats", *options, "--", *command],
        cwd=directory,
        env=case_program.clean_environment() | (env or {}),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def stats_lines(directory: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (directory / "stats").read_text().splitlines()]


@pytest.mark.parametrize("case", conformance.cases(SOURCE))
@pytest.mark.parametrize("variant", VARIANTS)
def test_syscall(build_dir: Path, tmp_path: Path, variant: str, case: str) -> None:
    """One case of syscall.c in a process of its own."""
    how = VARIANTS[variant]
    conformance.need(how)
    case_program.run([conformance.build_program(SOURCE, how.build), case], tmp_path, how.environment())


def test_calls_of_constructors_are_answered(build_dir: Path, compiled: Compile, tmp_path: Path) -> None:
    """A library of the program's may make them before the interposer's own constructor has run."""
    main = tmp_path / "main.c"
    main.write_text("int early_worked(void);\nint main(void) { return !early_worked(); }\n")
    library = compiled("libearly.so", "-shared", "-fPIC", "-pthread", "early.c")
    program = compiled("early", main, "-pthread", library, f"-Wl,-rpath,{library.parent}")
    done = run_on_shim(build_dir, tmp_path, program)
    assert done.returncode == 0, done.stderr
    assert stats_lines(tmp_path)[0]["contexts"] == 1
    if (build_dir / "lib" / "libaio_trap.so").exists():
        needs.syscall_user_dispatch()
        assert run_on_shim(build_dir, tmp_path, program, options=["--trap"]).returncode == 0


def test_calls_go_to_the_kernel_without_the_interposer(build_dir: Path, compiled: Compile, tmp_path: Path) -> None:
    """The facades alone leave the program's syscall() alone, preloaded or linked."""
    main = tmp_path / "main.c"
    main.write_text("int early_worked(void);\nint main(void) { return early_worked() * 5; }\n")
    library = compiled("libearly.so", "-shared", "-fPIC", "-pthread", "early.c")
    program = compiled("early", main, "-pthread", library, f"-Wl,-rpath,{library.parent}")
    launcher = build_dir / "bin" / "libaio-shim"
    done = subprocess.run([launcher, "run", "--no-syscalls", "--stats=stats", program], cwd=tmp_path, check=False)
    assert done.returncode == (5 if conformance.kernel_has_aio() else 0)
    assert not (tmp_path / "stats").exists()


ENDS = ["return", "exit", "quick_exit", "_exit", "_Exit", "exit_group", "thread", "failing exec", "fork _exit"]
# The name, and whether the environment can be given with it.
EXECS = {
    "execve": True, "execv": False, "execvp": False, "execvpe": True, "execl": False, "execlp": False, "execle": True,
    "fexecve": True, "execveat": True, "syscall execve": True, "syscall execveat": True,
}  # fmt: skip


@pytest.fixture
def ending(build_dir: Path, compiled: Compile, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs ending.c on crew threads only, so that its writes are under way when it ends."""
    program = compiled("ending", "ending.c", needs.system_libaio())
    (tmp_path / "ending-show").symlink_to(program)

    def run(how: str) -> subprocess.CompletedProcess[str]:
        variables = {"LIBAIO_SHIM_LANES": "crew", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return run_on_shim(build_dir, tmp_path, program, "data", how, env=variables)

    return run


@pytest.mark.parametrize("how", ENDS)
def test_writes_are_finished_and_told_once_however_the_process_ends(
    ending: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path, how: str
) -> None:
    """As kernel AIO does, although the threads of the shim go with the process."""
    done = ending(how)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert (tmp_path / "data").read_bytes() == BLOCKS
    (line,) = stats_lines(tmp_path)
    assert line["crew"] == 64


@pytest.mark.parametrize("how", EXECS)
def test_writes_are_finished_before_another_program_takes_over(
    ending: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path, how: str
) -> None:
    """The program, its arguments and its environment are those that were given."""
    done = ending(how)
    given = "given" if EXECS[how] else "-"
    assert (done.returncode, done.stdout, done.stderr) == (3, f"one,two words,{given}\n", "")
    assert (tmp_path / "data").read_bytes() == BLOCKS
    (line,) = stats_lines(tmp_path)
    assert line["crew"] == 64


@pytest.mark.parametrize("how", ["vfork _exit", "vfork exec"])
def test_child_in_its_parents_memory_tells_nothing(
    ending: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path, how: str
) -> None:
    """Its end is not the parent's, whose requests go on."""
    done = ending(how)
    assert (done.returncode, done.stderr) == (3, "")
    assert "parent" in done.stdout
    assert (tmp_path / "data").read_bytes() == BLOCKS
    (line,) = stats_lines(tmp_path)
    assert line["crew"] == 64
