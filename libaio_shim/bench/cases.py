"""What is measured: loads, where they run, and the ratio to kernel AIO that each is meant to reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

MIB = 1 << 20
HOT_BYTES = 64 * MIB
COLD_BYTES = 1024 * MIB


@dataclass(frozen=True)
class Load:
    """A load in the terms of aioload (see src/aioload.c); most have an equivalent in fio."""

    mode: str = "io"
    reap: str = "getevents"
    block: int = 4096
    size: int = HOT_BYTES
    depth: int = 1
    batch: int = 1  # at most, for each io_submit; fio's default too
    threads: int = 1
    contexts: int = 1  # of each thread, used in turn
    parked: int = 0  # polls that stay pending meanwhile
    shared: bool = False
    write: int = 0  # percent
    direct: int = 0  # percent
    fsync: int = 0  # every so many writes
    sequential: bool = False
    extend: bool = False
    cold: bool = False
    hot: bool = False

    def aioload(self, path: str | None, seconds: float) -> list[str]:
        """Arguments for aioload."""
        words = [f"--mode={self.mode}", f"--depth={self.depth}", f"--seconds={seconds}"]
        words += [f"--warmup={min(0.05, seconds / 10):g}"]
        words += [f"--batch={self.batch}"]
        if self.mode == "io":
            words += [f"--reap={self.reap}", f"--block={self.block}", f"--size={self.size}"]
            words += [
                f"--{name}={value}" for name in ("write", "direct", "fsync", "parked") if (value := getattr(self, name))
            ]
            words += [f"--threads={self.threads}", f"--contexts={self.contexts}"]
            words += [f"--{name}" for name in ("shared", "sequential", "extend", "cold", "hot") if getattr(self, name)]
            words += [path or ""]
        return words

    def fio(self, path: str, ioengine: str, seconds: float) -> list[str] | None:
        """Arguments for fio, or None if fio cannot do the same."""
        if self.mode != "io" or self.reap != "getevents" or self.shared or self.direct not in (0, 100):
            return None
        if self.contexts > 1 or self.parked or self.extend or self.write not in (0, 50, 100):
            return None
        kind = ("" if self.sequential else "rand") + {0: "read", 50: "rw", 100: "write"}[self.write]
        words = ["--name=job", f"--filename={path}", f"--rw={kind}"]
        words += [f"--bs={self.block}", f"--size={self.size}", f"--ioengine={ioengine}", f"--iodepth={self.depth}"]
        if self.batch != 1:
            words += [f"--iodepth_batch_submit={self.batch}", "--iodepth_batch_complete_min=1"]
            words += [f"--iodepth_batch_complete_max={self.depth}"]
        words += [f"--direct={self.direct // 100}", f"--numjobs={self.threads}", "--thread", "--group_reporting"]
        words += [f"--invalidate={int(self.cold)}", "--time_based", f"--runtime={round(seconds * 1000)}ms"]
        words += [
            "--slat_percentiles=1",
            "--lat_percentiles=1",
            "--percentile_list=50:99:99.9",
            "--randrepeat=1",
            "--output-format=json",
        ]
        if self.fsync:
            words += [f"--fdatasync={self.fsync}"]
        return words


@dataclass(frozen=True)
class Case:
    """One line of the result.

    `metric` is what the ratio to `baseline` is made of: "iops" (more is better), or a path into the output of which
    less is better, e.g. "submit_us.p99.9".  The ratio is always made so that more is better.
    """

    name: str
    load: Load
    place: str = "disk"
    target: float | None = None
    limit_us: float | None = None  # a target for the metric itself
    metric: str = "iops"
    baseline: str = "kernel"
    least_seconds: float = 0  # for runs in which little happens
    versus: Load | None = None  # another load, run as engine "epoll" on the kernel: the baseline
    groups: frozenset[str] = field(default_factory=frozenset)


def _cases() -> Iterator[Case]:
    first, main, more = (frozenset({name}) for name in ("first", "main", "more"))
    hot = Load(hot=True)
    cold = Load(cold=True, size=COLD_BYTES, depth=32)

    # The first: what a program notices at once.
    yield Case("cached-read-qd1", hot, "disk", 1.6, groups=first | main)
    yield Case("cached-read-qd32", replace(hot, depth=32), "disk", 1.5, groups=first | main)
    yield Case("cold-read-qd32", cold, "disk", 4, groups=first | main)
    # All 32 in one io_submit: one system call on the kernel, and the shim must not lose by that.
    yield Case("cached-read-qd32-batched", replace(hot, depth=32, batch=32), "disk", 1, groups=first | main)
    yield Case("cold-read-qd32-batched", replace(cold, batch=32), "disk", 4, groups=first | main)

    yield Case("cached-read-qd4", replace(hot, depth=4), "disk", 1.5, groups=more)
    yield Case("cached-read-qd256", replace(hot, depth=256), "disk", 1.5, groups=more)
    yield Case("cached-read-64k-qd32", replace(hot, depth=32, block=65536), "disk", groups=more)
    yield Case("cold-read-qd1", replace(cold, depth=1), "disk", groups=more)
    yield Case("cold-read-qd4", replace(cold, depth=4), "disk", groups=more)
    yield Case("cold-read-qd256", replace(cold, depth=256), "disk", 4, groups=more)
    yield Case("cold-read-sequential-qd32", replace(cold, sequential=True, block=65536), "disk", groups=more)
    for threads in (4, 16):
        spread = replace(hot, depth=32, threads=threads)
        yield Case(f"cached-read-{threads}-threads-own", spread, "disk", groups=more)
        yield Case(f"cached-read-{threads}-threads-shared", replace(spread, shared=True), "disk", groups=more)
        yield Case(f"cold-read-{threads}-threads-own", replace(cold, depth=8, threads=threads), groups=more)
        yield Case(
            f"cold-read-{threads}-threads-shared", replace(cold, depth=8, threads=threads, shared=True), groups=more
        )

    # Direct: what the kernel does well.  On a file system on a loop device, on the bare device and on the disk.
    for place in ("ext4", "device", "disk"):
        for depth in (1, 4, 8, 32, 256):
            for write, what in ((0, "read"), (100, "write")):
                yield Case(
                    f"direct-{what}-{place}-qd{depth}",
                    Load(direct=100, depth=depth, write=write),
                    place,
                    0.95,
                    groups=main if depth in (1, 8, 32, 256) and place != "device" else more,
                )
        for write, what in ((0, "read"), (100, "write")):
            batched = Load(direct=100, depth=32, batch=32, write=write)
            group = main if place == "ext4" else more
            yield Case(f"direct-{what}-{place}-qd32-batched", batched, place, 0.95, groups=group)
    for reap in ("eventfd", "ring", "eventfd-ring"):
        for depth in (1, 32):
            yield Case(
                f"direct-read-{reap}-qd{depth}",
                Load(direct=100, depth=depth, reap=reap),
                "ext4",
                0.9,
                groups=main if depth == 32 else more,
            )
            yield Case(f"cached-read-{reap}-qd{depth}", replace(hot, reap=reap, depth=depth), "ext4", groups=more)
    for threads in (4, 16):
        direct = Load(direct=100, depth=8, threads=threads)
        yield Case(f"direct-read-{threads}-threads-own", direct, "ext4", 0.95, groups=more)
        yield Case(f"direct-read-{threads}-threads-shared", replace(direct, shared=True), "ext4", 0.95, groups=more)

    # Cached writes and reads, file system by file system.
    for place in ("ext4", "xfs", "overlay", "tmpfs"):
        for depth in (1, 32):
            load = Load(hot=True, write=100, depth=depth)
            yield Case(f"cached-write-{place}-qd{depth}", load, place, 1.4, groups=main)
        batched = replace(load, batch=32)
        yield Case(f"cached-write-{place}-qd32-batched", batched, place, 1, groups=more)
    for place in ("overlay", "tmpfs"):
        for depth in (1, 32):
            yield Case(f"cached-read-{place}-qd{depth}", replace(hot, depth=depth), place, 1.4, groups=main)
    yield Case("cold-read-overlay-qd32", cold, "overlay-disk", 3, groups=main)

    # Mixtures.
    for place in ("ext4", "xfs"):
        append = Load(write=100, extend=True, depth=8, size=512 * MIB)
        yield Case(f"extending-write-{place}-qd8", append, place, groups=more)
        fsyncs = Load(hot=True, write=100, fsync=32, depth=8)
        yield Case(f"write-fsync-{place}-qd8", fsyncs, place, groups=more)
        yield Case(f"direct-write-fsync-{place}-qd8", replace(fsyncs, direct=100), place, groups=more)
        mixed = Load(hot=True, write=50, direct=50, depth=16)
        yield Case(f"mixed-direct-and-buffered-{place}-qd16", mixed, place, groups=more)
        yield Case(f"mixed-read-write-{place}-qd16", replace(mixed, direct=0), place, groups=more)

    # What submission costs when the storage stalls: 10 ms for every read.
    stalled = replace(cold, size=128 * MIB)
    for batch, limit_us in ((1, 100), (32, 1000)):
        yield Case(
            f"stalled-submit-of-{batch}",
            replace(stalled, batch=batch),
            "slow",
            limit_us=limit_us,
            metric="submit_us.p99.9",
            least_seconds=1,
            groups=main,
        )

    # Waiting, and the price of a context.
    for burst in (1, 32):
        polls = Load(mode="poll", depth=10000, batch=burst)
        yield Case(
            f"polls-10000-burst-{burst}",
            polls,
            "",
            1 / 1.2,
            metric="complete_us.p50",
            baseline="epoll",
            versus=replace(polls, mode="epoll"),
            groups=main,
        )
    yield Case("setup-destroy", Load(mode="churn", depth=128), "", 1000, groups=main)

    # How cost grows: requests in one call, requests in flight elsewhere on the context, contexts.
    for depth in (1024, 32768):
        yield Case(f"cached-read-qd{depth}-batched", replace(hot, depth=depth, batch=depth), "disk", groups=more)
        direct = Load(direct=100, depth=depth, batch=depth)
        yield Case(f"direct-read-ext4-qd{depth}-batched", direct, "ext4", groups=more)
    for parked in (100, 10000, 50000):
        yield Case(f"cached-read-beside-{parked}-polls", replace(hot, parked=parked), "disk", groups=more)
        direct = Load(direct=100, depth=8, parked=parked)
        yield Case(f"direct-read-beside-{parked}-polls", direct, "ext4", groups=more)
    for contexts in (10, 100, 1000):
        yield Case(f"cached-read-{contexts}-contexts", replace(hot, contexts=contexts), "disk", groups=more)
        direct = Load(direct=100, depth=8, contexts=contexts)
        yield Case(f"direct-read-{contexts}-contexts", direct, "ext4", groups=more)


CASES = {case.name: case for case in _cases()}
