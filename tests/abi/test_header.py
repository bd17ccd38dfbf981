"""include/libaio.h is the system's libaio.h to every program and compiler."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import needs
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OURS = f"-I{ROOT / 'include'}"
STRICT = [
    *("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wcast-qual", "-Wundef", "-Wpadded"),
    *("-pedantic-errors", "-Werror", "-fsyntax-only"),
]
PLAIN = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
C_COMPILERS = {"gcc": "gcc", "clang": "clang", "musl-gcc": "musl-tools"}
CXX_COMPILERS = {"g++": "g++", "clang++": "clang"}

TARGETS = [
    *("x86_64-linux-gnu", "i386-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf"),
    *("powerpc64-linux-gnu", "powerpc-linux-gnu", "s390x-linux-gnu", "riscv64-linux-gnu"),
]

# What the header includes, for machines whose C library is not installed here: only what it uses.
STAND_INS = {
    "signal.h": "typedef struct { unsigned long words[2]; } sigset_t;",
    "string.h": "#include <stddef.h>\nvoid *memset(void *, int, size_t);\nvoid *memcpy(void *, const void *, size_t);",
    "sys/select.h": "",
    "sys/types.h": "",
}
# The kernel's records (linux/aio_abi.h) on every machine, as 64-bit slots; LOW is where the low half of a slot is.
SLOTS = """
#include <libaio.h>
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LOW(bytes) 0
#define FIRST 0
#define SECOND 4
#else
#define LOW(bytes) (8 - (bytes))
#define FIRST 4
#define SECOND 0
#endif
#define WORD LOW(sizeof(long))
#define AT(type, field, offset) _Static_assert(__builtin_offsetof(struct type, field) == (offset), #field)
_Static_assert(sizeof(struct iocb) == 64, "iocb");
AT(iocb, data, WORD);
AT(iocb, key, 8 + FIRST);
AT(iocb, aio_rw_flags, 8 + SECOND);
AT(iocb, aio_lio_opcode, 16);
AT(iocb, aio_reqprio, 18);
AT(iocb, aio_fildes, 20);
AT(iocb, u.c.buf, 24 + WORD);
AT(iocb, u.c.nbytes, 32 + WORD);
AT(iocb, u.c.offset, 40);
AT(iocb, u.c.__pad3, 48);
AT(iocb, u.c.flags, 56);
AT(iocb, u.c.resfd, 60);
AT(iocb, u.v.vec, 24 + WORD);
AT(iocb, u.v.nr, 32 + WORD);
AT(iocb, u.v.offset, 40);
AT(iocb, u.poll.events, 24 + LOW(4));
AT(iocb, u.saddr.addr, 24 + WORD);
AT(iocb, u.saddr.len, 32 + WORD);
_Static_assert(sizeof(struct io_event) == 32, "io_event");
AT(io_event, data, WORD);
AT(io_event, obj, 8 + WORD);
AT(io_event, res, 16 + WORD);
AT(io_event, res2, 24 + WORD);
AT(io_sigset_compat, ss, WORD);
AT(io_sigset_compat, ss_len, 8);
"""


def compile_source(command: list[str | Path]) -> None:
    """Runs a compiler; it must not say a word."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr


@pytest.mark.parametrize("standard", ["c89", "gnu89", "c99", "c11", "c17", "gnu17"])
@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_compiles_as_every_c_without_a_warning(compiler: str, standard: str) -> None:
    """Also where it says the least: C89 -pedantic without any feature macro."""
    command = needs.program(compiler, C_COMPILERS[compiler])
    quiet = ["-Wno-long-long"] if standard.endswith("89") else []  # prototypes.c says it, the header does not
    compile_source([command, f"-std={standard}", *STRICT, *quiet, OURS, HERE / "prototypes.c"])


@pytest.mark.parametrize("standard", ["c++98", "c++11", "c++17", "c++20"])
@pytest.mark.parametrize("compiler", CXX_COMPILERS)
def test_compiles_as_every_cxx_without_a_warning(compiler: str, standard: str) -> None:
    """As part of a C++ program, names unmangled."""
    command = needs.program(compiler, CXX_COMPILERS[compiler])
    quiet = ["-Wno-long-long", "-Wno-c++11-long-long"] if standard == "c++98" else []
    quiet = quiet if compiler == "clang++" else quiet[:1]
    compile_source([command, "-x", "c++", f"-std={standard}", *STRICT, *quiet, OURS, HERE / "prototypes.c"])


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++", "clang++"])
def test_header_alone_is_pedantically_clean(tmp_path: Path, compiler: str) -> None:
    """long long, which the first standards do not have, is not complained of either."""
    command = needs.program(compiler, (C_COMPILERS | CXX_COMPILERS)[compiler])
    source = tmp_path / ("alone.cc" if "+" in compiler else "alone.c")
    source.write_text("#include <libaio.h>\nint nothing;\n")
    compile_source([command, "-std=c++98" if "+" in compiler else "-std=c89", *STRICT, OURS, source])


@pytest.mark.parametrize("language", ["c", "c++"])
def test_declares_what_the_system_header_declares(language: str) -> None:
    """prototypes.c repeats every declaration, so a compiler that takes it with both headers proves them equal."""
    needs.system_header()
    command = needs.program("gcc")
    for include in ([], [OURS]):
        # gnu17: the system's header needs sigset_t, which strict C hides.
        standard = "gnu17" if language == "c" else "gnu++17"
        compile_source(
            [command, "-x", language, f"-std={standard}", *PLAIN, *include, HERE / "prototypes.c"],
        )


@pytest.mark.parametrize("first", ["ours", "system"])
def test_both_headers_in_one_program_are_harmless(tmp_path: Path, first: str) -> None:
    """Whoever comes second finds the include guard taken."""
    headers = [ROOT / "include" / "libaio.h", needs.system_header()]
    if first == "system":
        headers.reverse()
    source = tmp_path / "both.c"
    source.write_text("".join(f'#include "{header}"\n' for header in headers))
    compile_source([needs.program("gcc"), *PLAIN, source])


def layout(tmp_path: Path, *include: str) -> str:
    """What layout.c prints when it is compiled with these options."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    program = tmp_path / "layout"
    compile_source([*compiler, "-std=gnu11", "-Wall", "-Wextra", *include, "-o", program, HERE / "layout.c"])
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout


def test_sizes_offsets_values_and_helpers_equal_the_system_header(tmp_path: Path) -> None:
    """layout.c prints every one of them."""
    needs.system_header()
    assert layout(tmp_path, OURS) == layout(tmp_path)


def test_sizes_offsets_values_and_helpers_equal_the_kept_list(tmp_path: Path) -> None:
    """The same without a system header: the list was printed with one."""
    if sys.byteorder != "little" or platform.architecture()[0] != "64bit":
        pytest.skip("n/a: the list is for little-endian 64-bit machines")
    assert layout(tmp_path, OURS) == (HERE / "layout.expected").read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_layout_is_the_kernels_on_every_kind_of_machine(tmp_path: Path, target: str) -> None:
    """Both byte orders, both word sizes; clang knows them all without their C libraries."""
    command = needs.program("clang")
    for name, text in STAND_INS.items():
        path = tmp_path / "include" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    source = tmp_path / "slots.c"
    source.write_text(SLOTS)
    stand_ins = ["-nostdlibinc", "-isystem", str(tmp_path / "include")]
    compile_source([command, f"--target={target}", *stand_ins, "-std=c11", *STRICT, OURS, source])
