"""The benchmark: its load generator on both sides in all its modes, and what the command writes.

No speed is asserted: the machine that runs the tests does other things as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import needs
import pytest
import sides

from libaio_shim import _places
from libaio_shim.bench import build, places
from libaio_shim.bench.cases import CASES, Case, Load
from libaio_shim.bench.report import number, verdict
from libaio_shim.bench.rounds import CaseResult

MODES = {
    "cached": ["--hot"],
    "batches": ["--hot", "--depth=64", "--batch=16"],
    "cold": ["--cold", "--depth=32"],
    "direct": ["--direct=100", "--depth=32"],
    "writes with fdsync": ["--write=100", "--fsync=16", "--depth=8"],
    "writes with fdsync, eventfd": ["--write=100", "--fsync=16", "--depth=8", "--reap=eventfd"],
    "mixed": ["--write=50", "--direct=50", "--depth=16"],
    "sequential": ["--sequential", "--depth=4"],
    "eventfd": ["--direct=100", "--depth=16", "--reap=eventfd"],
    "ring": ["--direct=100", "--depth=16", "--reap=ring"],
    "eventfd and ring": ["--direct=50", "--depth=16", "--reap=eventfd-ring"],
    "threads on own contexts": ["--threads=4", "--depth=8", "--direct=100"],
    "threads on one context": ["--threads=4", "--depth=8", "--direct=50", "--shared"],
    "many contexts": ["--contexts=50", "--depth=4"],
    "beside pending polls": ["--parked=2000", "--depth=4"],
}


@pytest.fixture(scope="module")
def aioload() -> Path:
    needs.program("cc", "gcc")
    return build.aioload()


def load(side: sides.Side, *arguments: str | Path) -> dict[str, Any]:
    for seconds in (0.15, 3, 60):
        command = [build.aioload(), f"--seconds={seconds}", "--warmup=0.02", *arguments]
        ran = side.run(command, own=True)
        if "0 of 0 requests" not in ran.stderr:  # a disk that others keep busy may need longer for one
            break
    ran.check()
    assert len(ran.stats) == side.is_shim
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def test_the_shim_answers(shim: sides.Side, aioload: Path, tmp_path: Path) -> None:
    path = tmp_path / "data"
    places.write_stamped(path, 1 << 20)
    assert load(shim, path)["ops"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_mode_ends_without_errors(side: sides.Side, aioload: Path, ext4: Path, mode: str) -> None:
    """It fails by itself if a request does, or returns less than was asked for."""
    path = ext4 / "data"
    places.write_stamped(path, 32 << 20)
    said = load(side, *MODES[mode], path)
    assert said["ops"] > 0
    assert said["complete_us"]["p50"] <= said["complete_us"]["p99.9"] <= said["complete_us"]["max"]


def test_extending_writes_fill_the_file(side: sides.Side, aioload: Path, tmpfs: Path) -> None:
    """Appended from the start, nothing left out."""
    path = tmpfs / "grown"
    load(side, "--write=100", "--extend", "--depth=8", "--size=8m", path)
    assert path.stat().st_size > 0
    content = path.read_bytes()
    assert not any(content[at : at + 4096] == bytes(4096) for at in range(0, len(content) - 8 * 4096, 4096))


@pytest.mark.parametrize("mode", ["poll", "churn"])
def test_waiting_modes(side: sides.Side, aioload: Path, mode: str) -> None:
    """Polls on sockets are woken, contexts come and go."""
    assert load(side, f"--mode={mode}", "--depth=200", "--batch=4")["ops"] > 0


def bench(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, sides.ROOT / "bench", "--quick", "--seconds=0.1", *arguments],
        cwd=directory,
        env=build.plain_environment() | {"LIBAIO_SHIM_BUILD": str(_places.home())},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_writes_table_and_json(kernel: sides.Side, shim: sides.Side, aioload: Path, tmp_path: Path) -> None:
    """Every round of every engine is in the file, and nothing is left in the directory."""
    done = bench(tmp_path, "--case=cached-read-qd1", "--case=setup-*", "--rounds=2", "--json=out.json")
    assert done.returncode == 0, done.stderr
    assert "cached-read-qd1" in done.stdout
    written = json.loads((tmp_path / "out.json").read_text())
    engines = written["cases"]["cached-read-qd1"]["engines"]
    assert [len(engines[name]["rounds"]) for name in ("kernel", "shim")] == [2, 2]
    assert engines["shim"]["rounds"][0]["stats"]["contexts"] == 1
    assert engines["kernel"]["rounds"][0]["stats"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_given_file_is_only_read(kernel: sides.Side, shim: sides.Side, aioload: Path, tmp_path: Path) -> None:
    """Cases that write are left out, and the file stays as it is."""
    path = tmp_path / "precious"
    places.write_stamped(path, 4 << 20)
    before = path.read_bytes()
    done = bench(tmp_path, "--all", "--case=*-qd1", "--rounds=1", str(path))
    assert done.returncode == 0, done.stderr
    assert "write" not in done.stdout
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--case=nonsense"], "no case fits"),
        (["--engine=nonsense"], "no engine"),
        (["--rounds=0"], "--rounds"),
        (["--seconds=0"], "--seconds"),
        (["--seconds=nan"], "--seconds"),
        (["--json=nowhere/out.json"], "nowhere/out.json"),
        (["--json=."], "no such file"),
        (["--plot=out.pdf"], ".svg"),
        (["nowhere"], "nowhere: No such file or directory"),
        (["/dev/null"], "neither a directory"),
    ],
)
def test_wrong_use_is_told_at_once(tmp_path: Path, words: list[str], said: str) -> None:
    """In a line, before anything is measured."""
    done = bench(tmp_path, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("libaio-shim: bench: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_directory_where_no_file_can_be_made_is_told(tmp_path: Path) -> None:
    """In place of the case's results."""
    done = bench(tmp_path, "--case=cached-read-qd1", "/proc")
    assert "cached-read-qd1: skipped: /proc: " in done.stdout
    assert "Traceback" not in done.stderr


