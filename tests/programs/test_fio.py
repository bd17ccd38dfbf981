"""fio, unmodified, with its libaio engine and its own verification, on the kernel and on the shim."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest
import sides
from table import tried, version

COMMON = ["--name=job", "--ioengine=libaio", "--output-format=json", "--group_reporting", "--randseed=11"]
VERIFY = ["--rw=randrw", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--size=12m", "--bs=4k"]
EXERCISES = "every opcode but poll; partial reaps; ring reading with --userspace_reap"


@pytest.fixture(scope="module", autouse=True)
def fio() -> str:
    return needs.program("fio")


def run(side: sides.Side, directory: Path, *arguments: str) -> dict[str, Any]:
    """Runs one job in directory; its part of fio's report."""
    ran = side.run(["fio", *COMMON, *arguments], cwd=directory).check()
    report = json.loads(ran.stdout[ran.stdout.index("{") :])
    job: dict[str, Any] = report["jobs"][0]
    assert job["error"] == 0
    return job


def test_the_shim_answers(shim: sides.Side, tmp_path: Path) -> None:
    """The line that only the shim writes, and its libraries in the memory of a running fio."""
    ran = shim.run(["fio", *COMMON, "--thread", "--rw=randread", "--size=1m"], cwd=tmp_path).check()
    assert [line["submitted"] for line in ran.stats] == [256]
    process = shim.start(["fio", *COMMON, "--thread", "--rw=randread", "--size=1m", "--time_based", "--runtime=30"],
                         cwd=tmp_path)  # fmt: skip
    try:
        sides.wait_until(lambda: "/libaio_shim.so.0" in sides.maps(process.pid))
    finally:
        process.kill()
        process.communicate()


def test_the_program_makes_no_aio_system_call(shim_without_kernel_aio: sides.Side, tmp_path: Path) -> None:
    """Seen by strace, in all threads and processes."""
    needs.program("strace")
    job = ["fio", *COMMON, "--rw=randrw", "--size=2m", "--iodepth=16", "--fsync=8"]
    ran, calls = sides.aio_system_calls(shim_without_kernel_aio, job, cwd=tmp_path)
    ran.check()
    assert calls == []


def test_the_kernel_side_does_make_them(kernel: sides.Side, tmp_path: Path) -> None:
    """Without this the test above would prove nothing."""
    needs.program("strace")
    ran, calls = sides.aio_system_calls(kernel, ["fio", *COMMON, "--rw=randread", "--size=1m"], cwd=tmp_path)
    ran.check()
    assert any("io_submit(" in call for call in calls)


@tried("fio", "fio --ioengine=libaio --rw=randrw --verify=crc32c", EXERCISES, version=version("fio", "--version"))
@pytest.mark.parametrize("reap", ["getevents", "userspace_reap"])
@pytest.mark.parametrize("depth", [1, 32])
@pytest.mark.parametrize(
    ("place", "direct"),
    [("ext4", 0), ("tmpfs", 0), ("ext4", 1)],
    ids=["ext4", "tmpfs", "direct"],
    indirect=["place"],
)
def test_random_writes_read_back(side: sides.Side, place: Path, direct: int, depth: int, reap: str) -> None:
    """Random reads and writes with checksums, by fio's own verification."""
    more = ["--userspace_reap"] if reap == "userspace_reap" else []
    job = run(side, place, *VERIFY, f"--direct={direct}", f"--iodepth={depth}", *more)
    assert job["read"]["short_ios"] == 0
    assert job["read"]["total_ios"] + job["write"]["total_ios"] >= 12 * 256


