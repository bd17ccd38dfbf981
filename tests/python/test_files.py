"""`libaio_shim.asyncio.open`: files as people know them, beside the built-in ones."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python_tests import BLOCK, Stall, raises_errno

import libaio_shim.asyncio as las
from libaio_shim import stats
from libaio_shim.asyncio import BinaryFile, TextFile, _binary, _text

TEXT = "första\nandra\r\ntredje\rfjärde €\n\nsista utan slut"


def test_a_file_in_a_few_lines(tmp_path: Path) -> None:
    """What one does with files, text and binary."""

    async def main() -> None:
        path = tmp_path / "file"
        async with las.open(path, "w") as file:
            assert isinstance(file, TextFile)
            assert await file.write("one\ntwo €\n") == 10
            await file.writelines(["three\n", "four\n"])
            await file.flush()
            await file.fsync()
            await file.fdatasync()
        async with las.open(path) as file:
            assert [line async for line in file] == ["one\n", "two €\n", "three\n", "four\n"]
            assert await file.read() == ""
            await file.seek(0)
            assert await file.read(6) == "one\ntw"
            assert await file.readline() == "o €\n"
            assert await file.readlines() == ["three\n", "four\n"]
        async with las.open(str(path), "r+b") as binary:
            assert isinstance(binary, BinaryFile)
            assert binary.fileno() >= 0
            assert await binary.read() == "one\ntwo €\nthree\nfour\n".encode()
            assert await binary.seek(4) == 4
            assert await binary.write(b"TWO") == 3
            assert await binary.tell() == 7
            assert await binary.pread(3, 0) == b"one"
            assert await binary.pwrite(b"ONE", 0) == 3
            buffer = bytearray(4)
            await binary.seek(-5, os.SEEK_END)
            assert await binary.readinto(buffer) == 4
            assert buffer == b"four"
            assert await binary.tell() == 22
            assert await binary.truncate(3) == 3
        assert path.read_bytes() == b"ONE"
        file = await las.open(path, "a")
        assert await file.tell() == 3
        await file.write("!")
        assert await file.tell() == 4
        await file.close()
        await file.aclose()
        assert path.read_bytes() == b"ONE!"

    asyncio.run(main())


def test_modes_mean_what_they_mean(tmp_path: Path) -> None:
    """Existing or not, readable or not, as the built-in open does."""

    async def main() -> None:
        path = tmp_path / "file"
        with pytest.raises(FileNotFoundError):
            await las.open(path)
        async with las.open(path, "x") as file:
            assert (file.readable(), file.writable()) == (False, True)
            with pytest.raises(io.UnsupportedOperation):
                await file.read()
        with pytest.raises(FileExistsError):
            await las.open(path, "xb")
        path.write_bytes(b"content")
        async with las.open(path, "rb") as binary:
            assert (binary.readable(), binary.writable()) == (True, False)
            for refused in (binary.write(b""), binary.truncate(), binary.pwrite(b"", 0)):
                with pytest.raises(io.UnsupportedOperation):
                    await refused
        async with las.open(path, "w+b") as binary:
            assert (binary.readable(), binary.writable()) == (True, True)
            assert await binary.read() == b""
        async with las.open(path, "a+b") as binary:
            await binary.write(b"end")
            await binary.seek(0)
            await binary.write(b"more")
            assert await binary.tell() == 7
            await binary.seek(0)
            assert await binary.read() == b"endmore"
        with pytest.raises(IsADirectoryError):
            await las.open(tmp_path, "w")
        for mode in ("", "rw", "rr", "q", "rbt", "+", "U"):
            with pytest.raises(ValueError, match="invalid mode"):
                las.open(path, mode)
        with pytest.raises(ValueError, match="binary mode"):
            las.open(path, "rb", encoding="utf-8")
        with pytest.raises(ValueError, match="newline"):
            await las.open(path, newline="x")
        with pytest.raises(LookupError):
            await las.open(path, encoding="no such")

    asyncio.run(main())


def test_closed_files_say_so(path: Path) -> None:
    """ValueError, as in io; a file that is forgotten is named."""

    async def main() -> None:
        file = await las.open(path, "r+b")
        await file.close()
        assert file.closed
        for use in (file.read, file.readline, lambda: file.write(b""), file.tell, lambda: file.seek(0), file.flush):
            with pytest.raises(ValueError, match="closed"):
                await use()
        with pytest.raises(ValueError, match="closed"):
            file.fileno()
        forgotten = await las.open(path)
        fd = forgotten.fileno()
        with pytest.warns(ResourceWarning, match="unclosed file <libaio_shim.asyncio.TextFile"):  # noqa: PT031
            del forgotten
            gc.collect()
        with raises_errno(errno.EBADF):
            os.fstat(fd)

    asyncio.run(main())


def test_descriptors_can_be_given(path: Path, fd: int) -> None:
    """closefd=False leaves the descriptor open."""

    async def main() -> None:
        async with las.open(fd, "rb", closefd=False) as file:
            assert await file.read(4) == b"AAAA"
        os.fstat(fd)
        own = os.open(path, os.O_RDONLY)
        async with las.open(own, "rb"):
            pass
        with raises_errno(errno.EBADF):
            os.fstat(own)

    asyncio.run(main())


def test_no_descriptor_is_lost_when_opening_fails_or_is_cancelled(path: Path) -> None:
    """Cancelled while the thread opens: the thread's descriptor is closed."""

    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def main() -> None:
        async with las.open(path):
            pass
        before = count()
        for _ in range(20):
            task = asyncio.ensure_future(las.open(path).__aenter__())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for _ in range(5):
            with pytest.raises(LookupError):
                await las.open(path, encoding="no such")
        while count() > before:
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_files_of_a_loop_share_a_context(path: Path) -> None:
    """One context for all, made when needed, gone after its loop; or the one that is given."""

    async def contexts() -> Any:
        async with las.open(path) as one, las.open(path, "rb") as two, las.AsyncContext(4) as own:
            assert one._context is two._context
            async with las.open(path, context=own) as three:
                assert three._context is own
                assert await three.read(1) == "A"
            await one.read(1)
            return one._context

    first = weakref.ref(asyncio.run(contexts()))
    second = asyncio.run(contexts())
    assert second is not first()
    gc.collect()
    assert first() is None


