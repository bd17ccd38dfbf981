"""A virtual machine on native AIO, emulated: its guest, a boot sector, copies one half of the disk to the other."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

SOURCE = Path(__file__).with_name("guest.S")
PROGRAM = "qemu-system-x86_64"
FIRST, SECOND, BYTES = 64 * 512, 16448 * 512, 200 * 64 * 512


@pytest.fixture
def disk(ext4: Path) -> Path:
    """16 MiB of random bytes that begin with the guest."""
    if not shutil.which(PROGRAM):
        pytest.skip(f"n/a: {PROGRAM} is not installed (apt-get install qemu-system-x86; more than is asked for)")
    if platform.machine() != "x86_64":
        pytest.skip("n/a: the guest is assembled for x86")
    needs.program("as", "binutils")
    path, plain = ext4 / "disk", ext4 / "guest.o"
    subprocess.run(["as", "--32", "-o", plain, SOURCE], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", path, plain], check=True)
    path.write_bytes(path.read_bytes() + os.urandom((16 << 20) - 512))
    return path


@tried("qemu-system-x86_64", "-drive aio=native,cache=none,if=virtio", "requests of a virtual disk",
       version=version(PROGRAM, "--version"))  # fmt: skip
def test_guest_copies_its_disk(side: sides.Side, disk: Path) -> None:
    """What the guest read is what it wrote, and nothing else has changed."""
    before = disk.read_bytes()
    machine = [PROGRAM, "-display", "none", "-nodefaults", "-m", "64", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    ran = side.run([*machine, "-drive", f"file={disk},format=raw,aio=native,cache=none,if=virtio"])
    assert ran.status == 33, ran.stderr
    if side.is_shim:
        assert [line["submitted"] >= 400 for line in ran.stats] == [True]
    assert disk.read_bytes() == before[:SECOND] + before[FIRST : FIRST + BYTES] + before[SECOND + BYTES :]
