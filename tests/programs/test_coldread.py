"""coldread, the demo's program; the demo; and what both do where the kernel has no AIO."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import needs
import pytest
import sides

from libaio_shim import _places
from libaio_shim.bench import build, places

PROGRAMS = sides.ROOT / "tests" / "programs"


@pytest.fixture(scope="module")
def coldread() -> Path:
    needs.program("cc", "gcc")
    return build.program("coldread", PROGRAMS / "coldread.c")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    places.write_stamped(path, 16 << 20)
    return path


def test_the_shim_answers(shim: sides.Side, coldread: Path, data: Path) -> None:
    ran = shim.run([coldread, "--check", data], own=True).check()
    assert [line["submitted"] for line in ran.stats] == [4096]


@pytest.mark.parametrize("options", [["-d", "1"], ["-d", "64", "-B", "1"], ["-b", "64k", "-d", "8"], ["-D"], ["-k"]])
def test_reads_every_block_once(side: sides.Side, coldread: Path, data: Path, options: list[str]) -> None:
    """With --check, in every way to ask; the JSON counts what was asked for."""
    ran = side.run([coldread, "--check", "--json", *options, data], own=True).check()
    said = json.loads(ran.stdout)
    assert said["reads"] * said["block"] == 16 << 20
    assert said["checked"] is True
    assert 0 < said["submit_us"]["p50"] <= said["submit_us"]["p99"] <= said["submit_us"]["max"]


def test_wrong_data_is_noticed(side: sides.Side, coldread: Path, data: Path) -> None:
    """One wrong block among 4,096 ends it with status 1."""
    with data.open("r+b") as file:
        file.seek(2222 * 4096)
        file.write(b"\xff" * 8)
    ran = side.run([coldread, "--check", data], own=True)
    assert ran.status == 1
    assert f"wrong data at {2222 * 4096}" in ran.stderr


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_without_kernel_aio_only_the_shim_works(
    kernel: sides.Side, shim: sides.Side, coldread: Path, refuse: Path, data: Path, error: str
) -> None:
    """The same binary, with the system calls refused: the kernel's column fails at io_setup, the shim's does not."""
    refused = kernel.run([coldread, data], own=True, before=[refuse, "aio", error])
    assert refused.status == (3 if error == "ENOSYS" else 1)
    assert "io_setup" in refused.stderr
    for options in ([], ["--direct"]):
        ran = shim.run([coldread, "--check", *options, data], own=True, before=[refuse, "aio", error]).check()
        assert ran.stats[0]["native"] == 0


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_fio_verifies_without_kernel_aio(shim: sides.Side, refuse: Path, ext4: Path, error: str) -> None:
    """O_DIRECT, fsync and many requests, all in the crew."""
    job = [needs.program("fio"), "--name=job", "--ioengine=libaio", "--rw=randrw", "--verify=crc32c", "--size=8m"]
    job += ["--verify_state_save=0", "--iodepth=32", "--direct=1", "--fsync=16", "--thread"]
    ran = shim.run(job, cwd=ext4, before=[refuse, "aio", error]).check()
    assert ran.stats[0]["native"] == 0


def demo(directory: Path, *before: str | Path) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        str(sides.ROOT / "bench" / "demo.py"),
        "--directory",
        str(directory),
        "--size",
        "64",
        "--rounds",
        "3",
    ]
    return subprocess.run(
        [*before, *words, "--seconds", "30", "--no-fio"],
        env=build.plain_environment() | {"LIBAIO_SHIM_BUILD": str(_places.home())},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_demo_shows_both_and_cleans_up(kernel: sides.Side, shim: sides.Side, tmp_path: Path) -> None:
    """One table, the proof of who answered, and nothing left behind."""
    shown = demo(tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "kernel AIO" in shown.stdout
    assert "who answered" in shown.stdout
    assert '"submitted": 16384' in shown.stdout
    assert "libaio_shim.so.0" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_where_no_file_can_be_made() -> None:
    """In a line."""
    shown = demo(Path("/proc"))
    assert shown.returncode == 1
    assert shown.stderr.startswith("demo: /proc/")
    assert shown.stderr.count("\n") == 1


def test_the_demo_says_where_the_kernel_has_none(shim: sides.Side, refuse: Path, tmp_path: Path) -> None:
    """The kernel's column says so, the shim's has numbers."""
    shown = demo(tmp_path, refuse, "aio", "ENOSYS")
    assert shown.returncode == 0, shown.stderr
    assert "no AIO here" in shown.stdout
    assert '"submitted": 16384' in shown.stdout