def test_a_file_may_outlive_its_loop(path: Path) -> None:
    """It takes its context along to the next one, also where that has files of its own."""

    async def opened() -> BinaryFile:
        return await las.open(path, "r+b")

    async def used(file: BinaryFile) -> None:
        async with las.open(path, "rb") as other:
            assert await other.read(4) == await file.read(4) == b"AAAA"

    file = asyncio.run(opened())
    asyncio.run(used(file))
    asyncio.run(file.close())


def test_threads_have_loops_and_files_of_their_own(path: Path) -> None:
    """Each new loop clears away what the former ones left, while others do the same."""

    async def work() -> bytes:
        async with las.open(path, "rb") as file:
            return await file.read(4)

    def loops(_: int) -> list[bytes]:
        return [asyncio.run(work()) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(loops, range(4))) == [[b"AAAA"] * 50] * 4


def test_closing_closes_without_a_thread(path: Path) -> None:
    """When the loop's threads have ended already."""

    async def main() -> int:
        file = await las.open(path, "r+b")
        fd = file.fileno()
        await asyncio.get_running_loop().shutdown_default_executor()
        await file.close()
        return fd

    with raises_errno(errno.EBADF):
        os.fstat(asyncio.run(main()))


def test_proc_files_can_be_read() -> None:
    """Files that say they are empty are read to their end."""

    async def main() -> None:
        async with las.open("/proc/self/status") as file:
            assert "Threads:" in await file.read()

    asyncio.run(main())


