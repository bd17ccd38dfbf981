"""`libaio-shim run`: the program is covered, and is otherwise as if nobody had run it.

What holds for the shell launcher of a build holds for the Python command, which execs it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import needs
import pytest
from case_program import clean_environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SONAMES = ("libaio.so.1", "libaio.so.1t64")
PRELOADED = (*SONAMES, "libaio_syscall.so")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command_line(kind: str, build_dir: Path) -> list[str]:
    """How a user starts the launcher."""
    launcher = str(build_dir / "bin" / "libaio-shim")
    if kind == "python":
        return [sys.executable, "-m", "libaio_shim"]
    if kind == "script":
        return [launcher]
    return [needs.program(kind.split()[0]), *kind.split()[1:], launcher]  # by this shell


@pytest.fixture(scope="session")
def compiled(build_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles a C source with options, once."""
    directory = tmp_path_factory.mktemp("compiled")
    done: dict[tuple[str, ...], Path] = {}

    def compile_source(source: str, *options: str) -> Path:
        key = (source, *options)
        if key not in done:
            output = directory / f"{Path(source).stem}-{len(done)}"
            command = ["cc", f"-I{ROOT / 'include'}", "-o", str(output), str(HERE / source), *options]
            subprocess.run(command, check=True)
            done[key] = output
        return done[key]

    return compile_source


