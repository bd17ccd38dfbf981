"""The binding and its process: fork, exit, threads and the GIL, garbage, subinterpreters."""

from __future__ import annotations

import asyncio
import errno
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from python_tests import BLOCK, Stall, in_child

from libaio_shim import Batch, Context, prep_poll, prep_pread
from libaio_shim.asyncio import AsyncContext


def run_python(source: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that runs source; all warnings are shown."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: fork in a process that has threads
def test_a_forked_child_has_dead_contexts_and_may_make_new_ones(fd: int, payload: bytes) -> None:
    """Inherited: EINVAL from every call, close costs nothing.  The parent is not disturbed."""
    context = Context(4)
    context.submit(prep_pread(fd, bytearray(1), 0))

    def child() -> int:
        for use in (lambda: context.submit(prep_pread(fd, bytearray(1), 0)), lambda: context.getevents(1)):
            try:
                use()
            except OSError as error:
                if error.errno != errno.EINVAL:
                    return 1
            else:
                return 2
        context.close()
        buffer = bytearray(BLOCK)
        with Context(4) as fresh:
            fresh.submit(prep_pread(fd, buffer, BLOCK))
            if fresh.getevents()[0].res != BLOCK:
                return 3
        return 0 if buffer == payload[BLOCK : 2 * BLOCK] else 4

    assert in_child(child) == 0
    assert context.getevents()[0].res == 1
    context.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_during_submit_leaves_no_lock_behind(fd: int) -> None:
    """Another thread may hold a context's lock at the moment of the fork; the child does not hang on it."""
    context = Context(4)
    with context._ring.lock:
        status = in_child(lambda: context._ring.lock.acquire(timeout=5) - 1)
    context.close()
    assert status == 0


def child_of_multiprocessing(path: str, results: multiprocessing.Queue[bytes]) -> None:
    fd = os.open(path, os.O_RDONLY)
    buffer = bytearray(4)
    with Context(2) as context:
        context.submit(prep_pread(fd, buffer, 0))
        context.getevents()
    results.put(bytes(buffer))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works(method: str, path: Path, fd: int) -> None:
    """However the worker is started, while the parent has a context with an event in it."""
    ways: Any = multiprocessing.get_context(method)
    results: multiprocessing.Queue[bytes] = ways.Queue()
    with Context(2) as context:
        context.submit(prep_pread(fd, bytearray(1), 0))
        worker = ways.Process(target=child_of_multiprocessing, args=(str(path), results))
        worker.start()
        assert results.get(timeout=60) == b"AAAA"
        worker.join()
        assert worker.exitcode == 0
        assert len(context.getevents()) == 1
    results.close()
    results.join_thread()


def test_exit_with_requests_in_flight(path: Path) -> None:
    """Neither a hang nor a crash: polls are dropped, writes are finished, threads end and say nothing."""
    source = """if True:
        import os, socket, select, sys, threading
        from libaio_shim import Batch, Context, prep_fsync, prep_poll, prep_pwrite
        left, right = socket.socketpair()
        fd = os.open(sys.argv[1], os.O_RDWR)
        context = Context(64)
        context.submit([prep_poll(left, select.POLLIN)])
        context.submit([prep_pwrite(fd, b"z" * 100_000, 100_000 * i) for i in range(20)])
        waiting = Context(4)
        threading.Thread(target=waiting.getevents, daemon=True).start()
        busy, request = Context(4), prep_fsync(fd)
        def work():
            while True:
                busy.submit(request)
                busy.getevents()
        threading.Thread(target=work, daemon=True).start()
        batch = Batch(fd, [bytearray(8)])
        def run():
            while True:
                batch.run([0])
        threading.Thread(target=run, daemon=True).start()
        print("end")
        """
    done = run_python(source, str(path))
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert "Exception" not in done.stderr
    assert path.read_bytes() == b"z" * 2_000_000


def test_exit_waits_for_the_device(stall: Stall) -> None:
    """A read that runs at exit still finds its buffer: the interpreter ends after it."""
    source = """if True:
        import os, sys
        from libaio_shim import Context, prep_pread
        fd = os.open(sys.argv[1], os.O_RDWR)
        context = Context(4)
        context.submit(prep_pread(fd, bytearray(4096), 0))
        sys.stdin.read()
        """
    with stall.holding():
        child = subprocess.Popen([sys.executable, "-c", source, str(stall.path)], stdin=subprocess.PIPE)
        assert child.stdin is not None
        stall.wait_until_held(1)
        child.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
    assert child.wait(60) == 0


def test_exit_closes_what_was_forgotten(path: Path) -> None:
    """A context that lives until the end is closed then; one that is dropped before is warned about."""
    source = """if True:
        import os, sys
        from libaio_shim import Context, prep_pread
        dropped = Context(1)
        del dropped
        kept = Context(1)
        """
    done = run_python(source)
    assert done.returncode == 0
    assert done.stderr.count("ResourceWarning: unclosed <libaio_shim.Context depth=1 in_flight=0>") >= 1


def test_garbage_in_a_cycle_is_collected(fd: int) -> None:
    """A context in a reference cycle with its requests in flight goes when the collector comes, in any order."""

    class Node:
        pass

    node = Node()
    node.context = Context(4)  # type: ignore[attr-defined]
    node.request = prep_pread(fd, bytearray(BLOCK), 0)  # type: ignore[attr-defined]
    node.request.buffer = node  # type: ignore[attr-defined]
    node.context.submit(node.request)  # type: ignore[attr-defined]
    gone = weakref.ref(node)
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031
        del node
        gc.collect()
    assert gone() is None


def test_requests_outlive_their_names(fd: int, payload: bytes) -> None:
    """The context keeps what is in flight: the caller may forget everything."""
    with Context(64) as context:
        context.submit([prep_pread(fd, bytearray(BLOCK), BLOCK * i) for i in range(16)])
        gc.collect()
        for event in context.getevents(16):
            offset = event.iocb.offset
            assert event.iocb.buffer == payload[offset : offset + BLOCK]


class Blocked:
    """A call that cannot return before `release`, made by another thread."""

    def __init__(self, call: Callable[[], object], release: Callable[[], object]) -> None:
        self._release = release
        self._thread = threading.Thread(target=call)

    def lets_others_run(self) -> None:
        """This thread could not go on if the call kept the GIL; the test's time-out says so."""
        self._thread.start()
        time.sleep(0.05)
        assert self._thread.is_alive()
        self._release()
        self._thread.join()


def test_getevents_releases_the_gil() -> None:
    """Waiting for an event, with and without a time-out."""
    for timeout in (None, 600.0):
        left, right = os.pipe()
        with Context(4) as context:
            context.submit(prep_poll(left, 1))
            Blocked(lambda: context.getevents(1, None, timeout), lambda: os.write(right, b"x")).lets_others_run()  # noqa: B023
        os.close(left)
        os.close(right)


def test_close_releases_the_gil(stall: Stall, stalled_fd: int) -> None:
    """Waiting for a request that runs; also when the garbage collector closes."""
    context = Context(4)
    with stall.holding():
        context.submit(prep_pread(stalled_fd, bytearray(1), 0))
        stall.wait_until_held(1)
        Blocked(context.close, stall.release).lets_others_run()


def test_a_batch_releases_the_gil(stall: Stall, stalled_fd: int) -> None:
    """Waiting for the transfers; and in close for a run of another thread."""
    with stall.holding(), Batch(stalled_fd, [bytearray(1)]) as batch:
        Blocked(lambda: batch.run([0]), stall.release).lets_others_run()


def test_closing_a_loops_context_releases_the_gil(stall: Stall, stalled_fd: int) -> None:
    """close waits for what runs, though no loop is there any more."""
    context = AsyncContext(4)

    async def leave_it() -> None:
        task = asyncio.ensure_future(context.read(stalled_fd, 1, 0))
        await asyncio.to_thread(stall.wait_until_held, 1)
        task.cancel()

    with stall.holding():
        asyncio.run(leave_it())
        Blocked(context.close, stall.release).lets_others_run()


def test_submit_releases_the_gil(stall: Stall, stalled_fd: int) -> None:
    """submit is not meant to block.  Where it does after all (no thread can be had), it blocks its thread only."""
    source = """if True:
        import os, resource, sys, threading, time
        from libaio_shim import Context, prep_pread
        fd = os.open(sys.argv[1], os.O_RDWR)
        context = Context(4)
        request = prep_pread(fd, bytearray(1), 0)
        started = threading.Event()
        def submit():
            started.set()
            context.submit(request)
        thread = threading.Thread(target=submit)
        thread.start()
        started.wait()
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        print("free", flush=True)
        thread.join()
        print(context.getevents()[0].res, flush=True)
        """
    with stall.holding():
        child = subprocess.Popen([sys.executable, "-c", source, str(stall.path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "free\n"
        stall.wait_until_held(1)
    assert child.communicate(timeout=60)[0] == "1\n"
    assert child.returncode == 0


def test_subinterpreters_are_refused() -> None:
    """ImportError with a reason, whatever the interpreter's module is called in this version."""
    source = """if True:
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        import sys
        import libaio_shim._native
        code = f'''if True:
            import sys
            sys.path[:] = {sys.path!r}
            try:
                import libaio_shim._native
            except ImportError as error:
                print(error, flush=True)
            '''
        if interpreters.__name__ == "_interpreters":
            interpreter = interpreters.create("legacy")
        else:
            interpreter = interpreters.create(isolated=False)
        interpreters.run_string(interpreter, code)
        """
    done = run_python(source)
    assert "not in a subinterpreter" in done.stdout, done.stderr
    assert done.returncode == 0


def test_engine_is_taken_from_the_directory_that_is_named(
    build_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIBAIO_SHIM_LIBDIR, and what is wrong with it is told as ImportError."""
    source = "import libaio_shim._native as native; print(native.library()); print(open('/proc/self/maps').read())"
    engine = tmp_path / "libaio_shim.so.0"
    monkeypatch.setenv("LIBAIO_SHIM_LIBDIR", str(tmp_path))
    assert f"ImportError: {engine} not found; as LIBAIO_SHIM_LIBDIR says" in run_python(source).stderr
    engine.write_text("damaged")
    assert f"ImportError: {engine} cannot be loaded: " in run_python(source).stderr
    shutil.copy(build_dir / "lib" / engine.name, tmp_path / "copy")
    (tmp_path / "copy").replace(engine)
    done = run_python(source)
    assert done.stdout.startswith(f"{engine}\n"), done.stderr
    assert done.stdout.count(str(engine)) > 1


def test_importing_the_package_is_quick_work() -> None:
    """Neither the package nor its low level imports what it does not use: no parser, no asyncio."""
    source = """if True:
        import sys, libaio_shim
        libaio_shim.Context
        print(sorted({'cffi', 'pycparser', 'asyncio'} & set(sys.modules)))
        """
    done = run_python(source)
    assert done.stdout == "[]\n", done.stderr


def test_a_signal_handler_may_raise_anywhere(fd: int) -> None:
    """KeyboardInterrupt in the middle of submit or getevents loses no buffer: the context stays usable."""

    class Stop(Exception):  # noqa: N818
        pass

    def handler(number: int, frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, handler)
    end = time.monotonic() + 1.0
    interrupted = 0
    try:
        with Context(64) as context:
            while time.monotonic() < end:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0005)
                    while True:
                        context.submit([prep_pread(fd, bytearray(64), 0) for _ in range(8)])
                        context.getevents(0)
                except Stop:
                    interrupted += 1
                except BlockingIOError:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    context.getevents(0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