VARIANTS = {
    "fsync after every 8 writes": ["--fsync=8", "--iodepth=16"],
    "fdatasync after every 4 writes": ["--fdatasync=4", "--iodepth=16"],
    "fsync with direct": ["--fsync=8", "--iodepth=16", "--direct=1"],
    "O_SYNC": ["--sync=1", "--iodepth=8", "--size=2m"],
    "O_DSYNC and O_DIRECT": ["--sync=dsync", "--direct=1", "--iodepth=8", "--size=2m"],
    "batches of 16": ["--iodepth=64", "--iodepth_batch_submit=16", "--iodepth_batch_complete_max=16"],
    "reaps of at least 8": ["--iodepth=64", "--iodepth_batch_complete_min=8", "--iodepth_batch_complete_max=64"],
    "depth 1024": ["--iodepth=1024", "--iodepth_batch_submit=1024", "--iodepth_batch_complete_max=1024"],
    "reap without waiting": ["--iodepth=32", "--iodepth_batch_complete_min=0"],
    "unaligned blocks of any size": ["--bsrange=512-96k", "--bs_unaligned=1", "--iodepth=16"],
    "blocks of 1 MiB": ["--bs=1m", "--iodepth=8", "--size=32m"],
    "sequential": ["--rw=rw", "--iodepth=32"],
    "extending": ["--rw=write", "--iodepth=32", "--fallocate=none"],
    "extending directly": ["--rw=write", "--iodepth=32", "--fallocate=none", "--direct=1"],
    "buffers in huge pages or shared memory": ["--iomem=shm", "--iodepth=16"],
    "random reads with verification while writing": ["--verify_backlog=64", "--iodepth=16"],
    "asynchronous verification": ["--verify_async=2", "--iodepth=16"],
    "four processes": ["--numjobs=4", "--iodepth=16", "--size=4m"],
    "four threads": ["--numjobs=4", "--iodepth=16", "--size=4m", "--thread"],
    "priorities": ["--cmdprio_percentage=50", "--cmdprio_class=2", "--cmdprio=1", "--direct=1", "--iodepth=8"],
    "at a rate": ["--rate_iops=4000", "--iodepth=16", "--size=4m"],
    "bursts": ["--iodepth=64", "--iodepth_low=8", "--iodepth_batch=32", "--thinktime=200us", "--thinktime_blocks=64"],
    "several files": ["--nrfiles=8", "--iodepth=32", "--file_service_type=random"],
    "many open and close": ["--nrfiles=64", "--openfiles=4", "--iodepth=32", "--size=4m"],
    "overlapping requests wait": ["--serialize_overlap=1", "--direct=1", "--bsrange=4k-32k", "--iodepth=16"],
    "buffers in a mapped file": ["--iomem=mmap:buffers", "--iodepth=16"],
    "created on open, synced on close": ["--create_on_open=1", "--fsync_on_close=1", "--end_fsync=1", "--iodepth=16"],
    "flushed in between": ["--sync_file_range=write:8", "--iodepth=16"],
    "32 threads": ["--numjobs=32", "--thread", "--size=512k", "--iodepth=16"],
}
# fio's verification does not go together with these.
UNVERIFIED = {
    "RWF_NOWAIT reads of what is cached": [
        "--rw=randread",
        "--nowait=1",
        "--pre_read=1",
        "--invalidate=0",
        "--size=4m",
    ],
    "time limit with requests in flight": ["--rw=randrw", "--time_based", "--runtime=500ms", "--size=12m"],
    "mixed priorities": ["--rw=randrw", "--time_based", "--runtime=300ms", "--size=12m", "--prio=3", "--direct=1"],
}


@tried("fio", "fio --ioengine=libaio, " + str(len(VARIANTS)) + " variants", "fsync, batches, depths, jobs, alignment",
       version=version("fio", "--version"))  # fmt: skip
@pytest.mark.parametrize("variant", VARIANTS)
def test_variant(side: sides.Side, ext4: Path, variant: str) -> None:
    """What else fio can ask of the engine, all with verification."""
    run(side, ext4, *VERIFY, *VARIANTS[variant])


@pytest.mark.parametrize("variant", UNVERIFIED)
def test_unverified_variant(side: sides.Side, ext4: Path, variant: str) -> None:
    """Jobs that need no more than to end well."""
    run(side, ext4, "--bs=4k", "--iodepth=32", *UNVERIFIED[variant])


@pytest.mark.parametrize("rw", ["trimwrite", "randtrimwrite"])
def test_trims_between_writes_on_a_device(side: sides.Side, device: str, rw: str) -> None:
    """fio trims by itself, each time its queue is empty."""
    where = [f"--filename={device}", "--size=8m", "--bs=4k", "--direct=1"]
    job = run(side, Path("/"), f"--rw={rw}", "--iodepth=16", *where)
    assert (job["write"]["total_ios"], job["trim"]["total_ios"]) == (2048, 2048)


