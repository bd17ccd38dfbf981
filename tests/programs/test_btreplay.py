"""btreplay, which sends a device the requests that blktrace once saw: a thread submits, another one reaps."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

# Of linux/blktrace_api.h: the event (magic and version, sequence, time, sector, bytes, action, pid, device, processor,
# error, bytes that follow), and a request that is queued, in the class of what is queued, and of reads or writes.
EVENT, MAGIC, QUEUED, QUEUE_CLASS, READ_CLASS, WRITE_CLASS = "<IIQQIIIIIHH", 0x65617407, 1, 1 << 20, 1 << 16, 2 << 16
REQUESTS, BYTES = 200, 64 << 20


def trace(device: str, directory: Path) -> Path:
    """What blktrace would have written: reads and writes of 4 to 64 KiB, in bunches.  It needs more than root here."""
    chance, time, events = random.Random(5), 0, b""  # noqa: S311 (the same each time)
    for number in range(REQUESTS):
        time += chance.choice([1000, 100_000])
        size = chance.choice([4096, 16384, 65536])
        action = QUEUED | QUEUE_CLASS | (WRITE_CLASS if number % 2 else READ_CLASS)
        sector = chance.randrange(BYTES >> 16) << 7
        events += struct.pack(EVENT, MAGIC, number + 1, time, sector, size, action, 1, 7 << 20, 0, 0, 0)
    path = directory / f"{Path(device).name}.blktrace.0"
    path.write_bytes(events)
    return path


@pytest.fixture
def records(device: str, tmp_path: Path) -> Path:
    """The directory with btrecord's conversion of the trace."""
    trace(device, tmp_path)
    command = [needs.program("btrecord", "blktrace"), "-d", str(tmp_path), "-D", str(tmp_path), Path(device).name]
    sides.Side("", None, {}).run(command).check()
    assert (tmp_path / f"{Path(device).name}.replay.0").exists()
    return tmp_path


@tried("btreplay", "btreplay --write-enable --no-stalls", "O_DIRECT, bunches of 8, a reaper of its own",
       version=version("btreplay", "--version"))  # fmt: skip
def test_every_request_is_sent(side: sides.Side, device: str, records: Path) -> None:
    """It ends well, having waited for all of them; the shim counts as many as the trace has."""
    command = [needs.program("btreplay", "blktrace"), "-d", str(records), "--write-enable", "--no-stalls"]
    ran = side.run([*command, Path(device).name]).check()
    if side.is_shim:
        assert [line["submitted"] for line in ran.stats] == [REQUESTS]