def test_all_is_written_where_a_thread_must_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it does so a few bytes at a time."""
    name = Path("/proc/self/comm").read_bytes()
    written: list[bytes] = []

    def reluctant(fd: int, data: memoryview, offset: int) -> int:
        written.append(bytes(data[:3]))
        return len(written[-1])

    async def main() -> None:
        async with las.open("/proc/self/comm", "r+b") as file:
            assert await file.write(name) == len(name)
            assert await file.tell() == len(name)

    monkeypatch.setattr(os, "pwrite", reluctant)
    asyncio.run(main())
    assert b"".join(written) == name


def test_long_transfers_give_turns(tmp_path: Path) -> None:
    """Others run between the pieces of a megabyte; what is appended is one piece."""
    size = 8 << 20

    async def main() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(others())
        data = os.urandom(size)
        buffer = bytearray(size + 1)
        async with las.open(tmp_path / "file", "w+b") as file:
            assert await file.write(data) == size
            assert turns >= 8
            await file.seek(0)
            turns = 0
            assert await file.readinto(buffer) == size
            assert turns >= 8
            assert buffer[:size] == data
        async with las.open(tmp_path / "file", "ab") as file:
            submitted = stats().submitted
            await file.write(data)
            assert stats().submitted == submitted + 1
        task.cancel()

    asyncio.run(main())
    assert (tmp_path / "file").stat().st_size == 2 * size


def test_large_files_are_read_in_pieces(tmp_path: Path) -> None:
    """Whole, by size, and across the pieces that one request reads."""
    content = os.urandom(5 * 1024 * 1024 + 17)
    path = tmp_path / "large"
    path.write_bytes(content)

    async def main() -> None:
        async with las.open(path, "rb") as file:
            assert await file.read() == content
            await file.seek(1)
            assert await file.read(3 << 20) == content[1 : 1 + (3 << 20)]
            assert await file.read(100 << 20) == content[1 + (3 << 20) :]

    asyncio.run(main())


def test_paths_off_the_loop(tmp_path: Path) -> None:
    """Names and directories."""

    async def main() -> None:
        await las.mkdir(tmp_path / "dir")
        (tmp_path / "dir" / "one").write_bytes(b"1")
        await las.rename(tmp_path / "dir" / "one", tmp_path / "dir" / "two")
        await las.replace(tmp_path / "dir" / "two", tmp_path / "dir" / "three")
        assert await las.listdir(tmp_path / "dir") == ["three"]
        assert (await las.stat(tmp_path / "dir" / "three")).st_size == 1
        await las.unlink(tmp_path / "dir" / "three")
        await las.rmdir(tmp_path / "dir")
        with pytest.raises(FileNotFoundError):
            await las.stat(tmp_path / "dir")

    asyncio.run(main())


def test_two_tasks_that_write_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """The position is taken when the write begins."""

    async def main() -> None:
        async with las.open(tmp_path / "log", "wb") as file:
            await asyncio.gather(*(file.write(bytes([65 + i]) * 1000) for i in range(20)))
        assert sorted((tmp_path / "log").read_bytes()) == sorted(b"".join(bytes([65 + i]) * 1000 for i in range(20)))

    asyncio.run(main())


def test_a_write_that_fails_leaves_the_position(path: Path) -> None:
    """What is no contiguous buffer, what the file does not take; what numpy cannot describe is written all the same."""
    numpy = pytest.importorskip("numpy", reason="numpy is not installed (pip install numpy)")

    async def main() -> None:
        async with las.open(path, "r+b") as file:
            with pytest.raises(BufferError):
                await file.write(memoryview(b"abcd")[::2])
            assert await file.tell() == 0
            assert await file.write(numpy.zeros(2, dtype="M8[s]")) == 16
            assert await file.pwrite(numpy.zeros(2, dtype="M8[s]"), 0) == 16
            assert await file.tell() == 16
        async with las.open("/dev/full", "wb") as full:
            with raises_errno(errno.ENOSPC):
                await full.write(b"x")
            assert await full.tell() == 0

    asyncio.run(main())


def test_a_cancelled_write_leaves_the_position_behind_what_was_written(stall: Stall) -> None:
    """Nothing, if it was taken back; all, if it ran."""

    async def main() -> None:
        async with las.AsyncContext(1) as ctx, las.open(stall.path, "r+b", context=ctx) as file:
            with stall.holding():
                runs = asyncio.ensure_future(file.write(b"runs"))
                await asyncio.sleep(0)
                queued = asyncio.ensure_future(file.write(b"queued"))
                await asyncio.sleep(0)
                assert ctx.waiting
                queued.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await queued
                assert await file.tell() == 4
                while not stall.held():
                    await asyncio.sleep(0.001)
                runs.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await runs
            assert await file.tell() == 4
            await file.write(b"more")
            assert await file.pread(12, 0) == b"runsmoreAAAA"

    asyncio.run(main())


def test_a_cancelled_write_leaves_the_byte_order_mark_to_the_next(stall: Stall, stalled_fd: int) -> None:
    """Nothing of the first is in the file, so the second is its beginning."""

    async def main() -> None:
        async with las.AsyncContext(1) as ctx, las.open(stall.path, "r+", encoding="utf-16", context=ctx) as file:
            with stall.holding():
                occupies = asyncio.ensure_future(ctx.read(stalled_fd, 1, 8 * BLOCK))
                await asyncio.sleep(0)
                queued = asyncio.ensure_future(file.write("queued"))
                await asyncio.sleep(0)
                queued.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await queued
            await occupies
            await file.write("next")
        assert stall.path.read_bytes().startswith("next".encode("utf-16"))

    asyncio.run(main())


class Three:
    """An integer that is no int, as numpy's."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("mode", ["r+", "r+b"])
