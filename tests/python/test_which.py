"""`libaio-shim which`: programs compiled to reach AIO in one way each, and what it says of them is what `run` does."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RAW = ROOT / "tests" / "support" / "raw_aio.c"

Which = Callable[..., dict[str, Any]]
Compile = Callable[..., Path]


def clean_environment(build_dir: Path) -> dict[str, str]:
    unwanted = ("LD_", "LIBAIO_SHIM")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    return kept | {"PYTHONPATH": str(ROOT), "LIBAIO_SHIM_BUILD": str(build_dir)}


def command(build_dir: Path, *words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "libaio_shim", *words],
        env=clean_environment(build_dir),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def which(build_dir: Path) -> Which:
    """Asks, as JSON; the exit status stands under "status"."""

    def ask(program: str | Path) -> dict[str, Any]:
        done = command(build_dir, "which", "--json", program)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer | {"status": done.returncode}

    return ask


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Compiles aiouser.c with options."""

    def compile_user(name: str, *options: str | Path, source: Path = HERE / "aiouser.c") -> Path:
        output = tmp_path / name
        subprocess.run(["cc", "-O1", f"-I{ROOT / 'include'}", "-o", output, source, *options], check=True)
        return output

    return compile_user


def hows(answer: dict[str, Any]) -> list[str]:
    return [way["how"] for way in answer["ways"]]


def run_answers(build_dir: Path, directory: Path, answer: dict[str, Any], *arguments: str) -> bool:
    """Whether `libaio-shim run` with the options named puts the program on the shim: the proof of the answer."""
    stats = directory / "stats"
    words = ["run", *answer["options"], f"--stats={stats}", "--", answer["program"], *arguments]
    done = command(build_dir, *words, cwd=directory)
    assert done.returncode == 0, done.stderr
    return stats.exists()


def test_program_linked_with_libaio(build_dir: Path, which: Which, compiled: Compile, tmp_path: Path) -> None:
    """DT_NEEDED."""
    lib = build_dir / "lib"
    answer = which(compiled("user", "-DLINKED", lib / "libaio.so.1", f"-Wl,-rpath,{lib}"))
    assert (hows(answer), answer["covered"], answer["options"], answer["status"]) == (["linked"], "yes", [], 0)
    assert run_answers(build_dir, tmp_path, answer)


def test_program_with_a_libaio_of_another_name(
    build_dir: Path, which: Which, compiled: Compile, tmp_path: Path
) -> None:
    """As wheels and application bundles carry it; its symbols are looked up by name and version all the same."""
    bundled = tmp_path / "libaiX.so.1"
    content = needs.system_libaio().read_bytes()
    bundled.write_bytes(
        content.replace(b"libaio.so.1t64\0", b"libaiX.so.1\0\0\0\0").replace(b"libaio.so.1\0", b"libaiX.so.1\0")
    )
    answer = which(compiled("user", "-DLINKED", bundled, f"-Wl,-rpath,{tmp_path}"))
    assert (hows(answer), answer["covered"], answer["options"]) == (["bundled"], "yes", [])
    assert run_answers(build_dir, tmp_path, answer)


def test_library_of_the_program_counts(which: Which, compiled: Compile, build_dir: Path, tmp_path: Path) -> None:
    """The program itself knows nothing of AIO."""
    source = tmp_path / "library.c"
    source.write_text("#include <libaio.h>\nint use(void) { io_context_t c = 0; return io_setup(1, &c); }\n")
    lib = build_dir / "lib"
    library = compiled("libuse.so", "-shared", "-fPIC", lib / "libaio.so.1", f"-Wl,-rpath,{lib}", source=source)
    main = tmp_path / "main.c"
    main.write_text("int use(void);\nint main(void) { return use(); }\n")
    answer = which(compiled("main", library, f"-Wl,-rpath,{tmp_path}", source=main))
    assert hows(answer) == ["linked"]
    assert answer["ways"][0]["object"] == str(library)


