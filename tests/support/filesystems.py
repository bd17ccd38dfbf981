"""Scratch file systems for tests: ext4, xfs, btrfs on loop devices, tmpfs, overlay, and a FUSE one that stalls.

They are mounted in a mount namespace that only this process and its children see.  So nothing has to be cleaned up that
could be forgotten: when the last of them ends, however it ends, the kernel takes mounts, loop devices and the FUSE
server's connection away.  Without root there is none of this, and the cases that want it are skipped.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

CLONE_NEWNS = 0x00020000
LOOP_SET_STATUS64, LOOP_GET_STATUS64 = 0x4C04, 0x4C05
LOOP_INFO_BYTES, LOOP_INFO_FLAGS, LO_FLAGS_AUTOCLEAR = 232, 52, 4
IMAGES = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
IMAGE_BYTES = 512 << 20
_namespace_done = False


class Mounts:
    """What could be mounted: LAS_TEST_NAME in the environment of the programs, or LAS_TEST_NAME_WHY_NOT."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.stall: Path | None = None
        self.server: subprocess.Popen[bytes] | None = None
        self.block = -1

    def lack(self, name: str, reason: object) -> None:
        """Notes why a file system is not there; the cases that want it say so when they skip."""
        self.env[f"LAS_TEST_{name.upper()}_WHY_NOT"] = str(reason)

    def why_not(self, name: str) -> str:
        """What was noted, for a test that is skipped for it."""
        return f"no {name} to test on: {self.env.get(f'LAS_TEST_{name.upper()}_WHY_NOT', 'nobody tried')}"

    def release(self) -> None:
        """Answers whatever the stalling file system keeps, so that no process is stuck in it."""
        if self.stall:
            for command in (b"release", b"delay 0"):
                (self.stall / ".control").write_bytes(command)


def _private_namespace() -> None:
    """Gives this process mounts of its own; the rest of the machine sees none of what follows."""
    global _namespace_done
    if _namespace_done:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    _run("mount", "--make-rprivate", "/")
    _namespace_done = True


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")


def _image(made: Mounts, base: Path, kind: str) -> None:
    if not shutil.which(IMAGES[kind][0]):
        raise RuntimeError(f"{IMAGES[kind][0]} is not installed (apt-get install {PACKAGES[kind]})")
    image = base / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run(*IMAGES[kind], image)
    where = base / kind
    where.mkdir()
    _run("mount", "-o", "loop", "-t", kind, image, where)
    made.env[f"LAS_TEST_{kind.upper()}"] = str(where)


def _tmpfs(made: Mounts, base: Path, name: str, size: str) -> None:
    where = base / name
    where.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where)
    made.env[f"LAS_TEST_{name.upper()}"] = str(where)


def _overlay(made: Mounts, base: Path) -> None:
    under = base / "under"
    for name in ("lower", "upper", "work"):
        (under / name).mkdir(parents=True)
    where = base / "overlay"
    where.mkdir()
    _run(
        "mount",
        "-t",
        "overlay",
        "-o",
        f"lowerdir={under}/lower,upperdir={under}/upper,workdir={under}/work",
        "overlay",
        where,
    )
    made.env["LAS_TEST_OVERLAY"] = str(where)


def _hugetlbfs(made: Mounts, base: Path) -> None:
    where = base / "huge"
    where.mkdir()
    _run("mount", "-t", "hugetlbfs", "hugetlbfs", where)
    made.env["LAS_TEST_HUGETLBFS"] = str(where)


def _block(made: Mounts, base: Path) -> None:
    image = base / "block.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    found = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=True)
    device = found.stdout.strip()
    # As "mount -o loop" does: the device goes when its last user does, here this process's descriptor.
    made.block = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    status = bytearray(LOOP_INFO_BYTES)
    fcntl.ioctl(made.block, LOOP_GET_STATUS64, status)
    status[LOOP_INFO_FLAGS] |= LO_FLAGS_AUTOCLEAR
    fcntl.ioctl(made.block, LOOP_SET_STATUS64, status)
    made.env["LAS_TEST_BLOCK"] = device


def _stall(made: Mounts, base: Path, build: Callable[[], Path | None]) -> None:
    program = build()
    if program is None:
        raise RuntimeError("libfuse3's headers are not installed (apt-get install libfuse3-dev pkg-config)")
    if not Path("/dev/fuse").exists():
        raise RuntimeError("no /dev/fuse")
    where = base / "stall"
    where.mkdir()
    server = subprocess.Popen([program, where, "-o", "default_permissions,allow_other"])
    for _ in range(500):
        if (where / ".control").exists():
            made.env["LAS_TEST_STALL"] = str(where)
            made.stall, made.server = where, server
            return
        if server.poll() is not None:
            raise RuntimeError("stallfs did not start")
        time.sleep(0.01)
    server.kill()
    raise RuntimeError("stallfs did not mount")


@contextmanager
def mounted(base: Path, build_stallfs: Callable[[], Path | None]) -> Iterator[Mounts]:
    """Mounts what this machine can mount, under base."""
    made = Mounts()
    makers: dict[str, Callable[[], object]] = {kind: partial(_image, made, base, kind) for kind in IMAGES}
    makers |= {
        "tmpfs": partial(_tmpfs, made, base, "tmpfs", "256m"),
        "full": partial(_tmpfs, made, base, "full", "64k"),
        "overlay": partial(_overlay, made, base),
        "hugetlbfs": partial(_hugetlbfs, made, base),
        "block": partial(_block, made, base),
        "stall": partial(_stall, made, base, build_stallfs),
    }
    try:
        if os.geteuid() != 0:
            raise RuntimeError("needs root (sudo make test)")
        _private_namespace()
        # Images live in memory: no device of the machine is worn or waited for.
        _run("mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", base)
    except (OSError, RuntimeError) as error:
        for name in makers:
            made.lack(name, error)
        yield made
        return
    for name, make in makers.items():
        try:
            make()
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            made.lack(name, error)
    try:
        yield made
    finally:
        made.release()
        if made.block >= 0:
            os.close(made.block)
        for value in made.env.values():
            if os.path.ismount(value):
                subprocess.run(["umount", "-l", value], check=False, capture_output=True)
        if made.server:
            made.server.wait(timeout=10)
        subprocess.run(["umount", "-l", base], check=False, capture_output=True)