def test_numbers_are_what_can_be_an_index(mode: str, path: Path) -> None:
    """Others are a TypeError before anything is read."""
    three: Any = Three()

    async def main() -> None:
        async with las.open(path, mode) as file:
            assert len(await file.read(three)) == len(await file.readline(three)) == 3
            await file.readlines(three)
            assert await file.seek(three) == await file.tell() == 3
            for method in (file.read, file.readline, file.readlines, file.seek, file.truncate):
                with pytest.raises(TypeError):
                    await method(2.5)
                assert await file.tell() == 3
            if mode == "r+b":
                assert len(await file.read1(three)) == 3
                with pytest.raises(ValueError, match="position"):
                    await file.seek(1 << 70)

    asyncio.run(main())


def test_what_was_read_ahead_is_forgotten_where_the_file_is_cut(tmp_path: Path) -> None:
    """Of what truncate cuts off nothing is returned, and without a size it cuts where reading has come to."""

    async def main() -> None:
        path = tmp_path / "file"
        for encoding in ("utf-8", "utf-16"):
            path.write_text("one\r\ntwo\r\nthree\r\n", encoding=encoding, newline="")
            size = len("one\r\n".encode(encoding))
            async with las.open(path, "r+", encoding=encoding) as file:
                assert await file.readline() == "one\n"
                assert await file.truncate(size) == size
                assert await file.read() == ""
                assert await file.write("2") == 1
            assert path.read_text(encoding) == "one\n2"
            path.write_text("one\r\ntwo\r\nthree\r\n", encoding=encoding, newline="")
            async with las.open(path, "r+", encoding=encoding) as file:
                assert await file.readline() == "one\n"
                assert await file.truncate() == size
                assert await file.tell() == size
            assert path.stat().st_size == size

    asyncio.run(main())


def test_what_is_written_goes_behind_what_was_read(tmp_path: Path) -> None:
    """Not behind what was read ahead; without another byte order mark; what follows can be read."""

    async def main() -> None:
        path = tmp_path / "file"
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"):
            path.write_text("åb\r\ncd\nef", encoding=encoding, newline="")
            async with las.open(path, "r+", encoding=encoding) as file:
                assert await file.readline() == "åb\n"
                await file.write("C")
                assert await file.read(2) == "d\n"
                await file.write("EF")
                assert await file.read() == ""
                await file.write("gh")
            assert path.read_text(encoding) == "åb\nCd\nEFgh"

    asyncio.run(main())


