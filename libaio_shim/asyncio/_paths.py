"""What has no asynchronous form in the kernel: names and directories, done in threads."""

from __future__ import annotations

import os
from functools import partial
from typing import Union

from libaio_shim.asyncio._hosts import current_host

Path = Union[str, "os.PathLike[str]"]


async def stat(path: Path | int, *, follow_symlinks: bool = True) -> os.stat_result:
    """As `os.stat`, off the loop."""

    return await current_host().off_loop(partial(os.stat, path, follow_symlinks=follow_symlinks))


async def rename(src: Path, dst: Path) -> None:
    """As `os.rename`, off the loop."""
    await current_host().off_loop(os.rename, src, dst)


async def replace(src: Path, dst: Path) -> None:
    """As `os.replace`, off the loop."""
    await current_host().off_loop(os.replace, src, dst)


async def unlink(path: Path) -> None:
    """As `os.unlink`, off the loop."""
    await current_host().off_loop(os.unlink, path)


async def mkdir(path: Path, mode: int = 0o777) -> None:
    """As `os.mkdir`, off the loop."""
    await current_host().off_loop(os.mkdir, path, mode)


async def rmdir(path: Path) -> None:
    """As `os.rmdir`, off the loop."""
    await current_host().off_loop(os.rmdir, path)


async def listdir(path: Path = ".") -> list[str]:
    """As `os.listdir`, off the loop."""
    return await current_host().off_loop(os.listdir, path)
