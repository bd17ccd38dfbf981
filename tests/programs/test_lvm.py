"""LVM's commands: its block cache reads and writes devices through libaio, O_DIRECT, and keeps iocbs in its blocks."""

from __future__ import annotations

import re

import needs
import pytest
import sides
from table import tried, version


@pytest.fixture(autouse=True)
def lvm2() -> None:
    needs.program("pvcreate", "lvm2")


def lvm(side: sides.Side, device: str, command: str, *arguments: str) -> sides.Ran:
    """One of LVM's commands, which sees only that device and talks to no daemon."""
    config = (
        f'devices{{use_devicesfile=0 hints="none" scan=["/dev"] filter=["a|^{device}$|","r|.*|"]}} '
        "backup{backup=0 archive=0} global{use_lvmpolld=0} activation{udev_sync=0 udev_rules=0 monitoring=0}"
    )
    return side.run([needs.program(command, "lvm2"), "--config", config, *arguments]).check()


def test_the_shim_answers(shim: sides.Side, device: str) -> None:
    """The shim counts the requests of pvcreate."""
    ran = lvm(shim, device, "pvcreate", "-y", device)
    assert sum(line["submitted"] for line in ran.stats) > 0


@tried("lvm2", "pvcreate, vgcreate, vgchange, vgs, pvck", "small reads and writes of metadata on a device",
       version=version("lvm", "version"))  # fmt: skip
def test_a_volume_group_lives(side: sides.Side, kernel: sides.Side, device: str) -> None:
    """What is written on one side is read on the kernel, and the other way round."""
    lvm(side, device, "pvcreate", "-y", device)
    lvm(side, device, "vgcreate", "-y", "shimtest", device)
    assert "shimtest" in lvm(kernel, device, "vgs").stdout
    lvm(kernel, device, "vgchange", "--addtag", "from_the_kernel", "shimtest")
    lvm(side, device, "vgchange", "--addtag", "from_this_side", "shimtest")
    tags = lvm(side, device, "vgs", "-o", "tags", "--noheadings").stdout
    assert set(tags.strip().split(",")) == {"from_the_kernel", "from_this_side"}
    dump = lvm(side, device, "pvck", "--dump", "metadata", device).stdout
    assert dump == lvm(kernel, device, "pvck", "--dump", "metadata", device).stdout
    assert re.search(r"seqno = 3", dump)
    lvm(side, device, "vgremove", "-y", "-f", "shimtest")
    assert "shimtest" not in lvm(kernel, device, "vgs").stdout