@pytest.fixture(params=["script", "python"])
def run(request: pytest.FixtureRequest, build_dir: Path, tmp_path: Path) -> Run:
    """Runs `libaio-shim run ...` in an empty directory and returns what came of it."""

    def run_launcher(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = clean_environment() | {"PYTHONPATH": str(ROOT), "LIBAIO_SHIM_BUILD": str(build_dir)}
        environment |= options.pop("env", {})
        return subprocess.run(
            [*command_line(request.param, build_dir), "run", *arguments],
            cwd=options.pop("cwd", tmp_path),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **options,
        )

    return run_launcher


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """The launcher said one clear line and ran nothing."""
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("libaio-shim: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def link_with(compiled: Callable[..., Path], build_dir: Path, soname: str) -> Path:
    """A program that needs this SONAME and does not say where it is."""
    lib = build_dir / "lib"
    return compiled("aiouser.c", "-DLINKED", str(lib / soname), f"-Wl,-rpath-link,{lib}")


def assert_shim_answered(stats: Path, count: int = 1) -> None:
    """The engine wrote a line for each process that used it."""
    lines = [json.loads(line) for line in stats.read_text().splitlines()]
    assert len(lines) == count
    for line in lines:
        assert line["libaio_shim"]
        assert line["contexts"] == 1
        assert line["submitted"] == 1


# Who answers.


@pytest.mark.parametrize("soname", SONAMES)
def test_program_that_needs_a_libaio_gets_the_shim(
    run: Run, build_dir: Path, compiled: Callable[..., Path], tmp_path: Path, soname: str
) -> None:
    """By either SONAME, also where that library is not installed."""
    done = run("--stats=stats", "--", link_with(compiled, build_dir, soname))
    assert done.returncode == 0, done.stderr
    assert_shim_answered(tmp_path / "stats")


@pytest.mark.parametrize("soname", SONAMES)
def test_program_that_opens_a_libaio_gets_the_shim(
    run: Run, compiled: Callable[..., Path], tmp_path: Path, soname: str
) -> None:
    """dlopen by SONAME finds the preloaded library, even with RTLD_LOCAL and RTLD_DEEPBIND."""
    done = run("--stats=stats", "--", compiled("aiouser.c", "-ldl"), soname)
    assert done.returncode == 0, done.stderr
    assert_shim_answered(tmp_path / "stats")


def test_program_linked_with_the_system_library_gets_the_shim(
    run: Run, compiled: Callable[..., Path], tmp_path: Path
) -> None:
    """The binary that a distribution would ship."""
    program = compiled("aiouser.c", "-DLINKED", str(needs.system_libaio()))
    done = run("--stats=stats", "--", program)
    assert done.returncode == 0, done.stderr
    assert_shim_answered(tmp_path / "stats")


def test_children_of_the_program_get_the_shim_too(
    run: Run, build_dir: Path, compiled: Callable[..., Path], tmp_path: Path
) -> None:
    """What a script starts is covered like the script."""
    program = link_with(compiled, build_dir, "libaio.so.1")
    done = run("--stats=stats", "sh", "-c", f"{program} && {program} && true")
    assert done.returncode == 0, done.stderr
    assert_shim_answered(tmp_path / "stats", count=2)


def test_program_that_makes_no_context_reports_nothing(run: Run) -> None:
    """--stats adds a line only for those that use AIO."""
    done = run("--stats", "echo", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_stats_go_to_standard_error_by_default(run: Run, build_dir: Path, compiled: Callable[..., Path]) -> None:
    """One line of JSON, which is the proof that the shim was at work."""
    done = run("--stats", "--", link_with(compiled, build_dir, "libaio.so.1"))
    assert done.returncode == 0
    line = json.loads(done.stderr)
    assert line["program"].startswith("aiouser")
    assert line["submitted"] == line["head"] + line["native"] + line["crew"] + line["polled"]


def stats_to(stderr: int, build_dir: Path, program: Path) -> subprocess.CompletedProcess[bytes]:
    """Runs a program that uses AIO, with its report on this descriptor."""
    command = [str(build_dir / "bin" / "libaio-shim"), "run", "--stats", "--", str(program)]
    return subprocess.run(command, env=clean_environment(), stderr=stderr, timeout=60, check=False)


def test_stats_go_to_a_socket(build_dir: Path, compiled: Callable[..., Path]) -> None:
    """Which cannot be opened by the name /dev/stderr: the journal of systemd is one."""
    ours, programs = socket.socketpair()
    with ours, programs:
        done = stats_to(programs.fileno(), build_dir, link_with(compiled, build_dir, "libaio.so.1"))
        programs.close()
        assert done.returncode == 0
        assert json.loads(ours.makefile().read())["contexts"] > 0


def test_stats_do_not_wait_for_a_reader_that_has_gone(build_dir: Path, compiled: Callable[..., Path]) -> None:
    """Nor is the program ended by a signal for them."""
    reader, writer = os.pipe()
    os.close(reader)
    done = stats_to(writer, build_dir, link_with(compiled, build_dir, "libaio.so.1"))
    os.close(writer)
    assert done.returncode == 0


def test_stats_do_not_wait_for_the_reader_of_a_named_pipe(
    run: Run, build_dir: Path, compiled: Callable[..., Path], tmp_path: Path
) -> None:
    """Without one the program ends as it would; with one the line is read."""
    program = link_with(compiled, build_dir, "libaio.so.1")
    os.mkfifo(tmp_path / "pipe")
    assert run("--stats=pipe", "--", program).returncode == 0
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("--stats=pipe", "--", program).returncode == 0
        assert json.loads(os.read(reader, 4096))["contexts"] > 0
    finally:
        os.close(reader)


def test_stats_in_a_file_are_not_written_over(build_dir: Path, compiled: Callable[..., Path], tmp_path: Path) -> None:
    """What a shell's next command says there comes after them."""
    with (tmp_path / "log").open("wb") as log:
        log.write(b"before\n")
        log.flush()
        stats_to(log.fileno(), build_dir, link_with(compiled, build_dir, "libaio.so.1"))
        os.write(log.fileno(), b"after\n")
    first, line, last = (tmp_path / "log").read_text().splitlines()
    assert (first, last) == ("before", "after")
    assert json.loads(line)["contexts"] > 0


# Everything else stays as it is.


@pytest.mark.parametrize("status", [0, 1, 3, 125, 126, 127, 255])
def test_exit_status_is_the_programs(run: Run, status: int) -> None:
    """Also the values that the launcher itself uses."""
    assert run("sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_death_by_signal_is_the_programs(run: Run, number: signal.Signals) -> None:
    """Not 128 + n: the process itself dies of it."""
    assert run("sh", "-c", f"ulimit -c 0; kill -{number.value} $$").returncode == -number


@pytest.mark.parametrize("kind", ["script", "python"])
def test_process_is_the_programs(build_dir: Path, kind: str) -> None:
    """No parent stays behind: a signal to the launcher's process id reaches the program."""
    process = subprocess.Popen(
        [*command_line(kind, build_dir), "run", "sh", "-c", "echo $$; exec sleep 60"],
        env=clean_environment() | {"PYTHONPATH": str(ROOT), "LIBAIO_SHIM_BUILD": str(build_dir)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    with process.stdout:
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGTERM)  # a shell's background jobs have SIGINT ignored
        assert process.wait(timeout=60) == -signal.SIGTERM


def test_arguments_arrive_as_they_were_given(run: Run) -> None:
    """Blanks, quotes, patterns, line ends, nothing at all, and what looks like our own options."""
    arguments = ["a b", "", "*", "$HOME", "`id`", "--stats", "--", "-x", "line\nend", "\\", "'\"", "ä"]
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    done = run("--", sys.executable, "-c", show, *arguments)
    assert json.loads(done.stdout) == arguments


def test_standard_streams_are_the_programs(run: Run) -> None:
    """Input, output and errors pass through untouched."""
    done = run("sh", "-c", "cat; echo error >&2", input="text\n")
    assert (done.stdout, done.stderr) == ("text\n", "error\n")


def environment_seen(run: Run, *options: str, env: dict[str, str]) -> dict[str, str]:
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    done = run(*options, sys.executable, "-c", show, env=env)
    assert done.returncode == 0, done.stderr
    seen: dict[str, str] = json.loads(done.stdout)
    return seen


def test_environment_is_the_callers(run: Run, build_dir: Path) -> None:
    """Only LD_PRELOAD is added: no variable of the launcher's own gets out, none of the caller's is lost."""
    names = ["file", "bytes", "name", "line", "word", "status", "number", "skip", "loader", "depth", "dir", "engine"]
    mine = {name: f"value of {name}" for name in names} | {"EMPTY": "", "LINES_": "a\nb", "PWD": str(ROOT)}
    seen = environment_seen(run, env=mine)
    expected = clean_environment() | {"PYTHONPATH": str(ROOT), "LIBAIO_SHIM_BUILD": str(build_dir)} | mine
    for ignored in ("LD_PRELOAD", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"):  # a shell sets them, Python LC_CTYPE
        seen.pop(ignored, None)
        expected.pop(ignored, None)
    assert seen == expected


def preload_list(build_dir: Path, names: Sequence[str] = PRELOADED) -> str:
    return ":".join(str(build_dir / "lib" / name) for name in names)


def test_both_facades_and_the_syscalls_are_preloaded(run: Run, build_dir: Path) -> None:
    """Neither facade alone covers both SONAMEs; programs that make the calls by number need the third library."""
    assert environment_seen(run, env={})["LD_PRELOAD"] == preload_list(build_dir)


def test_syscalls_can_be_left_alone(run: Run, build_dir: Path) -> None:
    """--no-syscalls preloads the facades only."""
    assert environment_seen(run, "--no-syscalls", env={})["LD_PRELOAD"] == preload_list(build_dir, SONAMES)


def test_trap_adds_its_library(run: Run, build_dir: Path) -> None:
    """--trap; the launcher's question to the kernel leaves nothing in the environment."""
    needs.syscall_user_dispatch()
    seen = environment_seen(run, "--trap", env={})
    assert seen["LD_PRELOAD"] == preload_list(build_dir, (*PRELOADED, "libaio_trap.so"))
    assert "LIBAIO_SHIM_TRAP" not in seen


def test_trap_answers_calls_made_by_the_instruction(run: Run, compiled: Callable[..., Path], tmp_path: Path) -> None:
    """Which without it go to the kernel."""
    needs.syscall_user_dispatch()
    program = compiled("aiouser.c", "-DLINKED", "-DRAW_INLINE", str(ROOT / "tests" / "support" / "raw_aio.c"))
    assert run("--trap", "--stats=stats", "--", program).returncode == 0
    assert_shim_answered(tmp_path / "stats")


def forbid_syscall_user_dispatch() -> None:
    """A seccomp filter, as a sandbox has it: prctl(59, ...) answers EINVAL, as an old kernel does."""
    load, equal, answer = 0x20, 0x15, 0x06
    allow, einval = 0x7FFF0000, 0x00050000 | errno.EINVAL
    program = [(load, 0, 0, 0), (equal, 0, 3, 157), (load, 0, 0, 16), (equal, 0, 1, 59), (answer, 0, 0, einval)]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in [*program, (answer, 0, 0, allow)])
    buffer = ctypes.create_string_buffer(code)
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer)), 0, 0) == 0


def test_trap_is_refused_where_the_kernel_lacks_it(run: Run) -> None:
    """One line, and nothing is run."""
    if platform.machine() != "x86_64":
        pytest.skip("n/a: the filter is for x86-64")
    refused(run("--trap", "echo", "hello", preexec_fn=forbid_syscall_user_dispatch), 126, "--trap", "Linux 5.11")


def test_trap_is_refused_for_programs_of_go(run: Run, compiled: Callable[..., Path], tmp_path: Path) -> None:
    """Which would run, and crash at the first call that a goroutine makes; without --trap they are as all others."""
    needs.syscall_user_dispatch()
    marks = tmp_path / "marks.c"
    marks.write_text("".join(
        f'__attribute__((section("{name}"), used)) static const char mark{i}[] = "x";'
        for i, name in enumerate([".note.go.buildid", ".gopclntab"])
    ))  # fmt: skip
    program = compiled("exit3.c", str(marks))
    refused(run("--trap", program), 126, "--trap", "Go")
    assert run(program).returncode == 3


def test_preloads_of_others_stay_behind_ours(run: Run, build_dir: Path, compiled: Callable[..., Path]) -> None:
    """In their order, whichever of the two separators joins them."""
    others = [find_library("libm.so.6"), find_library("libdl.so.2")]
    preload = environment_seen(run, env={"LD_PRELOAD": " ".join(others)})["LD_PRELOAD"]
    assert preload == f"{preload_list(build_dir)}:{' '.join(others)}"


def find_library(soname: str) -> str:
    """The path under which this process has or would have a library."""
    ctypes.CDLL(soname)
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if Path(path).name.startswith(soname.partition(".so")[0]):
            return path
    raise AssertionError(soname)


def test_run_within_a_run_preloads_once(run: Run, build_dir: Path) -> None:
    """A program that starts the launcher again gets the same list, or the one that was asked for last."""
    launcher = str(build_dir / "bin" / "libaio-shim")
    others = find_library("libm.so.6")
    show = ["sh", "-c", 'echo "$LD_PRELOAD"']
    for outer, inner, names in (
        ([], [], PRELOADED),
        ([], ["--no-syscalls"], SONAMES),
        (["--no-syscalls"], [], PRELOADED),
        (["--no-syscalls"], ["--no-syscalls"], SONAMES),
    ):
        assert run(*outer, launcher, "run", *inner, *show).stdout.strip() == preload_list(build_dir, names)
        done = run(*outer, launcher, "run", *inner, *show, env={"LD_PRELOAD": others})
        assert done.stdout.strip() == f"{preload_list(build_dir, names)}:{others}"


def test_program_inherits_no_descriptor(run: Run) -> None:
    """Neither the shell's nor Python's."""
    show = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    done = run(sys.executable, "-c", show)
    assert done.stdout.strip() == "[0, 1, 2, 3]"  # 3 is the directory that it reads


def test_signals_that_python_ignores_are_not_ignored(run: Run) -> None:
    """It ignores SIGPIPE and SIGXFSZ for itself; a program that inherited that would never notice a closed pipe."""
    numbers = (signal.SIGPIPE, signal.SIGXFSZ)
    status = run("cat", "/proc/self/status", preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in numbers])
    ignored = int(status.stdout.partition("SigIgn:")[2].split()[0], 16)
    assert not [number for number in numbers if ignored >> (number - 1) & 1]


# What is not covered is not run.


def test_unknown_program_is_not_found(run: Run) -> None:
    """By name and by path."""
    refused(run("no-such-program"), 127, "no-such-program", "not found")
    refused(run("./no-such-program"), 127, "not found")


def test_file_without_execute_permission_is_refused(run: Run, tmp_path: Path) -> None:
    """Also when PATH leads to it."""
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    refused(run("./plain"), 126, "not executable")
    refused(run("plain", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}), 126, "not executable")


