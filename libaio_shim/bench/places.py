"""Where cases run: a directory on the disk, and file systems on loop devices over a tmpfs.

A loop device over a tmpfs is a fast device without a disk's noise.  Everything is made on first use and taken away
at the end; what cannot be had here raises Unavailable with the reason.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from libaio_shim.bench import build

MIB = 1 << 20
NAMES = ("disk", "ext4", "xfs", "overlay", "overlay-disk", "tmpfs", "device", "slow")
LOOP_MIB = 768


class UnavailableError(Exception):
    """This machine, or this user, cannot have such a place; says why."""


def stamped(offset: int, size: int) -> bytes:
    """`size` bytes of a test file at `offset`: each 4 KiB block begins with its offset, 8 bytes little-endian."""
    rest = bytes(4088)
    return b"".join(struct.pack("<Q", at) + rest for at in range(offset, offset + size, 4096))


def write_stamped(path: Path, size: int) -> None:
    """Makes a file of such blocks, on the disk when this returns."""
    with path.open("wb") as file:
        for offset in range(0, size, MIB):
            file.write(stamped(offset, min(MIB, size - offset)))
        file.flush()
        os.fdatasync(file.fileno())


def _command(*words: str) -> str:
    program = shutil.which(words[0], path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if not program:
        raise UnavailableError(f"{words[0]} is not installed")
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise UnavailableError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


class Places:
    """Makes places by name and files in them; a context manager that takes everything away again."""

    def __init__(self, disk: Path | None = None) -> None:
        """`disk` is the directory that stands for the disk, by default the current one."""
        self._disk_parent = disk or Path.cwd()
        self._stack = contextlib.ExitStack()
        self._places: dict[str, Path | UnavailableError] = {}
        self._files: set[tuple[str, str, int]] = set()
        self._root: Path | None = None

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def get(self, name: str) -> Path:
        """The directory of that name; the block device in case of "device"."""
        if name not in self._places:
            makers: dict[str, Callable[[], Path]] = {
                "disk": self._make_disk,
                "tmpfs": self._make_tmpfs,
                "ext4": lambda: self._make_loop("ext4"),
                "xfs": lambda: self._make_loop("xfs"),
                "overlay": lambda: self._make_overlay("overlay", self.get("ext4")),
                "overlay-disk": lambda: self._make_overlay("overlay-disk", self.get("disk")),
                "device": self._make_device,
                "slow": self._make_slow,
            }
            try:
                self._places[name] = makers[name]()
            except UnavailableError as error:
                self._places[name] = error
        place = self._places[name]
        if isinstance(place, UnavailableError):
            raise place
        return place

    def file(self, place: str, name: str, size: int) -> Path:
        """A stamped file of that size; made once."""
        directory = self.get(place)
        if place == "device":
            return directory
        if place == "slow":
            return directory / "slow"
        path = directory / name
        if (place, name, size) not in self._files:
            try:
                write_stamped(path, size)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise UnavailableError(f"a file of {size / MIB:g} MiB in {directory}: {error.strerror}") from None
            self._files.add((place, name, size))
        return path

    def _temporary(self, parent: Path | None) -> Path:
        path = Path(tempfile.mkdtemp(prefix="libaio-shim-bench-", dir=parent))
        self._stack.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def _mount_parent(self) -> Path:
        if os.geteuid() != 0:
            raise UnavailableError("needs root (mount)")
        if self._root is None:
            self._root = self._temporary(None)
        return self._root

    def _mount(self, name: str, *options: str) -> Path:
        target = self._mount_parent() / name
        target.mkdir()
        _command("mount", *options, str(target))
        self._stack.callback(self._unmount, target)
        return target

    @staticmethod
    def _unmount(target: Path) -> None:
        with contextlib.suppress(UnavailableError):
            _command("umount", "-l", str(target))

    def _make_disk(self) -> Path:
        try:
            return self._temporary(self._disk_parent)
        except OSError as error:
            raise UnavailableError(f"{self._disk_parent}: {error.strerror}") from None

    def _make_tmpfs(self) -> Path:
        if os.geteuid() != 0 and os.access("/dev/shm", os.W_OK):  # noqa: S108 - a tmpfs is what is wanted
            return self._temporary(Path("/dev/shm"))  # noqa: S108
        return self._mount("tmpfs", "-t", "tmpfs", "-o", "size=4g", "libaio-shim-bench")

    def _loop(self, name: str) -> str:
        """A loop device over a file in the tmpfs."""
        self._mount_parent()
        image = self.get("tmpfs") / f"{name}.img"
        with image.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, LOOP_MIB * MIB)
        device = _command("losetup", "--find", "--show", str(image))
        self._stack.callback(_command, "losetup", "--detach", device)
        return device

    def _make_loop(self, kind: str) -> Path:
        device = self._loop(kind)
        _command(*{"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}[kind], device)
        return self._mount(kind, "-t", kind, device)

    def _make_device(self) -> Path:
        return Path(self._loop("device"))

    def _make_overlay(self, name: str, below: Path) -> Path:
        layers = below / f"layers-of-{name}"
        for layer in ("lower", "upper", "work"):
            (layers / layer).mkdir(parents=True)
        options = ",".join(f"{layer}dir={layers / layer}" for layer in ("lower", "upper", "work"))
        return self._mount(name, "-t", "overlay", "-o", options, "overlay")

    def _make_slow(self) -> Path:
        """A file system whose one file takes 10 ms for every read."""
        target = self._mount_parent() / "slow"
        target.mkdir()
        try:
            program = build.slowfs()
        except build.BuildError as error:
            raise UnavailableError(str(error)) from error
        server = subprocess.Popen(  # noqa: S603 - our own program
            [program, target, "256", "10"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

        def stop() -> None:
            server.terminate()
            server.communicate()

        self._stack.callback(stop)
        if not server.stdout or server.stdout.readline().strip() != "ready":
            raise UnavailableError(f"no FUSE here: {server.communicate()[1].strip()}")
        return target
