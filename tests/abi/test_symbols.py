"""The names that the libraries export, exactly: one more or one less breaks somebody's program.

``libaio.symbols`` and ``libaio_shim.symbols`` are the kept lists, in the notation NAME@@DEFAULT_VERSION or
NAME@OTHER_VERSION.  A change there is a change of the interface.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import needs
import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FACADES = ("libaio.so.1", "libaio.so.1t64")
ENGINE = "libaio_shim.so.0"


class Library:
    """What the dynamic linker sees of a shared library."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            elf: Any = ELFFile(file)
            self.versions = dict(self._versions(elf))
            self.exports = sorted(self._exports(elf))
            dynamic = elf.get_section_by_name(".dynamic")
            assert isinstance(dynamic, DynamicSection)
            tags: Any = dynamic.iter_tags
            self.soname = next(tag.soname for tag in tags("DT_SONAME"))
            self.needed = [tag.needed for tag in tags("DT_NEEDED")]
            self.runpath = [tag.runpath for tag in tags("DT_RUNPATH")]
            self.flags = next((tag.entry.d_val for tag in tags("DT_FLAGS_1")), 0)
            self.text_relocations = any(True for _ in tags("DT_TEXTREL"))
            stack = next(segment for segment in elf.iter_segments("PT_GNU_STACK"))
            self.executable_stack = bool(stack.header.p_flags & 1)

    @staticmethod
    def _versions(elf: Any) -> Any:
        """Index and name of every version that the library defines."""
        for definition, names in elf.get_section_by_name(".gnu.version_d").iter_versions():
            if not definition["vd_flags"] & 1:  # VER_FLG_BASE: the library's own name
                yield definition["vd_ndx"], next(names).name

    def _exports(self, elf: Any) -> Any:
        indices = elf.get_section_by_name(".gnu.version")
        for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
            if symbol["st_shndx"] in ("SHN_UNDEF", "SHN_ABS"):  # imported, or the name of a version
                continue
            assert symbol["st_info"]["type"] == "STT_FUNC", symbol.name
            index = indices.get_symbol(number)["ndx"]
            hidden = isinstance(index, int) and index & 0x8000
            version = self.versions[index & 0x7FFF] if isinstance(index, int) else str(index)
            yield f"{symbol.name}{'@' if hidden else '@@'}{version}"


def kept(name: str) -> list[str]:
    return (HERE / name).read_text().split()


@pytest.mark.parametrize("soname", FACADES)
def test_facade_exports_the_thirteen_pairs_and_nothing_else(build_dir: Path, soname: str) -> None:
    """Same names, same versions, same defaults."""
    assert Library(build_dir / "lib" / soname).exports == kept("libaio.symbols")


def test_system_library_agrees_with_the_kept_list() -> None:
    """The list is what libaio exports, not what we think it does."""
    assert Library(needs.system_libaio()).exports == kept("libaio.symbols")


@pytest.mark.parametrize("soname", FACADES)
def test_facade_defines_the_versions_of_libaio(build_dir: Path, soname: str) -> None:
    """The loader warns of a missing one.  (Their order is not compared: lld does not record it, no loader reads it.)"""
    assert sorted(Library(build_dir / "lib" / soname).versions.values()) == ["LIBAIO_0.1", "LIBAIO_0.4", "LIBAIO_0.5"]


@pytest.mark.parametrize("soname", FACADES)
def test_facade_finds_the_engine_beside_it(build_dir: Path, soname: str) -> None:
    """By $ORIGIN, whatever directory the three libraries are moved to together."""
    library = Library(build_dir / "lib" / soname)
    assert library.soname == soname
    assert ENGINE in library.needed
    assert library.runpath == ["$ORIGIN"]


def test_engine_exports_its_header_and_nothing_else(build_dir: Path) -> None:
    """Everything else in the engine is free to change."""
    assert Library(build_dir / "lib" / ENGINE).exports == kept("libaio_shim.symbols")


def test_engine_list_is_what_its_header_declares() -> None:
    """No function of include/libaio_shim.h is left out of the map, none is exported without a declaration."""
    header = (ROOT / "include" / "libaio_shim.h").read_text()
    without_comments = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    declared = set(re.findall(r"\b(las_\w+)\(", without_comments))
    assert {line.partition("@")[0] for line in kept("libaio_shim.symbols")} == declared


INTERPOSERS = {"libaio_syscall.so": "syscall.map", "libaio_trap.so": "trap.map"}


@pytest.mark.parametrize("soname", INTERPOSERS)
def test_interposer_exports_its_map_without_versions(build_dir: Path, soname: str) -> None:
    """A definition without a version satisfies callers of every version; one name more would replace libc's."""
    if not (build_dir / "lib" / soname).exists():
        pytest.skip(f"n/a: {soname} is not built for this machine")
    assert interposed(build_dir / "lib" / soname) == listed_to_interpose(soname)


def interposed(library: Path) -> list[str]:
    """What it exports, without a version."""
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", str(library)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted(line.split()[0] for line in printed.splitlines())


def listed_to_interpose(soname: str) -> list[str]:
    listed = (ROOT / "compat" / INTERPOSERS[soname]).read_text()
    return sorted(re.findall(r"^\t\t(\w+);$", listed, re.MULTILINE))


def test_flags_of_distributions_change_no_export(tmp_path: Path) -> None:
    """Ubuntu and Fedora ask for link-time optimization, which knows nothing of names in assembler."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "CFLAGS", "LDFLAGS"))}
    hardened = "-g -O2 -flto=auto -ffat-lto-objects -fstack-protector-strong -fstack-clash-protection"
    flags = [f"CFLAGS={hardened}", "CPPFLAGS=-D_FORTIFY_SOURCE=2", "LDFLAGS=-flto=auto -Wl,-Bsymbolic-functions"]
    subprocess.run(["make", "-C", ROOT, "-s", "build", f"BUILD={tmp_path}", *flags], env=clean, check=True)
    lib = tmp_path / "lib"
    for soname in FACADES:
        assert Library(lib / soname).exports == kept("libaio.symbols")
    assert Library(lib / ENGINE).exports == kept("libaio_shim.symbols")
    for soname in INTERPOSERS:
        assert not (lib / soname).exists() or interposed(lib / soname) == listed_to_interpose(soname)


@pytest.mark.parametrize("soname", [*FACADES, ENGINE])
def test_library_is_never_unloaded(build_dir: Path, soname: str) -> None:
    """Threads run in it: dlclose must not take the code from under them (DF_1_NODELETE)."""
    assert Library(build_dir / "lib" / soname).flags & 0x8


@pytest.mark.parametrize("soname", [*FACADES, ENGINE])
def test_library_is_hardened(build_dir: Path, soname: str) -> None:
    """Bound at start (a lazy binding would allocate inside io_submit), no executable stack, no text relocations."""
    library = Library(build_dir / "lib" / soname)
    assert library.flags & 0x1  # DF_1_NOW
    assert not library.executable_stack
    assert not library.text_relocations


def test_abidiff_sees_no_change_from_the_system_library(build_dir: Path) -> None:
    """libabigail compares symbols, versions and, where debug information is installed, types."""
    abidiff = needs.program("abidiff", "abigail-tools")
    system = needs.system_libaio()
    done = subprocess.run(
        [abidiff, "--no-added-syms", system, build_dir / "lib" / Library(system).soname],
        capture_output=True,
        text=True,
        check=False,
    )
    # Bits of the exit status: 1 failed, 2 wrong use, 4 changed, 8 changed incompatibly.
    assert done.returncode == 0, done.stdout + done.stderr
