"""Ceph's BlueStore: O_DIRECT writes into space never written before, through libaio, with a thread that reaps."""

from __future__ import annotations

from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

CONFIG = """\
[global]
fsid = 11111111-2222-3333-4444-555555555555
bluestore_block_size = 2147483648
bluestore_block_db_create = false
bluestore_block_wal_create = false
run_dir = {place}
log_file = {place}/log
admin_socket =
"""


@pytest.fixture
def store(ext4: Path) -> Path:
    """The directory of an object store to be made, on a file with holes."""
    needs.program("ceph-objectstore-tool", "ceph-osd")
    (ext4 / "ceph.conf").write_text(CONFIG.format(place=ext4))
    (ext4 / "store").mkdir()
    return ext4 / "store"


def ceph(side: sides.Side, store: Path, tool: str, *arguments: str | Path) -> sides.Ran:
    """One of Ceph's tools, which asks no monitor."""
    command = ["env", f"CEPH_CONF={store.parent}/ceph.conf", needs.program(tool, "ceph-osd"), *arguments]
    return side.run(command).check()


def make(side: sides.Side, store: Path) -> sides.Ran:
    options = ["--no-mon-config", "--type", "bluestore", "--fsid", "11111111-2222-3333-4444-555555555556"]
    return ceph(side, store, "ceph-objectstore-tool", *options, "--data-path", store, "--op", "mkfs")


@tried("ceph", "ceph-objectstore-tool mkfs, ceph-bluestore-tool fsck, ceph-kvstore-tool set, get",
       "O_DIRECT writes into holes, reaped by a thread",
       version=version("ceph-osd", "--version"))  # fmt: skip
def test_a_store_keeps_what_it_was_given(side: sides.Side, kernel: sides.Side, store: Path) -> None:
    """Made, checked and filled on one side, and read back on the kernel."""
    value, file = bytes(range(256)) * 4096, store.parent / "value"
    file.write_bytes(value)
    made = make(side, store)
    checked = ceph(side, store, "ceph-bluestore-tool", "--no-mon-config", "fsck", "--deep", "1", "--path", store)
    assert "fsck success" in checked.stdout + checked.stderr
    kept = ceph(side, store, "ceph-kvstore-tool", "bluestore-kv", store, "set", "M", "key", "in", file)
    for ran in (made, checked, kept):
        assert (sum(line["submitted"] for line in ran.stats) > 0) == side.is_shim
    file.unlink()
    ceph(kernel, store, "ceph-kvstore-tool", "bluestore-kv", store, "get", "M", "key", "out", file)
    assert file.read_bytes() == value