@pytest.mark.parametrize("named", [True, False])
def test_plug_in_that_a_program_opens(
    build_dir: Path, which: Which, compiled: Compile, tmp_path: Path, named: bool
) -> None:
    """Not seen in the program, which `which` says nothing can be done for; asked about itself, it is as if linked."""
    source = tmp_path / "plugin.c"
    source.write_text("#include <libaio.h>\nint use(void) { io_context_t c = 0; return io_setup(1, &c); }\n")
    lib = build_dir / "lib"
    options = ["-shared", "-fPIC", lib / "libaio.so.1", f"-Wl,-rpath,{lib}"]
    plugin = compiled("plugin.so", *options, *(["-Wl,-soname,plugin.so"] if named else []), source=source)
    main = tmp_path / "main.c"
    main.write_text(
        "#include <dlfcn.h>\nint main(int n, char **words)\n"
        '{ int (*use)(void) = (int (*)(void))dlsym(dlopen(words[n - 1], RTLD_NOW), "use"); return use(); }\n'
    )
    program = compiled("opener", source=main)
    assert which(program)["covered"] == "nothing"
    answer = which(plugin)
    assert (hows(answer), answer["covered"], answer["obstacles"]) == (["linked"], "yes", [])
    assert (answer["library"], which(program)["library"]) == (True, False)
    assert run_answers(build_dir, tmp_path, answer | {"program": str(program)}, str(plugin))
    said = command(build_dir, "which", plugin).stdout
    assert said.endswith("covered by: libaio-shim run -- PROGRAM\n")


def test_program_that_opens_libaio_by_name(build_dir: Path, which: Which, tmp_path: Path, compiled: Compile) -> None:
    """dlopen with a name in the data; a path leads past the shim, to a library whose system calls --trap catches."""
    for name, options in (("libaio.so.1", []), ("libaio.so.1t64", []), ("/opt/lib/libaio.so.1", ["--trap"])):
        source = tmp_path / "open.c"
        source.write_text(f'#include <dlfcn.h>\nint main(void) {{ return !dlopen("{name}", RTLD_NOW); }}\n')
        answer = which(compiled("open", "-ldl", source=source))
        assert hows(answer) == ["dlopen"]
        assert answer["options"] == options
        assert name in answer["ways"][0]["detail"]


def test_words_that_only_mention_libaio(which: Which, tmp_path: Path, compiled: Compile) -> None:
    """A message, and a piece of a name to look for in /proc/self/maps, as LVM has one, are nothing to open."""
    source = tmp_path / "words.c"
    source.write_text(
        '#include <stdio.h>\nconst char *const names[] = {"/libaio.so.", "cannot open libaio.so.1"};\n'
        "int main(int argc, char **argv) { return puts(names[argc & 1]); }\n"
    )
    assert which(compiled("words", source=source))["ways"] == []


@pytest.mark.parametrize("options", [["-O0"], ["-O2"], ["-O2", "-fno-plt"], ["-O2", "-fcf-protection=full"], ["-Os"]])
def test_program_that_calls_by_number(
    build_dir: Path, which: Which, compiled: Compile, tmp_path: Path, options: list[str]
) -> None:
    """Whatever the compiler makes of a call of syscall()."""
    source = tmp_path / "numbers.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <sys/syscall.h>\n#include <unistd.h>\n"
        "int main(void) {\n\tunsigned long ctx = 0;\n\tif (syscall(SYS_io_setup, 4, &ctx)) return 1;\n"
        "\tsyscall(SYS_io_getevents, ctx, 0L, 1L, 0L, 0L);\n\treturn (int)syscall(SYS_io_destroy, ctx);\n}\n"
    )
    answer = which(compiled("numbers", *options, source=source))
    assert (hows(answer), answer["covered"], answer["options"]) == (["syscall"], "yes", [])
    for call in ("io_setup", "io_getevents", "io_destroy"):
        assert call in answer["ways"][0]["detail"]
    assert "io_submit" not in answer["ways"][0]["detail"]
    assert run_answers(build_dir, tmp_path, answer)


