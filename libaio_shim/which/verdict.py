"""What the findings mean: the ways in which a program reaches AIO, and what answers each of them."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from libaio_shim import _places
from libaio_shim.which import code
from libaio_shim.which.objects import NotElfError, Object, closure, load

SONAMES = ("libaio.so.1", "libaio.so.1t64")
# They make system calls for others, or their own AIO has nothing to do with the kernel's.
LIBC = re.compile(r"(ld-linux.*|ld-musl.*|ld64|libc|libpthread|librt|libdl|libm|libresolv|libnss_.*|libc\.musl.*)[-.]")
OURS = ("libaio_shim.", "libaio_syscall.", "libaio_trap.")
NAMED = re.compile(rb"libaio[-\w]*\.so(\.\w+)*\0")


@dataclass
class Way:
    """One way in which an object of the program reaches asynchronous I/O."""

    how: str
    object: str
    detail: str
    #: The options of `libaio-shim run` that it takes, or None if it is not answered by any.
    options: list[str] | None = field(default_factory=list)


@dataclass
class Verdict:
    """What `which` prints."""

    program: str
    interpreter_of: str | None
    ways: list[Way]
    #: Why no program like this can be run on the shim here.
    obstacles: list[str]
    #: Libraries that were not found and so not looked at.
    missing: list[str]
    trap_available: bool
    #: It is no program, but what programs link or open.
    is_library: bool = False

    @property
    def answered(self) -> list[Way]:
        return [way for way in self.ways if way.options is not None]

    @property
    def unanswered(self) -> list[Way]:
        return [way for way in self.ways if way.options is None and way.how != "io_uring"]

    @property
    def options(self) -> list[str]:
        """All that the ways together take."""
        return sorted({option for way in self.answered for option in way.options or []})

    @property
    def covered(self) -> str:
        """yes, no, partly, or nothing if there is no AIO to answer."""
        if not self.answered and not self.unanswered:
            return "nothing"
        if self.obstacles or not self.answered or ("--trap" in self.options and not self.trap_available):
            return "no"
        return "partly" if self.unanswered else "yes"


def trap_available() -> bool:
    """Whether this kernel lets a process catch its own system calls (prctl PR_SET_SYSCALL_USER_DISPATCH, off)."""
    return platform.machine() == "x86_64" and ctypes.CDLL(None).prctl(59, 0, 0, 0, 0) == 0


def _is_libaio(item: Object) -> bool:
    return bool(re.search(r"\.so(\.|$)", item.path.name)) and {"io_setup", "io_submit", "io_getevents"} <= item.exports


def _trap(item: Object) -> list[str] | None:
    return ["--trap"] if item.machine == "EM_X86_64" else None


def _linked(item: Object, libraries: Iterable[Object]) -> Iterable[Way]:
    """By DT_NEEDED: its symbols are looked up by name and version, the preloaded ones first."""
    names = {library.name: library for library in libraries} | {library.path.name: library for library in libraries}
    for name in item.needed:
        if name in SONAMES:
            yield Way("linked", str(item.path), f"needs {name}")
        elif name in names and _is_libaio(names[name]):
            yield Way("bundled", str(item.path), f"needs {name}, a libaio of another name")


def _strings_that_end_in(data: bytes, pattern: re.Pattern[bytes]) -> set[str]:
    """From the zero byte before to the one that the pattern ends with."""
    found = (data[data.rfind(b"\0", 0, match.start()) + 1 : match.end() - 1] for match in pattern.finditer(data))
    # Words with a space between are a message, not the name of a file.
    return {text.decode() for text in found if text.isascii() and text.decode().isprintable() and b" " not in text}


def _opened(item: Object) -> Iterable[Way]:
    """By dlopen, as far as a name stands in the data."""
    for text in sorted(_strings_that_end_in(item.data, NAMED)):
        if text in SONAMES:
            yield Way("dlopen", str(item.path), f"names {text}")
        else:
            detail = f"names {text}, which is the real library, not the shim"
            yield Way("dlopen", str(item.path), detail, _trap(item))


def _called(item: Object) -> Iterable[Way]:
    function, instruction = code.by_function(item), code.by_instruction(item)
    if found := code.names(item.machine, function):
        yield Way("syscall", str(item.path), f"calls syscall() for {', '.join(found)}")
    if found := code.names(item.machine, instruction):
        yield Way("inline", str(item.path), f"makes the system calls {', '.join(found)} itself", _trap(item))
    if found := code.io_uring(function) + code.io_uring(instruction):
        yield Way("io_uring", str(item.path), f"makes the system calls {', '.join(sorted(set(found)))}", None)


def _ways(objects: list[Object]) -> list[Way]:
    ways: list[Way] = []
    for item in objects:
        if _is_libaio(item) or LIBC.match(item.name) or item.name.startswith(OURS):
            continue
        if item.name.startswith("liburing"):
            ways.append(Way("io_uring", str(item.path), "is liburing", None))
            continue
        ways += [*_linked(item, objects), *_opened(item), *_called(item)]
    return ways


def _is_library(item: Object) -> bool:
    """Unlike a static program, also a position independent one, it has a name or needs others."""
    return not item.interpreter and not _is_loader(item) and bool(item.soname or item.needed)


def _is_loader(item: Object) -> bool:
    return bool(re.match(r"ld(-linux.*|-musl.*|64)?\.so", item.path.name))


def _is_static(program: Object) -> bool:
    return not program.interpreter and not _is_loader(program) and not _is_library(program)


def _obstacles(program: Object, found: Path) -> list[str]:
    obstacles = []
    if _is_static(program):
        obstacles.append("statically linked: nothing can be preloaded into it")
    mode = found.stat().st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID):
        obstacles.append("setuid or setgid: the loader ignores LD_PRELOAD")
    try:
        if os.getxattr(found, "security.capability"):
            obstacles.append("has file capabilities: the loader ignores LD_PRELOAD")
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
    try:
        engine = load(_places.engine())
    except (NotElfError, OSError):
        return [*obstacles, "the shim is not built here (make build)"]
    if (engine.machine, engine.bits) != (program.machine, program.bits):
        obstacles.append("built for another architecture than the shim")
    elif program.interpreter and ("ld-musl" in program.interpreter) != ("libc.so.6" not in engine.needed):
        obstacles.append("uses another C library than the shim")
    return obstacles


def _interpreter(path: Path) -> str | None:
    """The program that runs a script, as the first line names it."""
    with path.open("rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode(errors="replace").split()
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return words[0] if words else None


def find_program(name: str) -> Path | None:
    """The file that exec of this name would take."""
    if "/" in name:
        return Path(name) if Path(name).exists() else None
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        path = Path(directory or ".") / name
        # Asked for first: is_file raises where the directory may not be looked into.
        if os.access(path, os.X_OK) and path.is_file():
            return path
    return None


def judge(name: str) -> Verdict:
    """Looks at a program; FileNotFoundError, PermissionError or NotElfError if there is nothing to look at."""
    found, script = find_program(name), None
    for _ in range(4):
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name or "''")
        interpreter = _interpreter(found)
        if interpreter is None:
            break
        script = script or str(found)
        name, found = interpreter, find_program(interpreter)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    program = load(found)
    objects, missing = closure(program)
    ways = _ways(objects)
    if _is_static(program):
        ways = [Way("static", way.object, way.detail, None) for way in ways if way.how != "io_uring"]
    obstacles = _obstacles(program, found)
    return Verdict(str(found), script, ways, obstacles, missing, trap_available(), _is_library(program))