def test_directory_is_refused(run: Run, tmp_path: Path) -> None:
    """A directory is executable in its own way."""
    refused(run(tmp_path), 126, "directory")


@pytest.mark.parametrize("option", ["-static", "-static-pie"])
def test_static_program_is_refused(run: Run, compiled: Callable[..., Path], option: str) -> None:
    """Nothing can be preloaded where no loader runs."""
    refused(run(compiled("exit3.c", option)), 126, "static")


def test_static_program_is_found_behind_a_name_in_path(run: Run, compiled: Callable[..., Path], tmp_path: Path) -> None:
    """The check looks at the file that exec would take."""
    (tmp_path / "tool").symlink_to(compiled("exit3.c", "-static"))
    refused(run("tool", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}), 126, "static")


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_setuid_and_setgid_programs_are_refused(
    run: Run, compiled: Callable[..., Path], tmp_path: Path, mode: int
) -> None:
    """The loader ignores LD_PRELOAD for them."""
    program = tmp_path / "special"
    shutil.copy(compiled("exit3.c"), program)
    program.chmod(mode)
    refused(run(program), 126, "setuid")


def test_program_with_file_capabilities_is_refused(run: Run, compiled: Callable[..., Path], tmp_path: Path) -> None:
    """They make the loader as careful as setuid does."""
    needs.root()
    program = tmp_path / "capable"
    shutil.copy(compiled("exit3.c"), program)
    subprocess.run([needs.program("setcap", "libcap2-bin"), "cap_net_raw+ep", program], check=True)
    refused(run(program), 126, "capabilities")


