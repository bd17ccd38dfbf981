"""What a test needs of the machine: each function returns it, or skips with the command that would provide it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
from pathlib import Path

import pytest


def program(name: str, package: str | None = None) -> str:
    """The path of a program; package is Debian's name for what brings it."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {package or name})")
    return path


def root() -> None:
    """The right to do everything."""
    if os.geteuid() != 0:
        pytest.skip("needs root (sudo make test)")


def system_libaio() -> Path:
    """The machine's own libaio, under either of its names."""
    found = ctypes.util.find_library("aio")
    directories = [Path("/lib"), Path("/usr/lib"), Path("/lib64"), Path("/usr/lib64"), *Path("/lib").glob("*-linux-*")]
    for name in (found, "libaio.so.1", "libaio.so.1t64"):
        for directory in directories:
            if name and (directory / name).exists():
                return (directory / name).resolve()
    pytest.skip("there is no system libaio (apt-get install libaio1, or libaio1t64)")


def system_header() -> Path:
    """The system's libaio.h."""
    path = Path("/usr/include/libaio.h")
    if not path.exists():
        pytest.skip("there is no system libaio.h (apt-get install libaio-dev)")
    return path


def syscall_user_dispatch() -> None:
    """A kernel that lets a process catch its own system calls."""
    if ctypes.CDLL(None).prctl(59, 0, 0, 0, 0) != 0:  # PR_SET_SYSCALL_USER_DISPATCH, off
        pytest.skip("the kernel or a sandbox has no Syscall User Dispatch (Linux 5.11 or newer on x86-64)")
