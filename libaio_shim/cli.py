"""The ``libaio-shim`` command of the installed package, also ``python -m libaio_shim``.

What a program needs in order to run on the shim is defined once, in the shell launcher, which works without Python.
This command hands over to it and adds the subcommands that are written in Python.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from libaio_shim import _places

#: Subcommands in Python: name, the module whose ``main(arguments)`` returns the exit status.
COMMANDS = {"bench": "libaio_shim.bench.cli", "which": "libaio_shim.which.cli"}


def original_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """environment without the LC_CTYPE that Python sets for itself in the C locale (PEP 538)."""
    result = dict(environment)
    try:
        started_with = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return result
    if not any(entry.startswith(b"LC_CTYPE=") for entry in started_with):
        result.pop("LC_CTYPE", None)
    return result


def exec_launcher(arguments: Sequence[str]) -> NoReturn:
    """Becomes the shell launcher, and leaves nothing of Python behind in what the program inherits."""
    launcher = _places.launcher()
    try:
        os.execve(launcher, [str(launcher), *arguments], original_environment(os.environ))  # noqa: S606 - no shell
    except OSError as error:
        print(f"libaio-shim: {launcher}: {error.strerror} (run `make build` or install anew)", file=sys.stderr)
        raise SystemExit(125) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns its exit status; ``run`` does not return."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # No program shall inherit that they are ignored, and a command whose output nobody reads ends without a traceback.
    for changed_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(changed_by_python, signal.SIG_DFL)
    module = COMMANDS.get(words[0]) if words else None
    if module is None:
        exec_launcher(words)
    return int(importlib.import_module(module).main(words[1:]) or 0)