@pytest.mark.parametrize(("offset", "byte"), [(4, 1), (18, 183)])
def test_program_for_another_machine_is_refused(
    run: Run, compiled: Callable[..., Path], tmp_path: Path, offset: int, byte: int
) -> None:
    """Another word size, another processor: the loader would warn and go on without the shim."""
    image = bytearray(compiled("exit3.c").read_bytes())
    image[offset] = byte ^ (byte == image[offset])
    program = tmp_path / "foreign"
    program.write_bytes(image)
    program.chmod(0o755)
    refused(run(program), 126, "architecture")


def test_program_of_another_c_library_is_refused(run: Run, compiled: Callable[..., Path], tmp_path: Path) -> None:
    """A musl program cannot take libraries that were built for glibc."""
    program = tmp_path / "musl-program"
    subprocess.run([needs.program("musl-gcc", "musl-tools"), "-o", program, HERE / "exit3.c"], check=True)
    refused(run(program), 126, "musl")


def test_program_whose_loader_is_missing_is_refused(run: Run, compiled: Callable[..., Path]) -> None:
    """What the shell would call "not found" although the file is there."""
    refused(run(compiled("exit3.c", "-Wl,--dynamic-linker=/nowhere/ld.so.9")), 127, "/nowhere/ld.so.9")