def test_program_with_system_calls_of_its_own(build_dir: Path, which: Which, compiled: Compile, tmp_path: Path) -> None:
    """The bare instruction: --trap, if the kernel can."""
    needs.syscall_user_dispatch()
    answer = which(compiled("inline", "-DLINKED", "-DRAW_INLINE", RAW))
    assert (hows(answer), answer["options"], answer["covered"], answer["status"]) == (["inline"], ["--trap"], "yes", 0)
    assert run_answers(build_dir, tmp_path, answer)
    assert not run_answers(build_dir, _made(tmp_path / "without"), answer | {"options": []})


def test_distance_of_a_call_that_looks_like_the_instruction(which: Which, compiled: Compile, tmp_path: Path) -> None:
    """After a number of AIO's, a call whose distance has the instruction's bytes in it: there is no such call."""
    if platform.machine() != "x86_64":
        pytest.skip("x86-64 code")
    source = tmp_path / "far.c"
    source.write_text(
        "int main(void) { return 0; }\n"
        'asm(".text\\n mov $209, %eax\\n call 1f + 0x50f14\\n 1: .skip 0x50f20, 0xc3\\n");\n'
    )
    program = compiled("far", source=source)
    assert b"\xb8\xd1\0\0\0\xe8\x14\x0f\x05\0" in program.read_bytes()
    assert hows(which(program)) == []


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_kernel_without_trap_is_told(
    build_dir: Path, compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program would need what this machine cannot."""
    from libaio_shim.which import cli, verdict

    if platform.machine() != "x86_64":
        pytest.skip("n/a: --trap is for x86-64")
    monkeypatch.setattr(verdict, "trap_available", lambda: False)
    found = verdict.judge(str(compiled("inline", "-DLINKED", "-DRAW_INLINE", RAW)))
    assert found.covered == "no"
    assert "Syscall User Dispatch" in cli.as_text(found)
    assert cli.STATUS[found.covered] == 1


@pytest.mark.parametrize("option", ["-static", "-static-pie"])
def test_static_program(which: Which, compiled: Compile, option: str) -> None:
    """Its AIO is found, and cannot be answered."""
    answer = which(compiled("static", option, "-DLINKED", "-DRAW_INLINE", RAW))
    assert (hows(answer), answer["covered"], answer["status"]) == (["static"], "no", 1)
    assert "static" in answer["obstacles"][0]


def test_setuid_program(which: Which, compiled: Compile, build_dir: Path) -> None:
    """As `run`, which refuses it."""
    program = compiled("setuid", "-DLINKED", build_dir / "lib" / "libaio.so.1", f"-Wl,-rpath,{build_dir / 'lib'}")
    program.chmod(0o4755)
    answer = which(program)
    assert (answer["covered"], answer["status"]) == ("no", 1)
    assert "setuid" in answer["obstacles"][0]


def test_io_uring_is_not_aio(which: Which, compiled: Compile, tmp_path: Path) -> None:
    """It is named, and there is nothing to answer."""
    source = tmp_path / "uring.c"
    source.write_text("#include <unistd.h>\nint main(void) { return syscall(426, -1, 0, 0, 0, 0) > 0; }\n")
    answer = which(compiled("uring", source=source))
    assert (hows(answer), answer["covered"], answer["status"]) == (["io_uring"], "nothing", 2)


def test_program_without_aio(which: Which) -> None:
    """Nothing to do, and that is said."""
    answer = which("true")
    assert (answer["ways"], answer["covered"], answer["status"]) == ([], "nothing", 2)


def test_script_is_judged_by_its_interpreter(which: Which, compiled: Compile, build_dir: Path, tmp_path: Path) -> None:
    """The first line's, through env."""
    lib = build_dir / "lib"
    program = compiled("interpreter", "-DLINKED", lib / "libaio.so.1", f"-Wl,-rpath,{lib}")
    script = tmp_path / "script"
    script.write_text(f"#!{program} -x\n")
    script.chmod(0o755)
    answer = which(script)
    assert (answer["program"], answer["script"], hows(answer)) == (str(program), str(script), ["linked"])
    script.write_text("#!/usr/bin/env -S A=b sh\n")
    assert which(script)["program"] == shutil.which("sh")


def test_text_says_the_command(build_dir: Path, compiled: Compile) -> None:
    """Ready to be copied."""
    lib = build_dir / "lib"
    program = compiled("user", "-DLINKED", lib / "libaio.so.1", f"-Wl,-rpath,{lib}")
    done = command(build_dir, "which", program)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"covered by: libaio-shim run -- {program}"
    again = subprocess.run([build_dir / "bin" / "libaio-shim", "which", program], capture_output=True, text=True,
                           env=clean_environment(build_dir), check=False)  # fmt: skip
    assert (again.returncode, again.stdout) == (0, done.stdout)


def test_package_in_the_present_directory_is_not_taken(build_dir: Path, tmp_path: Path) -> None:
    """The launcher hands over to its own; where the command is started there may be anything."""
    (tmp_path / "libaio_shim").mkdir()
    (tmp_path / "libaio_shim" / "__init__.py").write_text("print('another')\n")
    done = subprocess.run(
        [build_dir / "bin" / "libaio-shim", "which", "true"],
        cwd=tmp_path,
        env=clean_environment(build_dir),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (2, ["no AIO found: nothing for the shim to do"])


def test_launcher_without_its_package_says_so(build_dir: Path, tmp_path: Path) -> None:
    """Copied elsewhere it runs programs, and has nobody to hand over to."""
    for part in ("bin", "lib"):
        shutil.copytree(build_dir / part, tmp_path / part, symlinks=True)
    environment = clean_environment(build_dir) | {"PYTHONPATH": ""}
    for command in ("which", "bench"):
        done = subprocess.run(
            [tmp_path / "bin" / "libaio-shim", command], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (125, "")
        assert "Python package" in done.stderr


def test_directory_that_cannot_be_looked_into_is_passed_over(build_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As exec and the loader do it; root may look everywhere, but for a name that is too long."""
    from libaio_shim.which import verdict

    barred = f"/{'x' * 300}"
    expected = verdict.find_program("sh")
    assert expected is not None
    monkeypatch.setenv("PATH", f"{barred}:{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{barred}:{build_dir / 'lib'}")
    assert verdict.find_program("sh") == expected
    assert verdict.judge("sh")


def test_missing_library_is_told(which: Which, compiled: Compile, tmp_path: Path) -> None:
    """What was not found was not looked at."""
    source = tmp_path / "empty.c"
    source.write_text("int nothing;\n")
    library = compiled("libgone.so", "-shared", "-fPIC", "-Wl,-soname,libgone.so.3", source=source)
    main = tmp_path / "main.c"
    main.write_text("int main(void) { return 0; }\n")
    program = compiled("main", "-Wl,--no-as-needed", library, source=main)
    library.unlink()
    assert which(program)["missing"] == ["libgone.so.3"]


def test_what_is_no_program_is_told(build_dir: Path, tmp_path: Path) -> None:
    """With the statuses of `run`."""
    data = tmp_path / "data"
    data.write_bytes(b"\1\2\3\4")
    data.chmod(0o755)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(Path(sys.executable).resolve().read_bytes()[:100])
    damaged.chmod(0o755)
    for words, status in (
        (["no-such-program"], 127),
        ([""], 127),
        ([tmp_path], 126),
        ([data], 126),
        ([damaged], 126),
        ([], 125),
        (["--what", "x"], 125),
    ):
        done = command(build_dir, "which", *words)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("libaio-shim: ")