def test_a_place_that_the_file_lost_is_an_oserror(tmp_path: Path) -> None:
    """As the built-in file says it, for a place that is not just a position."""

    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(b"\xff\xff")
        async with las.open(path, errors="backslashreplace") as file:
            assert await file.read(2) == "\\x"
            place = await file.tell()
            os.truncate(path, 0)
            with pytest.raises(OSError, match="logical file position"):
                await file.seek(place)

    asyncio.run(main())


def test_files_tell_what_they_are(tmp_path: Path) -> None:
    """name, mode, closed, fileno, seekable, isatty... as the built-in file does."""

    async def main() -> None:
        path = tmp_path / "file"
        for mode in ("w", "wb", "r+", "rb", "a"):
            async with las.open(path, mode) as file:
                with path.open(mode) as model:
                    assert (file.name, file.mode, file.closed) == (model.name, mode, False)
                    for question in ("readable", "writable", "seekable", "isatty"):
                        assert getattr(file, question)() == getattr(model, question)()
            assert file.closed
            for question in ("readable", "writable", "seekable", "isatty", "fileno"):
                with pytest.raises(ValueError, match="closed"):
                    getattr(file, question)()
        with pytest.raises(io.UnsupportedOperation):
            file.detach()
        path.write_bytes(b"a\r\nb\n")
        async with las.open(path) as text:
            assert text.newlines is None
            await text.read()
            assert text.newlines == ("\n", "\r\n")
        async with las.open(path, newline="\n") as text:
            await text.read()
            assert text.newlines is None
        terminal, other = os.openpty()
        async with las.open(terminal, "r+b") as tty, las.open(other, "r+b"):
            assert tty.isatty()
            assert not tty.seekable()

    asyncio.run(main())


def test_a_piece_is_read_with_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """read1, readinto1, peek, readall."""
    monkeypatch.setattr(_binary, "BLOCK_BYTES", 6)

    async def main() -> None:
        (tmp_path / "file").write_bytes(b"ab\ncdefghi")
        async with las.open(tmp_path / "file", "rb") as file:
            assert await file.peek() == b"ab\ncde"
            assert await file.tell() == 0
            assert await file.readline() == b"ab\n"
            assert await file.read1(2) == b"cd"
            assert await file.read1() == b"e"
            assert await file.read1(0) == b""
            buffer = bytearray(2)
            assert await file.readinto1(buffer) == 2
            assert buffer == b"fg"
            assert await file.readall() == b"hi"
            assert await file.read1() == await file.peek() == b""

    asyncio.run(main())