def test_file_of_no_known_format_is_refused(run: Run, tmp_path: Path) -> None:
    """Neither ELF nor script."""
    (tmp_path / "data").write_bytes(b"\1\2\3\4")
    (tmp_path / "data").chmod(0o755)
    refused(run("./data"), 126)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_script_runs_when_its_interpreter_is_covered(run: Run, compiled: Callable[..., Path], tmp_path: Path) -> None:
    """With and without an argument, through env, and without any first line."""
    assert run(script(tmp_path / "one", "#!/bin/sh -u\nexit 5\n")).returncode == 5
    assert run(script(tmp_path / "two", "#!/usr/bin/env sh\nexit 6\n")).returncode == 6
    assert run(script(tmp_path / "three", "exit 7\n")).returncode == 7
    assert run(script(tmp_path / "four", f"#!{compiled('exit3.c')}\n")).returncode == 3


def test_script_is_refused_when_its_interpreter_is_not_covered(
    run: Run, compiled: Callable[..., Path], tmp_path: Path
) -> None:
    """The interpreter is the program; it is named in the message."""
    static = compiled("exit3.c", "-static")
    refused(run(script(tmp_path / "one", f"#!{static} x\n")), 126, "one", str(static), "static")
    refused(run(script(tmp_path / "two", f"#! {tmp_path}/one\n")), 126, "static")
    (tmp_path / "tool").symlink_to(static)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    refused(run(script(tmp_path / "three", "#!/usr/bin/env -S A=b tool -x\n"), env=path), 126, "tool", "static")
    refused(run(script(tmp_path / "four", "#!/nowhere/sh\n")), 127, "four", "/nowhere/sh", "not found")
    refused(run(script(tmp_path / "five", f"#!{tmp_path}/five\n")), 126, "interpreters")


