"""thin-provisioning-tools: metadata restored, checked and dumped through a block cache on libaio with O_DIRECT."""

from __future__ import annotations

from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

BLOCKS = 40000


def thin(tool: str) -> str:
    """The path of one of its programs."""
    return needs.program(f"thin_{tool}", "thin-provisioning-tools")


@pytest.fixture
def description(ext4: Path) -> Path:
    """Thin-pool metadata as XML: three devices with scattered mappings."""
    thin("restore")
    lines = [f'<superblock uuid="" time="1" transaction="1" data_block_size="128" nr_data_blocks="{3 * BLOCKS}">']
    for device in range(3):
        lines.append(
            f'<device dev_id="{device}" mapped_blocks="{BLOCKS}" transaction="0" creation_time="0" snap_time="1">'
        )
        lines += [
            f'<single_mapping origin_block="{block}" data_block="{device * BLOCKS + block * 7919 % BLOCKS}" time="1"/>'
            for block in range(BLOCKS)
        ]
        lines.append("</device>")
    lines.append("</superblock>")
    path = ext4 / "pool.xml"
    path.write_text("\n".join(lines))
    return path


def restore(side: sides.Side, description: Path) -> tuple[Path, sides.Ran]:
    metadata = description.parent / "metadata"
    metadata.write_bytes(bytes(32 << 20))
    ran = side.run([thin("restore"), "-i", description, "-o", metadata]).check()
    return metadata, ran


def test_the_shim_answers(shim: sides.Side, description: Path) -> None:
    """The shim counts the requests of thin_restore."""
    _, ran = restore(shim, description)
    assert sum(line["submitted"] for line in ran.stats) > 100


@tried("thin-provisioning-tools", "thin_restore, thin_check, thin_dump", "O_DIRECT, many writes at once, checksums",
       version=version("thin_check", "--version"))  # fmt: skip
def test_restored_metadata_is_sound(side: sides.Side, description: Path) -> None:
    """thin_check finds no fault, and what is dumped restores to the same dump."""
    metadata, _ = restore(side, description)
    side.run([thin("check"), metadata]).check()
    dump = side.run([thin("dump"), metadata]).check().stdout
    assert dump.count("<device ") == 3
    assert dump.count('mapped_blocks="40000"') == 3


def test_both_sides_make_the_same_metadata(kernel: sides.Side, shim: sides.Side, description: Path) -> None:
    """Byte for byte."""
    written = [restore(side, description)[0].read_bytes() for side in (kernel, shim)]
    assert written[0] == written[1]


def test_damage_is_found_on_both_sides(side: sides.Side, description: Path) -> None:
    """A checker that reads through the shim still sees what is on the disk."""
    metadata, _ = restore(side, description)
    with metadata.open("r+b") as file:
        file.seek(0)
        file.write(b"\xff" * 4096)
    assert side.run([thin("check"), metadata]).status == 1