def test_arguments_of_open_are_the_built_in_ones(tmp_path: Path) -> None:
    """buffering, closefd, opener, by name and by position; what makes no sense is refused the same way."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    directory = os.open(tmp_path, os.O_RDONLY)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, dir_fd=directory)

    async def main() -> None:
        async with las.open("file", "rb", opener=opener) as file:
            assert await file.read() == b"content"
            assert not os.get_inheritable(file.fileno())
        for buffering in (-1, 0, 1, 100):
            async with las.open(path, "rb", buffering) as file:
                assert await file.read() == b"content"
        async with las.open(path, "r", 1, "locale", "strict", "\n") as text:
            assert await text.read() == "content"
        with pytest.raises(ValueError, match="unbuffered text"):
            las.open(path, "r", 0)
        with pytest.raises(ValueError, match="buffering"):
            las.open(path, "rb", -2)
        with pytest.raises(ValueError, match="closefd"):
            las.open(path, closefd=False)
        with pytest.raises(ValueError, match="negative"):
            las.open(-1)
        with pytest.raises(ValueError, match="opener returned -1"):
            await las.open(path, opener=lambda name, flags: -1)
        for where in (tmp_path, directory):
            with pytest.raises(IsADirectoryError):
                await las.open(where)
        os.fstat(directory)

    asyncio.run(main())
    os.close(directory)


def test_a_descriptor_is_read_from_its_offset(path: Path, fd: int) -> None:
    """As the built-in open does."""

    async def main() -> None:
        os.lseek(fd, BLOCK, os.SEEK_SET)
        async with las.open(fd, "rb", closefd=False) as file:
            assert await file.tell() == BLOCK
            assert await file.read(4) == b"BBBB"
            assert await file.seek(0, os.SEEK_HOLE) == os.fstat(fd).st_size
        async with las.open(fd, closefd=False) as text:
            assert await text.read(2) == Path(path).read_text()[BLOCK:][:2]

    asyncio.run(main())


def test_trio_opens_files(path: Path) -> None:
    """The same on trio, several runs one after the other."""
    trio = pytest.importorskip("trio", reason="trio is not installed (pip install trio)")

    async def main() -> None:
        async with las.open(path) as file, las.open(path, "rb") as other:
            assert await file.read(3) == "AAA"
            assert file._context is other._context
            assert (await las.stat(path)).st_size == 16 * BLOCK

    for _ in range(2):
        trio.run(main)


def test_trio_closes_the_files_of_cancelled_tasks(path: Path) -> None:
    """A cancelled task gets no thread from trio: the descriptor is closed all the same, then the task ends."""
    trio = pytest.importorskip("trio", reason="trio is not installed (pip install trio)")

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with las.open(path, "r+b") as file:
                fd = file.fileno()
                scope.cancel()
        with raises_errno(errno.EBADF):
            os.fstat(fd)
        with trio.CancelScope() as scope:
            file = await las.open(path, "r+b")
            scope.cancel()
            await file.close()
        assert scope.cancelled_caught

    trio.run(main)


newlines = st.sampled_from([None, "", "\n", "\r", "\r\n"])
encodings = st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1", "utf-32-le"])
reading = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 12)),
        st.tuples(st.just("readline"), st.integers(-1, 12)),
        st.tuples(st.just("remember"), st.just(0)),
        st.tuples(st.just("return"), st.just(0)),
        st.tuples(st.just("seek"), st.just(0)),
    ),
    max_size=12,
)


text = st.text(st.sampled_from("ab\r\nå€"), max_size=40)


@settings(max_examples=300, deadline=None)
@given(text, newlines, encodings, reading, st.integers(1, 9))
def test_text_reads_as_io_does(content: str, newline: str | None, encoding: str, steps: list[Any], block: int) -> None:
    """Any sequence of read, readline, tell and seek gives what the built-in file gives, wherever blocks end."""
    if encoding == "latin-1":
        content = content.replace("€", "e")

    async def main(path: Path) -> None:
        with path.open(encoding=encoding, newline=newline) as model:
            async with las.open(path, encoding=encoding, newline=newline) as file:
                remembered = (0, 0)
                for name, argument in steps:
                    if name in ("read", "readline"):
                        expected = getattr(model, name)(argument)
                        assert await getattr(file, name)(argument) == expected
                    elif name == "remember":
                        remembered = (model.tell(), await file.tell())
                    elif name == "return":
                        model.seek(remembered[0])
                        assert await file.seek(remembered[1]) == remembered[1]
                    else:
                        model.seek(0)
                        await file.seek(0)
                assert await file.read() == model.read()

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_text, "BLOCK_BYTES", block)
        path = Path(directory, "file")
        path.write_bytes(content.encode(encoding))
        asyncio.run(main(path))


@settings(max_examples=150, deadline=None)
@given(st.lists(text, max_size=5), newlines, encodings, st.sampled_from(["w", "a", "r+"]))
def test_text_writes_as_io_does(parts: list[str], newline: str | None, encoding: str, mode: str) -> None:
    """The bytes in the file are those that the built-in file writes: newlines, byte order marks."""
    if encoding == "latin-1":
        parts = [part.replace("€", "e") for part in parts]

    async def main(path: Path) -> None:
        async with las.open(path, mode, encoding=encoding, newline=newline) as file:
            for part in parts:
                assert await file.write(part) == len(part)

    with tempfile.TemporaryDirectory() as directory:
        path, model = Path(directory, "file"), Path(directory, "model")
        for each in (path, model):
            each.write_bytes("före".encode(encoding))
        with model.open(mode, encoding=encoding, newline=newline) as file:
            for part in parts:
                file.write(part)
        asyncio.run(main(path))
        assert path.read_bytes() == model.read_bytes()


binary_steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 20)),
        st.tuples(st.just("read"), st.none()),
        st.tuples(st.just("readall"), st.none()),
        st.tuples(st.just("readline"), st.integers(-1, 20)),
        st.tuples(st.just("readlines"), st.integers(-1, 20)),
        st.tuples(st.just("next"), st.none()),
        st.tuples(st.just("peek"), st.none()),
        st.tuples(st.just("seek"), st.integers(-1, 60)),
        st.tuples(st.just("end"), st.integers(-9, 9)),
        st.tuples(st.just("around"), st.integers(-9, 9)),
        st.tuples(st.just("write"), st.binary(max_size=8)),
        st.tuples(st.just("writelines"), st.lists(st.binary(max_size=4), max_size=3)),
        st.tuples(st.just("truncate"), st.one_of(st.none(), st.integers(-1, 60))),
        st.tuples(st.just("tell"), st.none()),
        st.tuples(st.just("readinto"), st.integers(0, 9)),
    ),
    max_size=15,
)


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returned, or the kind of OSError."""
    try:
        return function(*arguments)
    except OSError as error:
        return type(error), error.errno


