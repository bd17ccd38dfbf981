"""GlusterFS's posix translator with linux-aio: files served by FUSE, O_DIRECT switched around submits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import sides
from table import tried, version

VOLUME = """
volume posix
  type storage/posix
  option directory {brick}
  option linux-aio on
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume threads
  type performance/io-threads
  subvolumes locks
end-volume
"""


@contextmanager
def serving(side: sides.Side, directory: Path, volume: Path) -> Iterator[Path]:
    """A directory whose files are read and written by glusterfs."""
    needs.root()
    mount, log = directory / "mount", directory / "log"
    mount.mkdir()
    process = side.start([needs.program("glusterfs", "glusterfs-client"), "-N", "-f", volume, "-l", log, mount])
    try:
        sides.wait_until(lambda: mount.is_mount() or process.poll() is not None)
        assert process.poll() is None, log.read_text()[-3000:]
        assert ("/libaio_shim.so.0" in sides.maps(process.pid)) == side.is_shim
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        process.terminate()
        process.communicate(timeout=100)


# In memory: on a disk its O_DIRECT writes fail on the kernel's AIO as well, for FUSE's buffers are not aligned.
@tried("glusterfs", "glusterfs, storage/posix with linux-aio", "one reaper, O_DIRECT switched around each submit",
       version=version("glusterfs", "--version"))  # fmt: skip
def test_files_are_what_was_written(side: sides.Side, tmpfs: Path, tmp_path: Path) -> None:
    """Several writers at once, sizes that are not multiples of a page, and fio with its own verification."""
    needs.program("fio")
    brick, volume = tmpfs / "brick", tmp_path / "volume"
    brick.mkdir()
    volume.write_text(VOLUME.format(brick=brick))
    content = os.urandom(3 << 20)
    with serving(side, tmp_path, volume) as mount:
        for i in range(30):
            (mount / f"file{i}").write_bytes(content[: i * i * 3571])
        assert [(mount / f"file{i}").read_bytes() == content[: i * i * 3571] for i in range(30)] == [True] * 30
        assert [(brick / f"file{i}").read_bytes() == content[: i * i * 3571] for i in range(30)] == [True] * 30
        for direct in (0, 1):
            job = [f"--name=job{direct}", f"--direct={direct}", "--rw=randrw", "--size=2m", "--numjobs=4", "--bs=4k"]
            job += ["--ioengine=psync", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"]
            done = subprocess.run(["fio", *job], cwd=mount, capture_output=True, text=True, timeout=180, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