# Options.


def test_options_set_the_engines_variables(run: Run, tmp_path: Path) -> None:
    """One variable each; a relative file is meant from here, wherever the program goes."""
    (tmp_path / "out").mkdir()
    options = ["--lanes=head,crew", "--inline", "never", "--settle", "--stats=out/s"]
    seen = environment_seen(run, *options, env={})
    assert seen["LIBAIO_SHIM_LANES"] == "head,crew"
    assert seen["LIBAIO_SHIM_INLINE"] == "never"
    assert seen["LIBAIO_SHIM_SETTLE"] == "1"
    assert seen["LIBAIO_SHIM_STATS"] == f"{tmp_path}/out/s"


def test_variables_of_the_caller_hold_without_options(run: Run) -> None:
    """The options only override."""
    seen = environment_seen(run, env={"LIBAIO_SHIM_LANES": "crew", "LIBAIO_SHIM_SETTLE": "1"})
    assert seen["LIBAIO_SHIM_LANES"] == "crew"
    assert seen["LIBAIO_SHIM_SETTLE"] == "1"
    assert "LIBAIO_SHIM_STATS" not in seen


@pytest.mark.parametrize(
    "options",
    [
        *[["--lanes=fast"], ["--lanes="], ["--lanes=head,"], ["--lanes"], ["--inline=maybe"], ["--what"], []],
        *[["--stats="], [""]],
    ],
)
def test_wrong_use_is_told(run: Run, options: Sequence[str]) -> None:
    """Status 125, as env and timeout do."""
    refused(run(*options), 125)


@pytest.mark.parametrize(
    ("file", "reason"), [("nowhere/s", "does not exist"), ("/nowhere/s", "does not exist"), (".", "directory")]
)
def test_stats_file_that_cannot_be_is_told(run: Run, file: str, reason: str) -> None:
    """The program would end, and no line tell that the shim was there."""
    refused(run(f"--stats={file}", "true"), 125, f"--stats={file}", reason)


@pytest.mark.parametrize("file", ["mine", "new"])
def test_stats_file_that_cannot_be_written_is_told(run: Run, tmp_path: Path, file: str) -> None:
    """Neither an existing one nor one that would have to be made."""
    (tmp_path / "mine").write_text("")
    (tmp_path / "mine").chmod(0o400)
    tmp_path.chmod(0o500)
    if os.access(tmp_path / "mine", os.W_OK):
        pytest.skip("n/a: root may write everywhere")
    refused(run(f"--stats={file}", "true"), 125, "--stats", "permission")


def test_verbose_says_what_is_set(run: Run) -> None:
    """On standard error, before the program starts."""
    done = run("--verbose", "--lanes=crew", "echo", "hello")
    assert done.stdout == "hello\n"
    assert "LD_PRELOAD=" in done.stderr
    assert "LIBAIO_SHIM_LANES=crew" in done.stderr
    assert "echo hello" in done.stderr