async def outcome_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """The same of a call that is awaited."""
    try:
        return await function(*arguments)
    except OSError as error:
        return type(error), error.errno


def lines_of(model: Any, hint: int) -> list[str]:
    """As its readlines(hint), which takes the built-in text file its ability to tell."""
    lines: list[str] = []
    while (hint <= 0 or sum(map(len, lines)) <= hint) and (line := model.readline()):
        lines.append(line)
    return lines


async def next_line(file: Any) -> Any:
    """The next line by iteration, None at the end."""
    async for line in file:
        return line
    return None


@settings(max_examples=300, deadline=None)
@given(st.text("ab\n", max_size=50), binary_steps, st.sampled_from(["r+b", "a+b", "w+b"]), st.integers(1, 9))
def test_binary_files_do_as_io_does(content: str, steps: list[Any], mode: str, block: int) -> None:
    """Any sequence of operations gives what the built-in file gives, and leaves the same bytes."""

    async def main(path: Path, model_path: Path) -> None:
        with model_path.open(mode) as model:
            async with las.open(path, mode) as file:
                for name, argument in steps:
                    if name == "readinto":
                        expected_buffer, buffer = bytearray(argument), bytearray(argument)
                        assert await file.readinto(buffer) == model.readinto(expected_buffer)  # type: ignore[attr-defined]
                        assert buffer == expected_buffer
                    elif name == "peek":
                        data = await file.peek()
                        assert model.peek()[: len(data)] == data  # type: ignore[attr-defined]
                        assert bool(model.peek()) == bool(data)  # type: ignore[attr-defined]
                    elif name == "next":
                        assert await next_line(file) == next(model, None)
                    elif name in ("end", "around"):
                        arguments = (argument, os.SEEK_END if name == "end" else os.SEEK_CUR)
                        assert await outcome_of(file.seek, *arguments) == outcome(model.seek, *arguments)
                    elif name == "readall":
                        assert await file.readall() == model.read()
                    else:
                        given = () if argument is None else (argument,)
                        expected = outcome(getattr(model, name), *given)
                        assert await outcome_of(getattr(file, name), *given) == expected, name
                    model.flush()
                    assert await file.tell() == model.tell(), name

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_binary, "BLOCK_BYTES", block)
        path, model_path = Path(directory, "file"), Path(directory, "model")
        for each in (path, model_path):
            each.write_text(content)
        asyncio.run(main(path, model_path))
        assert path.read_bytes() == model_path.read_bytes()