@tried("fio", "fio --server, --client", "a server that forks for each job", version=version("fio", "--version"))
def test_server_runs_a_clients_jobs(side: sides.Side, ext4: Path, tmp_path: Path) -> None:
    """Two jobs after each other, verified by the server, which does the I/O."""
    job, path = ext4 / "verified.fio", tmp_path / "server"
    job.write_text("\n".join(["[job]", f"directory={ext4}", "ioengine=libaio", "iodepth=16", *map(bare, VERIFY)]))
    server = side.start(["fio", f"--server=sock:{path}"])
    try:
        sides.wait_until(lambda: sides.listens(path) or server.poll() is not None)
        assert ("/libaio_shim.so.0" in sides.maps(server.pid)) == side.is_shim
        for _ in range(2):
            client = ["fio", f"--client=sock:{path}", "--output-format=json", str(job)]
            done = subprocess.run(client, capture_output=True, text=True, timeout=180, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            stats = json.loads(done.stdout[done.stdout.index("{") :])["client_stats"]
            assert [each["error"] for each in stats] == [0]
    finally:
        server.kill()
        server.communicate()


def bare(option: str) -> str:
    return option.removeprefix("--")


@tried(
    "fio",
    "fio --write_iolog, --read_iolog",
    "files opened and closed as they were",
    version=version("fio", "--version"),
)
def test_replays_what_was_logged(side: sides.Side, ext4: Path) -> None:
    """A log of a job over several files, and as many requests when it is played again."""
    first = run(side, ext4, *VERIFY, "--size=4m", "--nrfiles=4", "--openfiles=2", "--iodepth=16", "--write_iolog=log")
    again = run(side, ext4, "--read_iolog=log", "--replay_no_stall=1", "--iodepth=16")
    counts = [(job["read"]["total_ios"], job["write"]["total_ios"]) for job in (first, again)]
    assert counts[0] == counts[1]


def written_bytes(side: sides.Side, directory: Path, *arguments: str) -> str:
    """The checksum of a file that fio fills with each block's offset, in random order."""
    directory.mkdir()
    # The first job lays out the file, the second replaces half of it.
    run(side, directory, "--rw=write", "--filename=data", "--size=8m", "--buffer_pattern=0xdeadbeef", "--iodepth=8")
    run(side, directory, "--rw=randwrite", "--filename=data", "--size=8m", "--io_size=4m", "--iodepth=32",
        "--verify=pattern", "--verify_pattern=%o", "--verify_state_save=0", *arguments)  # fmt: skip
    return hashlib.sha256((directory / "data").read_bytes()).hexdigest()


@pytest.mark.parametrize("direct", [0, 1], ids=["buffered", "direct"])
def test_both_sides_write_the_same_bytes(kernel: sides.Side, shim: sides.Side, ext4: Path, direct: int) -> None:
    """The same job with the same seed leaves the same file."""
    assert written_bytes(kernel, ext4 / "kernel", f"--direct={direct}") == written_bytes(
        shim, ext4 / "shim", f"--direct={direct}"
    )


def descriptors(pid: int) -> set[str]:
    """What the descriptors of a process refer to."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue
    return found


def test_idle_queues_own_no_descriptor(kernel: sides.Side, shim: sides.Side, tmp_path: Path) -> None:
    """What is open all the time under the shim is open on the kernel too."""
    # A read and then a second of rest: a queued request holds its file, but only for a moment.
    job = ["fio", *COMMON, "--thread", "--rw=randread", "--size=1m", "--iodepth=16", "--time_based", "--runtime=30"]
    job += ["--thinktime=1s"]

    def looks(side: sides.Side, enough: Callable[[list[set[str]]], bool]) -> list[set[str]]:
        process = side.start(job, cwd=tmp_path)
        try:
            sides.wait_until(lambda: any("/job.0.0" in line for line in descriptors(process.pid)))
            seen: list[set[str]] = []

            def look() -> bool:
                seen.append(kinds(process.pid))
                return enough(seen)

            sides.wait_until(look, 20)
            return seen
        finally:
            process.kill()
            process.communicate()

    def kinds(pid: int) -> set[str]:
        return {line.split(" ", 1)[1].split(":")[0] for line in descriptors(pid)}

    known = set.union(*looks(kernel, lambda seen: len(seen) >= 50))
    looks(shim, lambda seen: len(seen) >= 50 and set.intersection(*seen) <= known)