@pytest.mark.parametrize("kind", ["script", "python"])
def test_help_and_version(build_dir: Path, kind: str) -> None:
    """The version is the one of pyproject.toml."""
    environment = clean_environment() | {"PYTHONPATH": str(ROOT), "LIBAIO_SHIM_BUILD": str(build_dir)}

    def answer(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*command_line(kind, build_dir), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    for arguments in (["--help"], ["run", "--help"], ["config", "--help"]):
        done = answer(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: libaio-shim run")
        for command in ("run", "which", "config", "bench"):
            assert f"libaio-shim {command}" in done.stdout
    version = answer("--version").stdout.split()[-1]
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert answer("frobnicate").returncode == 125
    assert answer().returncode == 125


# The launcher itself.


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh"])
def test_any_posix_shell_will_do(build_dir: Path, compiled: Callable[..., Path], tmp_path: Path, shell: str) -> None:
    """Covering, refusing and the exit status, by each."""
    start = [*command_line(shell, build_dir), "run"]
    environment = clean_environment()

    def answer(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*start, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert answer("--stats=stats", link_with(compiled, build_dir, "libaio.so.1")).returncode == 0
    assert_shim_answered(tmp_path / "stats")
    assert answer(compiled("exit3.c")).returncode == 3
    refused(answer(compiled("exit3.c", "-static")), 126, "static")
    refused(answer("no-such-program"), 127)
    assert answer(script(tmp_path / "script", "#!/usr/bin/env sh\nexit 6\n")).returncode == 6


def test_launcher_finds_its_libraries_through_links_and_relative_paths(build_dir: Path, tmp_path: Path) -> None:
    """Started by a link from elsewhere, by name through PATH, from its own directory."""
    launcher = build_dir / "bin" / "libaio-shim"
    (tmp_path / "link").symlink_to(launcher)
    expected = preload_list(build_dir) + "\n"
    show = ["run", "sh", "-c", 'echo "$LD_PRELOAD"']
    for command, cwd, path in (
        ([str(tmp_path / "link")], tmp_path, ""),
        (["libaio-shim"], tmp_path, f"{launcher.parent}:"),
        (["./libaio-shim"], launcher.parent, ""),
        (["sh", "libaio-shim"], launcher.parent, ""),
    ):
        environment = clean_environment() | {"PATH": path + os.environ["PATH"]}
        done = subprocess.run([*command, *show], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == expected, done.stderr


def test_incomplete_installation_is_told(build_dir: Path, tmp_path: Path) -> None:
    """A launcher without its libraries runs nothing."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    launcher = tmp_path / "bin" / "libaio-shim"
    shutil.copy(build_dir / "bin" / "libaio-shim", launcher)
    done = subprocess.run([launcher, "run", "true"], capture_output=True, text=True, check=False)
    refused(done, 125, "libaio_shim.so.0", "missing")


@pytest.mark.parametrize("character", [" ", ":", "$"])
def test_directory_that_ld_preload_cannot_name_is_told(build_dir: Path, tmp_path: Path, character: str) -> None:
    """Its list has no quoting."""
    home = tmp_path / f"a{character}b"
    for part in ("bin", "lib"):
        shutil.copytree(build_dir / part, home / part, symlinks=True)
    done = subprocess.run([home / "bin" / "libaio-shim", "run", "true"], capture_output=True, text=True, check=False)
    refused(done, 125, "LD_PRELOAD", "elsewhere")


def test_path_need_not_lead_to_the_launchers_tools(
    build_dir: Path, compiled: Callable[..., Path], tmp_path: Path
) -> None:
    """It is the program's, which is looked for there only and finds it as it was."""
    launcher = build_dir / "bin" / "libaio-shim"

    def answer(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(tmp_path)}
        return subprocess.run([launcher, *arguments], env=environment, capture_output=True, text=True, check=False)

    (tmp_path / "tool").symlink_to(compiled("exit3.c"))
    (tmp_path / "static").symlink_to(compiled("exit3.c", "-static"))
    done = answer("run", "--lanes=head,crew", "tool")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    refused(answer("run", "static"), 126, "static")
    refused(answer("run", "env"), 127, "env", "not found in PATH")
    assert answer("run", "/bin/sh", "-c", 'echo "$PATH"').stdout == f"{tmp_path}\n"
    done = answer("config", "--cflags")
    assert (done.stdout, done.stderr) == (f"-I{build_dir / 'include'}\n", "")