def test_list_may_be_cut_short(build_dir: Path) -> None:
    """As by head: no traceback tells that nobody read the rest."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "libaio_shim", "bench", "--list"]
    done = subprocess.run(command, cwd=sides.ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_ratios_pair_rounds() -> None:
    """The median of the ratios, not the ratio of the medians; less is better where that is the metric."""
    result = CaseResult(Case("x", Load(), target=1.5))
    result.samples = {
        "kernel": [{"iops": value} for value in (10.0, 100.0, 1000.0)],
        "shim": [{"iops": value} for value in (20.0, 200.0, 1000.0)],
    }
    assert result.ratios("shim") == [2, 2, 1]
    assert verdict(result, "shim") == "reached"
    latency = CaseResult(Case("y", Load(), metric="submit_us.p99", target=4))
    latency.samples = {"kernel": [{"submit_us": {"p99": 30}}], "shim": [{"submit_us": {"p99": 10}}]}
    assert latency.ratios("shim") == [3]
    assert verdict(latency, "shim") == "missed"


def test_cases_have_places_that_exist() -> None:
    assert {case.place for case in CASES.values()} <= {"", *places.NAMES}


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_python_benchmark_measures_every_way_and_writes_the_page(build_dir: Path, tmp_path: Path) -> None:
    """bench/python.py: what is there takes part, and the tables go between their marks."""
    page, samples = tmp_path / "page.md", tmp_path / "samples.json"
    page.write_text("before\n<!-- begin: bench/python.py -->\nold\n<!-- end: bench/python.py -->\nafter\n")
    words = ["--rows=hot-1m", "--rounds=1", "--size=4", f"--dir={tmp_path}", f"--docs={page}", f"--json={samples}"]
    done = subprocess.run(
        [sys.executable, sides.ROOT / "bench" / "python.py", *words], capture_output=True, text=True, check=False
    )
    row = json.loads(samples.read_text())["rows"]["hot-1m"]
    left_out = {note.split(" is left out")[0] for note in row["notes"]}
    assert not [note for note in row["notes"] if " failed: " in note or "libaio_shim" in note], done.stderr
    assert len(row["seconds"]) + len(left_out) == 11
    assert done.stdout.count("reached ") + done.stdout.count("MISSED ") == 2
    before, table = page.read_text().split("<!-- begin: bench/python.py -->")
    assert (before, table.split("<!-- end: bench/python.py -->")[1]) == ("before\n", "\nafter\n")
    assert "| **libaio_shim AsyncContext.read** |" in table
    assert "old" not in table
