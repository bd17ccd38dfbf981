"""zfs-fuse: a file system server that makes the system calls by number, from many threads with small stacks."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import pytest
import sides
from table import tried

PRIVATE = ("/run/zfs", "/run/lock/zfs", "/var/lib/zfs")  # its socket, its lock, and its memory of pools


@pytest.fixture
def disk(ext4: Path) -> Iterator[Path]:
    """A directory with an empty file for a pool.  What is mounted is seen by this test only (see filesystems.py)."""
    needs.program("zfs-fuse")
    for name in PRIVATE:
        Path(name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", name], check=True)
    path = ext4 / "disk"
    path.mkdir()
    with (path / "a").open("wb") as file:
        file.truncate(128 << 20)
    yield path
    for name in PRIVATE:
        subprocess.run(["umount", "-l", name], check=True)


def zfs(*words: str | Path) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def let_go(*words: str) -> None:
    """A command on a pool that FUSE unmounts a moment later than it says."""
    subprocess.run(["zfs", "unmount", words[-1]], capture_output=True, check=False)
    sides.wait_until(lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0)


@contextmanager
def serving(side: sides.Side) -> Iterator[subprocess.Popen[str]]:
    process = side.start(["zfs-fuse", "--no-daemon", "--no-kstat-mount", "--disable-block-cache", "--stack-size=512"])
    ask = ["zpool", "list"]
    try:
        sides.wait_until(lambda: process.poll() is not None or not subprocess.run(ask, capture_output=True).returncode)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=100)


@tried("zfs-fuse", "zfs-fuse --disable-block-cache; zpool create, scrub, import", "raw system calls, small stacks",
       version="0.7.0")  # fmt: skip
def test_pool_is_sound(side: sides.Side, disk: Path) -> None:
    """Filled, scrubbed, exported, imported: no error, and the same content."""
    mount, content = disk.parent / "mount", os.urandom(8 << 20)
    with serving(side) as server:
        zfs("zpool", "create", "-f", "-m", mount, "shimtest", disk / "a")
        (mount / "large").write_bytes(content)
        for i in range(100):
            (mount / f"small{i}").write_bytes(content[i : i * 50])
        assert ("/libaio_shim.so.0" in sides.maps(server.pid)) == side.is_shim
        zfs("zpool", "scrub", "shimtest")
        sides.wait_until(lambda: "scrub completed" in zfs("zpool", "status", "shimtest"))
        assert "No known data errors" in zfs("zpool", "status", "shimtest")
        let_go("zpool", "export", "shimtest")
        zfs("zpool", "import", "-d", disk, "shimtest")
        assert hashlib.sha256((mount / "large").read_bytes()).digest() == hashlib.sha256(content).digest()
        assert [(mount / f"small{i}").read_bytes() == content[i : i * 50] for i in range(100)] == [True] * 100
        let_go("zpool", "destroy", "shimtest")
