"""Where the libraries, the launcher and the headers are: inside an installed package, or in a checkout's build."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def home() -> Path:
    """The directory with ``lib`` and ``bin``.

    A wheel holds both.  A checkout (also one installed editable) has what ``make build`` made, in ``build`` or in the
    directory that the environment variable LIBAIO_SHIM_BUILD names.
    """
    if (PACKAGE / "lib").is_dir():
        return PACKAGE
    return Path(os.environ.get("LIBAIO_SHIM_BUILD") or PACKAGE.parent / "build").resolve()


def engine() -> Path:
    """The library that does the work, libaio_shim.so.0."""
    return home() / "lib" / "libaio_shim.so.0"


def launcher() -> Path:
    """The shell command that runs a program on the shim."""
    return home() / "bin" / "libaio-shim"


def headers() -> Path:
    """The directory with libaio.h and libaio_shim.h."""
    inside = PACKAGE / "include"
    return inside if inside.is_dir() else PACKAGE.parent / "include"