text_steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 12)),
        # Even for a line of no characters the built-in file reads the byte order mark; we do not.
        st.tuples(st.just("readline"), st.integers(-1, 12).filter(bool)),
        st.tuples(st.just("readlines"), st.integers(-1, 20)),
        st.tuples(st.just("next"), st.none()),
        st.tuples(st.just("write"), st.text(st.sampled_from("ab\r\nå€"), min_size=1, max_size=6)),
        st.tuples(st.just("writelines"), st.lists(st.sampled_from(["a\n", "å", "\r\n"]), min_size=1, max_size=3)),
        st.tuples(st.just("remember"), st.none()),
        st.tuples(st.just("return"), st.none()),
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("end"), st.none()),
        st.tuples(st.just("past the end"), st.integers(0, 9)),
        st.tuples(st.just("truncate"), st.none()),
        st.tuples(st.just("cut"), st.integers(0, 40)),
    ),
    max_size=12,
)


@settings(max_examples=500, deadline=None)
@given(
    text,
    text_steps,
    newlines,
    encodings,
    st.sampled_from(["strict", "replace", "ignore", "surrogateescape"]),
    st.sampled_from(["r+", "a+", "w+"]),
    st.integers(1, 9),
)
def test_text_files_do_as_io_does(
    content: str, steps: list[Any], newline: str | None, encoding: str, errors: str, mode: str, block: int
) -> None:
    """Any sequence of reads and writes gives what the built-in file gives that is told its position in between.

    (Without that, the built-in one writes, and cuts, behind what it has read ahead, and returns what was cut off.)
    """

    async def main(path: Path, model_path: Path) -> None:
        given: Any = {"encoding": encoding, "errors": errors, "newline": newline}
        with model_path.open(mode, **given) as model:
            async with las.open(path, mode, **given) as file:
                remembered = (0, 0)
                width = len("a".encode(encoding.replace("utf-16", "utf-16-le").replace("-sig", "")))
                for name, argument in steps:
                    if argument and encoding == "latin-1" and name in ("write", "writelines"):
                        argument = [each.replace("€", "e") for each in argument]
                        argument = "".join(argument) if name == "write" else argument
                    try:
                        model.seek(model.tell())
                        if model.tell() >> 64 and name in ("write", "writelines", "truncate", "cut"):
                            return  # in the middle of what only became characters together: io writes behind all of it
                        if name in ("remember", "return"):
                            if name == "remember":
                                remembered = (model.tell(), await file.tell())
                            else:
                                model.seek(remembered[0])
                                await file.seek(remembered[1])
                        elif name in ("begin", "end", "past the end"):
                            if name == "past the end":
                                size = model.seek(0, os.SEEK_END) + width * argument
                                assert await file.seek(0, os.SEEK_END) + width * argument == size
                                assert await file.seek(size) == model.seek(size)
                            else:
                                whence = os.SEEK_END if name == "end" else os.SEEK_SET
                                assert await file.seek(0, whence) == model.seek(0, whence)
                        elif name == "next":
                            assert (await next_line(file) or "") == model.readline()
                        elif name == "readlines":
                            assert await file.readlines(argument) == lines_of(model, argument)
                        elif name == "cut":
                            # Not within a mark: what is left of one is never a character.
                            size = max(argument * width, 3 if encoding == "utf-8-sig" else 0)
                            assert await file.truncate(size) == model.truncate(size)
                        else:
                            arguments = () if argument is None else (argument,)
                            expected = getattr(model, name)(*arguments)
                            assert await getattr(file, name)(*arguments) == expected, name
                    except (UnicodeError, OSError):
                        return  # where each is then is not told
                    model.flush()
                    assert path.read_bytes() == model_path.read_bytes(), name

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_text, "BLOCK_BYTES", block)
        path, model_path = Path(directory, "file"), Path(directory, "model")
        for each in (path, model_path):
            each.write_bytes(content.encode(encoding, "replace"))
        asyncio.run(main(path, model_path))
        assert path.read_bytes() == model_path.read_bytes()
