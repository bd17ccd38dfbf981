"""What clusters keep on shared disks: sanlock's leases, sbd's message slots, ocfs2's file systems.

Each of them sets up a context for a few O_DIRECT requests with a time-out, waits for one event, and destroys it again.
"""

from __future__ import annotations

import re
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version


def submitted(ran: sides.Ran) -> int:
    return sum(line["submitted"] for line in ran.stats)


@pytest.fixture
def leases(ext4: Path) -> Path:
    """An empty file for sanlock."""
    needs.program("sanlock")
    path = ext4 / "leases"
    path.write_bytes(bytes(16 << 20))
    return path


@tried("sanlock", "sanlock direct init, read_leader, dump", "O_DIRECT with a time-out for each request",
       version=version("sanlock", "version"))  # fmt: skip
def test_sanlock_finds_its_leases(side: sides.Side, kernel: sides.Side, leases: Path) -> None:
    """What is written on one side is read on it and on the kernel, and a damaged lease is told from a sound one."""

    def direct(where: sides.Side, *words: str) -> sides.Ran:
        return where.run(["sanlock", "direct", *words])

    lockspace, resource = f"LS:1:{leases}:0", f"LS:RES:{leases}:1048576"
    made = [direct(side, "init", "-s", f"LS:0:{leases}:0").check(), direct(side, "init", "-r", resource).check()]
    assert all((submitted(ran) > 0) == side.is_shim for ran in made)
    for option, place in (("-s", lockspace), ("-r", resource)):
        said = direct(side, "read_leader", option, place).check().stdout
        assert said == direct(kernel, "read_leader", option, place).check().stdout
        assert re.search(r"^space_name LS$", said, re.MULTILINE)
    said = direct(side, "dump", str(leases)).check().stdout
    assert said == direct(kernel, "dump", str(leases)).check().stdout
    assert "RES" in said
    leases.write_bytes(bytes(16 << 20))
    statuses = [direct(where, "read_leader", "-r", resource).status for where in (side, kernel)]
    assert statuses == [1, 1]


@tried("sbd", "sbd -d DEVICE create, allocate, message, list", "hundreds of requests, each waited for by itself",
       version=version("sbd", "-V"))  # fmt: skip
def test_sbd_delivers_its_messages(side: sides.Side, kernel: sides.Side, device: str) -> None:
    """Slots and messages written on one side are there for the kernel."""
    program = needs.program("sbd")
    made = side.run([program, "-d", device, "-2", "1", "create"]).check()
    assert (submitted(made) > 200) == side.is_shim
    side.run([program, "-d", device, "allocate", "alpha"]).check()
    side.run([program, "-d", device, "message", "alpha", "test"]).check()
    said = side.run([program, "-d", device, "list"]).check().stdout
    assert said == kernel.run([program, "-d", device, "list"]).check().stdout
    assert said.split()[1:3] == ["alpha", "test"]
    said = side.run([program, "-d", device, "dump"]).check().stdout
    assert said == kernel.run([program, "-d", device, "dump"]).check().stdout


@tried("ocfs2-tools", "mkfs.ocfs2, fsck.ocfs2", "a context for each of several passes",
       version=version("fsck.ocfs2", "-V"))  # fmt: skip
def test_ocfs2_is_sound(side: sides.Side, kernel: sides.Side, tmpfs: Path) -> None:
    """Made on one side, checked on both."""
    image = tmpfs / "image"
    with image.open("wb") as file:
        file.truncate(300 << 20)
    make = [needs.program("mkfs.ocfs2", "ocfs2-tools"), "-q", "-F", "-M", "local", "-N", "2", "--fs-features=local"]
    side.run([*make, str(image)]).check()
    check = [needs.program("fsck.ocfs2", "ocfs2-tools"), "-f", "-n", str(image)]
    ran = side.run(check).check()
    assert (submitted(ran) > 0) == side.is_shim
    assert "All passes succeeded" in ran.stdout
    assert without_time(ran.stdout) == without_time(kernel.run(check).check().stdout)


def without_time(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.lstrip().startswith(("Last", "Label", "UUID"))]
