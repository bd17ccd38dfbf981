"""The command ``libaio-shim which``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libaio_shim.which.verdict import Verdict

DESCRIPTION = """\
Tells how PROGRAM and its libraries reach asynchronous I/O, and what answers it under `libaio-shim run`."""
EPILOG = """\
Ways: linked (needs libaio), bundled (needs a copy of libaio under another name), dlopen (names libaio in its data),
syscall (calls libc's syscall), inline (makes the system calls itself), static; io_uring is not AIO and is left alone.
Machine code is searched, not understood: a call whose number is computed is not seen, nor what a plug-in, an
interpreted program or generated code does. A plug-in can be asked about by itself: PROGRAM may be a library.

Exit status: 0 answered by the command that is shown, 1 not or only partly answered, 2 no AIO found,
125 wrong use, 126 not an ELF program, 127 not found."""
SUMMARY = {
    "no": "not covered",
    "partly": "partly covered",
    "yes": "covered",
    "nothing": "no AIO found: nothing for the shim to do",
}
STATUS = {"yes": 0, "no": 1, "partly": 1, "nothing": 2}
NO_TRAP = "this kernel or sandbox has no Syscall User Dispatch (Linux 5.11 or newer, x86-64), which --trap needs"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override] # exits, as the original does
        self.exit(125, f"libaio-shim: which: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="libaio-shim which",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("program", metavar="PROGRAM")
    return parser


def _command(verdict: Verdict) -> str:
    program = "PROGRAM" if verdict.is_library else verdict.interpreter_of or verdict.program
    return shlex.join(["libaio-shim", "run", *verdict.options, "--", program])


def as_json(verdict: Verdict) -> str:
    """The same as the text; keys are only ever added."""
    return json.dumps(
        {
            "program": verdict.program,
            "script": verdict.interpreter_of,
            "library": verdict.is_library,
            "covered": verdict.covered,
            "options": verdict.options,
            "ways": [vars(way) for way in verdict.ways],
            "obstacles": verdict.obstacles,
            "missing": verdict.missing,
            "trap_available": verdict.trap_available,
        }
    )


def as_text(verdict: Verdict) -> str:
    """One line for each way, obstacle and library that is missing, then the answer."""
    title = verdict.program
    lines = [f"{title} (runs {verdict.interpreter_of})" if verdict.interpreter_of else title]
    for way in verdict.ways:
        answer = "not AIO" if way.how == "io_uring" else "not answered"
        if way.options is not None:
            answer = f"answered with {' '.join(way.options)}" if way.options else "answered"
        lines.append(f"  {way.how:8} {way.object} {way.detail}: {answer}")
    lines += [f"  obstacle {obstacle}" for obstacle in verdict.obstacles]
    if "--trap" in verdict.options and not verdict.trap_available:
        lines.append(f"  obstacle {NO_TRAP}")
    lines += [f"  missing  {name}: not found, not looked at" for name in verdict.missing]
    answer = SUMMARY[verdict.covered]
    if verdict.covered in ("yes", "partly"):
        answer += f" by: {_command(verdict)}"
    return "\n".join([*lines, answer])


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        from libaio_shim.which import objects, verdict  # so that the lack of pyelftools can be told
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "elftools":
            raise
        print("libaio-shim: which: needs pyelftools (pip install pyelftools)", file=sys.stderr)
        return 125
    try:
        found = verdict.judge(options.program)
    except objects.NotElfError:
        print(f"libaio-shim: {options.program}: neither an ELF program nor a script", file=sys.stderr)
        return 126
    except OSError as error:
        print(f"libaio-shim: {error.filename or options.program}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    print(as_json(found) if options.json else as_text(found))
    return STATUS[found.covered]
