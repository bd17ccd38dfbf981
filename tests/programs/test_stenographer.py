"""stenotype, which writes the packets of a network to disk: O_DIRECT, reaped by polling, its privileges given up."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
import sides
from table import tried

PACKETS = 12000
PAYLOAD = b"caught by stenotype:"


@pytest.fixture
def stenotype() -> Iterator[Path]:
    """
    A copy without the file capabilities that keep it from being preloaded, where everybody may look: root has them
    anyway, until it becomes nobody.
    """
    needs.root()
    original = needs.program("stenotype", "stenographer")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        shutil.copyfile(original, place / "stenotype")
        (place / "stenotype").chmod(0o755)
        for directory in (place, place / "PKT0", place / "IDX0"):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o777)
        yield place / "stenotype"


def send(process: subprocess.Popen[str]) -> None:
    """Packets over the loopback device, until the program has enough."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            number = 0
            while process.poll() is None:
                for _ in range(500):
                    sender.sendto(PAYLOAD + b"%08d" % number + bytes(900), receiver.getsockname())
                    number += 1


@tried("stenotype", "stenotype --iface=lo --aiops=8", "O_DIRECT writes of 1 MiB beyond the end, privileges given up")
def test_packets_are_caught(side: sides.Side, stenotype: Path) -> None:
    """All that it has seen is in its file, in whole blocks of 1 MiB, and indexed; the shim says that it was there."""
    options = ["--iface=lo", f"--dir={stenotype.parent}", "--threads=1", "--blocks=16", "--filesize_mb=64", "--aiops=8"]
    options += ["--seccomp=none", "--no_promisc", f"--count={PACKETS}", "-v"]
    command = [str(stenotype), *options]
    if side.is_shim:
        command = [str(side.launcher), "run", "--stats", "--", *command]
    process = subprocess.Popen(
        command, env=side.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        send(process)
        said = process.communicate(timeout=100)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said[-3000:]
    assert ('"libaio_shim"' in said) == side.is_shim
    # Two or more where it is slow, or others send much over the loopback device.
    packets = sorted((stenotype.parent / "PKT0").iterdir())
    assert sorted(path.name for path in (stenotype.parent / "IDX0").iterdir()) == [path.name for path in packets]
    assert all(path.stat().st_size > 0 for path in (stenotype.parent / "IDX0").iterdir())
    assert all(path.stat().st_size % (1 << 20) == 0 for path in packets)
    data = b"".join(path.read_bytes() for path in packets)
    numbers = [int(word) for word in re.findall(re.escape(PAYLOAD) + rb"(\d{8})", data)]
    # Each is seen twice, going out and coming in; others may use the loopback device meanwhile, and some may be missed.
    assert len(set(numbers)) > 100
