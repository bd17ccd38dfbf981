"""ELF files: what one says about itself, and which others the loader would load for it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

MULTIARCH = {"EM_X86_64": "x86_64-linux-gnu", "EM_AARCH64": "aarch64-linux-gnu"}
EXECUTABLE = 1  # PF_X
STT_FUNC = 2
INTERESTING = re.compile(rb"(?=((?:syscall|io_setup|io_submit|io_getevents))\0)")


@dataclass
class Object:
    """One program or library, as far as it matters here."""

    path: Path
    machine: str
    bits: int
    interpreter: str = ""
    soname: str = ""
    needed: list[str] = field(default_factory=list)
    rpath: list[str] = field(default_factory=list)
    runpath: list[str] = field(default_factory=list)
    #: Functions that it takes from other objects, and those that it has; only those that matter here.
    imports: dict[str, int] = field(default_factory=dict)  # and their number in the symbol table
    exports: set[str] = field(default_factory=set)
    #: Where the address of the imported function syscall is stored.
    slots: list[int] = field(default_factory=list)
    #: Address and content of what can be executed.
    code: list[tuple[int, bytes]] = field(default_factory=list)
    #: All of its strings, without those that the loader uses.
    data: bytes = b""

    @property
    def name(self) -> str:
        return self.soname or self.path.name


class NotElfError(ValueError):
    """The file is no ELF object that can be read."""


def load(path: Path) -> Object:
    """Reads one file; NotElfError if it is none or is damaged, OSError if it cannot be read."""
    with path.open("rb") as file:
        try:
            return _read(path, ELFFile(file))
        except (ELFError, AssertionError, KeyError, ValueError) as error:
            raise NotElfError(str(error)) from error


def _read(path: Path, elf: Any) -> Object:
    made = Object(path, elf["e_machine"], elf.elfclass)
    for segment in elf.iter_segments():
        if segment["p_type"] == "PT_INTERP":
            made.interpreter = segment.get_interp_name()
        elif segment["p_type"] == "PT_LOAD" and segment["p_flags"] & EXECUTABLE:
            made.code.append((segment["p_vaddr"], segment.data()))
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            _read_dynamic(made, section)
        elif section["sh_type"] == "SHT_PROGBITS" and not section["sh_flags"] & 4 and section["sh_flags"] & 2:
            made.data += section.data()  # allocated, and not code
    if (elf.elfclass, elf.little_endian) == (64, True):
        tables = [section for section in elf.iter_sections() if section["sh_type"] in ("SHT_DYNSYM", "SHT_SYMTAB")]
        for table in tables:
            _read_symbols(made, elf, table)
        for section in elf.iter_sections("SHT_RELA"):
            _read_relocations(made, section)
    return made


def _read_dynamic(made: Object, section: Any) -> None:
    for tag in section.iter_tags():
        if tag.entry.d_tag == "DT_NEEDED":
            made.needed.append(tag.needed)
        elif tag.entry.d_tag == "DT_SONAME":
            made.soname = tag.soname
        elif tag.entry.d_tag == "DT_RPATH":
            made.rpath = tag.rpath.split(":")
        elif tag.entry.d_tag == "DT_RUNPATH":
            made.runpath = tag.runpath.split(":")


def _read_symbols(made: Object, elf: Any, section: Any) -> None:
    """Looks for a few names only: a library may have a hundred thousand."""
    strings = elf.get_section(section["sh_link"]).data()
    wanted = {match.start(1): match[1].decode() for match in INTERESTING.finditer(strings)}
    for number, (name, info, _, index, _, _) in enumerate(struct.iter_unpack("<IBBHQQ", section.data())):
        if name not in wanted:
            continue
        if index == 0:  # SHN_UNDEF
            if section["sh_type"] == "SHT_DYNSYM":
                made.imports[wanted[name]] = number
        elif info & 15 == STT_FUNC:
            made.exports.add(wanted[name])


def _read_relocations(made: Object, section: Any) -> None:
    """Where the loader writes the address of syscall."""
    symbol = made.imports.get("syscall")
    if symbol is not None:
        made.slots += [at for at, info, _ in struct.iter_unpack("<QQq", section.data()) if info >> 32 == symbol]


@cache
def _cached_libraries() -> dict[str, list[str]]:
    """What the loader's cache knows: name and paths."""
    found: dict[str, list[str]] = {}
    for tool in ("/sbin/ldconfig", "/usr/sbin/ldconfig"):
        if not Path(tool).exists():
            continue
        printed = subprocess.run([tool, "-p"], capture_output=True, text=True, check=False).stdout  # noqa: S603
        for line in printed.splitlines():
            match = re.match(r"\s*(\S+) \(.*\) => (.+)", line)
            if match:
                found.setdefault(match[1], []).append(match[2])
        break
    return found


def _expand(directory: str, origin: Path, machine: str) -> str:
    for word, value in (("ORIGIN", str(origin)), ("LIB", f"lib/{MULTIARCH.get(machine, '')}"), ("PLATFORM", "")):
        directory = directory.replace(f"${word}", value).replace(f"${{{word}}}", value)
    return directory


def _candidates(name: str, by: Object, inherited_rpath: list[str]) -> Iterator[Path]:
    """Where the loader would look, in its order."""
    if "/" in name:
        yield Path(name)
        return
    directories = [] if by.runpath else [*by.rpath, *inherited_rpath]
    directories += os.environ.get("LD_LIBRARY_PATH", "").split(":") + by.runpath
    origin = by.path.resolve().parent
    for directory in filter(None, directories):
        yield Path(_expand(directory, origin, by.machine)) / name
    yield from map(Path, _cached_libraries().get(name, []))
    usual = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"]
    triplet = MULTIARCH.get(by.machine)
    for directory in [*(f"{base}/{triplet}" for base in usual[:2] if triplet), *usual]:
        yield Path(directory) / name


def _find(name: str, by: Object, inherited_rpath: list[str]) -> Object | None:
    for path in _candidates(name, by, inherited_rpath):
        try:
            if not path.is_file():
                continue
            found = load(path)
        except (NotElfError, OSError):
            continue
        if (found.machine, found.bits) == (by.machine, by.bits):
            return found
    return None


def closure(program: Object) -> tuple[list[Object], list[str]]:
    """The program and all libraries that it needs, in the loader's order; and the names that were not found."""
    objects, missing, seen = [program], [], {program.name}
    for by in objects:  # grows meanwhile
        for name in by.needed:
            if name in seen:
                continue
            seen.add(name)
            found = _find(name, by, [] if program.runpath else program.rpath)
            if found is None:
                missing.append(name)
            elif not any(found.path.samefile(other.path) for other in objects):
                objects.append(found)
    return objects, missing
