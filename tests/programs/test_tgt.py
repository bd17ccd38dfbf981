"""tgtd, an iSCSI target, with its aio backing store: reads the eventfd's count and waits for exactly as many events."""

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

NAME = "iqn.2024-01.test:disk"


@pytest.fixture
def disk(ext4: Path) -> Path:
    needs.program("tgtd", "tgt")
    needs.root()
    path = ext4 / "disk"
    path.write_bytes(os.urandom(16 << 20))
    return path


@contextmanager
def serving(side: sides.Side, disk: Path) -> Iterator[tuple[str, int]]:
    """The disk as a logical unit of a target on the loopback: its URI and the server's process id."""
    port = sides.free_port()
    control = str(port)  # the name of its control socket, not a port
    process = side.start(["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"])

    def administer(*words: str) -> bool:
        command = ["tgtadm", "-C", control, "--lld", "iscsi", *words]
        return subprocess.run(command, capture_output=True, check=False, timeout=100).returncode == 0

    try:
        create = ["--op", "new", "--mode", "target", "--tid", "1", "-T", NAME]
        sides.wait_until(lambda: process.poll() is not None or administer(*create))
        assert process.poll() is None, process.communicate()[1]
        unit = ["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--bstype", "aio", "-b", str(disk)]
        assert administer(*unit)
        assert administer("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        yield f"iscsi://127.0.0.1:{port}/{NAME}/1", process.pid
        administer("--op", "delete", "--mode", "target", "--tid", "1", "--force")
    finally:
        process.kill()
        process.communicate()
        for left in (f"socket.{control}", f"socket.{control}.lock"):
            Path("/var/run/tgtd", left).unlink(missing_ok=True)


def client(*words: str | Path) -> str:
    done = subprocess.run(list(words), capture_output=True, text=True, check=False, timeout=180)
    if "Unknown protocol 'iscsi'" in done.stderr:
        pytest.skip("qemu-img has no iSCSI (apt-get install qemu-block-extra)")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_shim_answers(shim: sides.Side, disk: Path) -> None:
    """Its libraries are in the server's memory, and the unit can be used."""
    with serving(shim, disk) as (uri, pid):
        assert "/libaio_shim.so.0" in sides.maps(pid)
        client("qemu-img", "info", uri)


@tried("tgtd", "tgtd, backing store aio", "waits for exactly the eventfd's count, arrays reused", version="1.0.85")
def test_serves_and_takes_data(side: sides.Side, disk: Path) -> None:
    """An initiator copies the disk, writes to it, and finds what it wrote; so does the file."""
    needs.program("qemu-img", "qemu-utils")
    with serving(side, disk) as (uri, pid):
        copy = disk.parent / "copy"
        client("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, copy)
        assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(disk.read_bytes()).digest()
        commands = [f"aio_write -P {i + 1} {i * 64}k 64k" for i in range(64)] + ["aio_flush"]
        commands += [f"aio_read -P {i + 1} {i * 64}k 64k" for i in range(64)] + ["aio_flush", "flush"]
        said = client("qemu-io", "-f", "raw", *[word for command in commands for word in ("-c", command)], uri)
        assert "failed" not in said
        assert ("/libaio_shim.so.0" in sides.maps(pid)) == side.is_shim
    for i in range(64):
        with disk.open("rb") as file:
            file.seek(i << 16)
            assert file.read(1 << 16) == bytes([i + 1]) * (1 << 16)
