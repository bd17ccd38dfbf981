"""qemu-storage-daemon with native AIO: block jobs on qcow2 images, told by QMP, as a virtual machine's manager does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import pytest
import sides
from table import tried, version

MIB = 1 << 20
SIZE = 32 * MIB


class Monitor:
    """QMP, as much as is needed: a command, and the end of a job."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(100)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        self.events: list[dict[str, Any]] = []
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.socket.sendall(json.dumps({"execute": command, "arguments": named}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "QMP" in answer:  # the greeting, which an event may precede
                continue
            if "event" in answer:
                self.events.append(answer)
                continue
            assert "return" in answer, answer
            return answer["return"]

    def job(self, command: str, **arguments: Any) -> None:
        """Starts a block job and waits for its end; one that is ready is told to end."""
        self.ask(command, job_id="job", auto_dismiss=False, **arguments)

        def status() -> str:
            return str({job["id"]: job for job in self.ask("query-jobs")}["job"]["status"])

        sides.wait_until(lambda: status() in ("ready", "concluded"))
        if status() == "ready":  # once: it stays so for a moment after it was told, and then cannot be told again
            self.ask("job-complete", id="job")
        sides.wait_until(lambda: status() == "concluded")
        assert "error" not in self.ask("query-jobs")[0]
        self.ask("job-dismiss", id="job")


def node(name: str, file: Path, driver: str = "qcow2", **more: Any) -> dict[str, Any]:
    below = {"driver": "file", "filename": str(file), "aio": "native", "cache": {"direct": True}}
    return {"driver": driver, "node-name": name, "file": below, **more}


@contextmanager
def serving(side: sides.Side, directory: Path, *options: str) -> Iterator[tuple[Monitor, subprocess.Popen[str]]]:
    program = needs.program("qemu-storage-daemon", "qemu-system-common")
    path = directory / "qmp"
    process = side.start([program, "--chardev", f"socket,id=qmp,path={path},server=on,wait=off", "--monitor",
                          "chardev=qmp", *options])  # fmt: skip
    try:
        sides.wait_until(lambda: sides.listens(path) or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        monitor = Monitor(path)
        yield monitor, process
        monitor.ask("quit")
        monitor.lines.close()
        monitor.socket.close()
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)


def image(*words: str | Path) -> str:
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def images(ext4: Path) -> Path:
    """base.qcow2 with random data and, over it, overlay.qcow2 that differs in every other cluster."""
    needs.program("qemu-io", "qemu-utils")
    image("create", "-q", "-f", "qcow2", ext4 / "base.qcow2", str(SIZE))
    image("create", "-q", "-f", "qcow2", "-b", ext4 / "base.qcow2", "-F", "qcow2", ext4 / "overlay.qcow2")
    for name, step in (("base", 1), ("overlay", 2)):
        writes = [f"write -q -P {i % 250 + step} {i * 64}k 64k" for i in range(0, SIZE >> 16, step)]
        words = [word for write in writes for word in ("-c", write)]
        subprocess.run(["qemu-io", *words, ext4 / f"{name}.qcow2"], check=True, capture_output=True, timeout=180)
    image("convert", "-O", "raw", ext4 / "overlay.qcow2", ext4 / "expected.raw")
    return ext4


@tried("qemu-storage-daemon", "blockdev-mirror, blockdev-backup, block-stream, block-commit, a dirty bitmap",
       "jobs that read and write at the same time; qcow2 metadata",
       version=version("qemu-img", "--version"))  # fmt: skip
@pytest.mark.parametrize("job", ["mirror", "backup", "incremental", "stream", "commit"])
def test_job_leaves_the_same_image(side: sides.Side, images: Path, job: str) -> None:
    """What the job made equals what qemu-img without the shim makes, and is sound."""
    result = images / "overlay.qcow2"
    with serving(side, images) as (monitor, process):
        monitor.ask("blockdev-add", **node("base", images / "base.qcow2"))
        monitor.ask("blockdev-add", **node("overlay", result, backing="base"))
        if job in ("mirror", "backup", "incremental"):
            image("create", "-q", "-f", "qcow2", images / "copy.qcow2", str(SIZE))
            monitor.ask("blockdev-add", **node("copy", images / "copy.qcow2"))
        if job == "mirror":
            monitor.job("blockdev-mirror", device="overlay", target="copy", sync="full")
        elif job == "backup":
            monitor.job("blockdev-backup", device="overlay", target="copy", sync="full")
        elif job == "incremental":
            monitor.ask("block-dirty-bitmap-add", node="overlay", name="changed", persistent=True)
            monitor.job("blockdev-backup", device="overlay", target="copy", sync="full")
            monitor.job("blockdev-backup", device="overlay", target="copy", sync="bitmap", bitmap="changed",
                        bitmap_mode="on-success")  # fmt: skip
        elif job == "stream":
            monitor.job("block-stream", device="overlay")
        else:
            monitor.job("block-commit", device="overlay")
        assert ("/libaio_shim.so.0" in sides.maps(process.pid)) == side.is_shim
    if job != "stream":
        result = images / ("base.qcow2" if job == "commit" else "copy.qcow2")
    image("check", "-q", result)
    assert "identical" in image("compare", "-f", "qcow2", "-F", "raw", result, images / "expected.raw")
    assert "backing file" not in image("info", result)


@tried("qemu-storage-daemon", "block-export-add fuse, growable, iothread", "a file of FUSE whose server does AIO",
       version=version("qemu-img", "--version"))  # fmt: skip
@pytest.mark.parametrize("thread", ["main", "its own"])
def test_file_of_fuse_holds_what_was_written(side: sides.Side, ext4: Path, thread: str) -> None:
    """Written, grown and synced through the mount; the file behind it has the same bytes."""
    needs.root()
    disk, mount, data = ext4 / "disk", ext4 / "mount", os.urandom(5 << 20)
    disk.write_bytes(bytes(4 << 20))
    mount.touch()
    where = {"iothread": "thread", "fixed_iothread": True} if thread == "its own" else {}
    with serving(side, ext4, "--object", "iothread,id=thread") as (monitor, process):
        monitor.ask("blockdev-add", **node("disk", disk, "raw"))
        monitor.ask("block-export-add", type="fuse", id="export", node_name="disk", mountpoint=str(mount),
                    writable=True, growable=True, **where)  # fmt: skip
        with mount.open("r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            assert file.read() == data
        assert ("/libaio_shim.so.0" in sides.maps(process.pid)) == side.is_shim
        monitor.ask("block-export-del", id="export", mode="hard")  # the last close may be on its way
        sides.wait_until(lambda: not monitor.ask("query-block-exports"))
    assert disk.read_bytes() == data
