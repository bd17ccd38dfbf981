"""`libaio_shim.asyncio.open`: files as people know them, beside the built-in ones."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import BLOCK, raises_errno
from hypothesis import given, settings
from hypothesis import strategies as st

import libaio_shim.asyncio as las
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
            las.open(path, "rb", encoding="utf-8")  # type: ignore[call-overload]
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

    first, second = asyncio.run(contexts()), asyncio.run(contexts())
    assert first is not second
    assert first.closed


def test_proc_files_can_be_read() -> None:
    """Files that say they are empty are read to their end."""

    async def main() -> None:
        async with las.open("/proc/self/status") as file:
            assert "Threads:" in await file.read()

    asyncio.run(main())


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
        st.tuples(st.just("readline"), st.integers(-1, 20)),
        st.tuples(st.just("seek"), st.integers(0, 60)),
        st.tuples(st.just("write"), st.binary(max_size=8)),
        st.tuples(st.just("truncate"), st.integers(0, 60)),
        st.tuples(st.just("tell"), st.none()),
        st.tuples(st.just("readinto"), st.integers(0, 9)),
    ),
    max_size=15,
)


@settings(max_examples=200, deadline=None)
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
                        continue
                    arguments = () if argument is None else (argument,)
                    result = await getattr(file, name)(*arguments)
                    assert result == getattr(model, name)(*arguments), name
                    model.flush()

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_binary, "BLOCK_BYTES", block)
        path, model_path = Path(directory, "file"), Path(directory, "model")
        for each in (path, model_path):
            each.write_text(content)
        asyncio.run(main(path, model_path))
        assert path.read_bytes() == model_path.read_bytes()
