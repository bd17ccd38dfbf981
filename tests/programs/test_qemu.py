"""QEMU's tools with native AIO: QEMU reads the ring, keeps pointers into it during callbacks, and moves head itself."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

DIRECT = "file.aio=native,file.cache.direct=on"
EXERCISES = "the ring read without a call, eventfd, fdsync"
VERSION = version("qemu-img", "--version")
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def qemu() -> None:
    needs.program("qemu-img", "qemu-utils")


@pytest.fixture
def image(ext4: Path) -> Path:
    """A raw image of 32 MiB whose every 4 KiB are different."""
    path = ext4 / "image.raw"
    path.write_bytes(b"".join(hashlib.sha256(b"%d" % block).digest() * 128 for block in range(8192)))
    return path


def bench(*arguments: str) -> list[str]:
    return ["qemu-img", "bench", "-n", "-t", "none", "-f", "raw", *arguments]


def test_the_shim_answers(shim: sides.Side, image: Path) -> None:
    """The line that only the shim writes counts the requests of qemu-img bench."""
    ran = shim.run(bench("-c", "500", "-d", "8", str(image))).check()
    # A few more than asked for: QEMU's probe of the alignment.
    assert [line["submitted"] >= 500 for line in ran.stats] == [True]


def test_the_program_makes_no_aio_system_call(shim_without_kernel_aio: sides.Side, image: Path) -> None:
    needs.program("strace")
    ran, calls = sides.aio_system_calls(shim_without_kernel_aio, bench("-c", "500", "-d", "8", str(image)))
    ran.check()
    assert calls == []


@tried("qemu-img", "qemu-img bench -n -t none -d DEPTH -s SIZE", EXERCISES, version=VERSION)
@pytest.mark.parametrize("size", [512, 4096, 65536, MIB])
@pytest.mark.parametrize("depth", [1, 8, 64, 512])
def test_bench_reads(side: sides.Side, image: Path, depth: int, size: int) -> None:
    """Reads in all depths and sizes come to an end, without an error."""
    count = min(4000, 128 * MIB // size)
    ran = side.run(bench("-c", str(count), "-d", str(depth), "-s", str(size), str(image))).check()
    assert "Run completed" in ran.stdout
    assert ran.stderr == ""


@tried("qemu-img", "qemu-img bench -n -t none -w --flush-interval N", EXERCISES, version=VERSION)
@pytest.mark.parametrize("flush", [[], ["--flush-interval=16"], ["--flush-interval=8", "--no-drain"]])
def test_bench_writes(side: sides.Side, image: Path, flush: list[str]) -> None:
    """Writes with a pattern leave that pattern, with and without flushes among them."""
    ran = side.run(
        bench("-w", "--pattern=0x5a", "-c", "512", "-d", "8", "-s", "65536", *(flush or ["-S", "65536"]), str(image))
    ).check()
    assert "Run completed" in ran.stdout
    assert image.read_bytes() == b"\x5a" * (32 * MIB)


def without_timing(text: str) -> list[str]:
    """qemu-io's lines less the speed, in a fixed order: asynchronous requests may end in any."""
    return sorted(line for line in text.splitlines() if not re.search(r"ops; ", line))


COMMANDS = (
    [f"aio_write -P {block % 250 + 1} {block * 64}k 64k" for block in range(64)]
    + ["aio_flush"]
    + [f"aio_read -P {block % 250 + 1} {block * 64}k 64k" for block in range(64)]
    + ["aio_flush", "writev -P 7 1M 4k 8k 16k", "readv -P 7 1M 4k 8k 16k", "write -P 9 3k 1k", "read -P 9 3k 1k"]
    + ["flush", "length"]
)


@tried("qemu-io", "qemu-io -n -t none -c aio_write -c aio_read ...", "patterns verified by qemu-io", version=VERSION)
def test_io_finds_its_patterns(side: sides.Side, image: Path) -> None:
    """What was written asynchronously is read back; qemu-io verifies and fails otherwise."""
    words = [word for command in COMMANDS for word in ("-c", command)]
    ran = side.run(["qemu-io", "-n", "-t", "none", "-f", "raw", *words, image]).check()
    assert "failed" not in ran.stdout
    assert len(re.findall(r"^wrote 65536/65536", ran.stdout, re.MULTILINE)) == 64
    assert len(re.findall(r"^read 65536/65536", ran.stdout, re.MULTILINE)) == 64


def test_io_says_the_same_on_both_sides(kernel: sides.Side, shim: sides.Side, image: Path) -> None:
    """Also where it complains: a wrong pattern, and a read past the end."""
    words = [word for command in [*COMMANDS, "read -P 1 0 4k", "read -P 99 0 4k", "read 40M 4k"] for word in
             ("-c", command)]  # fmt: skip
    original = image.read_bytes()
    said = []
    for one in (kernel, shim):
        image.write_bytes(original)
        ran = one.run(["qemu-io", "-n", "-t", "none", "-f", "raw", *words, image])
        said.append((ran.status, without_timing(ran.stdout), hashlib.sha256(image.read_bytes()).hexdigest()))
    assert said[0] == said[1]
    assert said[0][0] == 1


@tried("qemu-img", "qemu-img convert, compare, check (aio=native)", "qcow2 on native AIO", version=VERSION)
def test_convert_there_and_back(side: sides.Side, image: Path) -> None:
    """raw to qcow2 and back with native AIO on both ends, compared by qemu-img and by checksum."""
    raw = f"driver=raw,file.driver=file,file.filename={image},{DIRECT}"
    qcow2 = f"driver=qcow2,file.driver=file,file.filename={image.parent / 'image.qcow2'},{DIRECT}"
    back = image.parent / "back.raw"
    side.run(["qemu-img", "create", "-f", "qcow2", image.parent / "image.qcow2", "32M"]).check()
    side.run(["qemu-img", "convert", "-n", "-W", "--image-opts", "--target-image-opts", raw, qcow2]).check()
    assert "identical" in side.run(["qemu-img", "compare", "--image-opts", raw, qcow2]).check().stdout
    side.run(["qemu-img", "check", "--image-opts", qcow2]).check()
    back.write_bytes(b"")
    side.run(["qemu-img", "convert", "-T", "none", "-t", "none", "-O", "raw", "--image-opts", qcow2, back]).check()
    assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(image.read_bytes()).digest()


@tried("qemu-img", "qemu-img convert -W -m 16, commit, rebase, bitmap (aio=native)", "out of order, 16 coroutines",
       version=VERSION)  # fmt: skip
def test_chain_of_images(side: sides.Side, kernel: sides.Side, image: Path) -> None:
    """An overlay that is rebased onto another base and committed to it, with what qemu-io wrote to it."""
    here = image.parent

    def native(name: str) -> str:
        return f"driver=qcow2,file.driver=file,file.filename={here / name},{DIRECT}"

    raw = f"driver=raw,file.driver=file,file.filename={image},{DIRECT}"
    for name in ("one", "two"):
        side.run(["qemu-img", "create", "-f", "qcow2", here / name, "32M"]).check()
        side.run(
            ["qemu-img", "convert", "-n", "-W", "-m", "16", "--image-opts", "--target-image-opts", raw, native(name)]
        ).check()
    side.run(["qemu-io", "-c", "write -P 3 0 1M", "--image-opts", native("two")]).check()
    side.run(["qemu-img", "create", "-f", "qcow2", "-b", here / "one", "-F", "qcow2", here / "overlay"]).check()
    writes = [word for block in range(64) for word in ("-c", f"aio_write -P {block + 1} {block * 500}k 60k")]
    side.run(["qemu-io", *writes, "-c", "aio_flush", "--image-opts", native("overlay")]).check()
    side.run(["qemu-img", "bitmap", "--add", "--enable", "--image-opts", native("overlay"), "dirty"]).check()
    expected = here / "expected"
    kernel.run(["qemu-img", "convert", "-O", "raw", here / "overlay", expected]).check()
    side.run(
        ["qemu-img", "rebase", "--image-opts", "-t", "none", "-T", "none", "-b", here / "two", "-F", "qcow2",
         native("overlay")]
    ).check()  # fmt: skip
    ran = side.run(["qemu-img", "commit", "-t", "none", "--image-opts", native("overlay")]).check()
    assert (sum(line["submitted"] for line in ran.stats) > 0) == side.is_shim
    side.run(["qemu-img", "check", "--image-opts", native("two")]).check()
    assert "identical" in kernel.run(["qemu-img", "compare", here / "two", expected]).check().stdout


@contextmanager
def served(side: sides.Side, image: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """qemu-nbd on native AIO: the image's URI and the server."""
    needs.program("qemu-nbd", "qemu-utils")
    socket = image.parent / "socket"
    server = side.start(["qemu-nbd", "--aio=native", "--cache=none", "-f", "raw", "-t", "-e", "4", "-k", socket, image])
    try:
        sides.wait_until(lambda: sides.listens(socket) or server.poll() is not None)
        assert server.poll() is None, server.communicate()[1]
        yield f"nbd+unix:///?socket={socket}", server
    finally:
        server.terminate()
        server.communicate()


@tried("qemu-nbd", "qemu-nbd --aio=native --cache=none", "a long-running server, several clients", version=VERSION)
def test_nbd_serves_what_is_in_the_image(side: sides.Side, kernel: sides.Side, image: Path) -> None:
    """A client (without the shim) writes and reads; the image has it at the end."""
    with served(side, image) as (uri, server):
        copy = image.parent / "copy.raw"
        kernel.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri, copy]).check()
        assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(image.read_bytes()).digest()
        words = [word for command in COMMANDS for word in ("-c", command)]
        ran = kernel.run(["qemu-io", "-f", "raw", *words, uri]).check()
        assert "failed" not in ran.stdout
        assert ("/libaio_shim.so.0" in sides.maps(server.pid)) == side.is_shim
    assert image.read_bytes()[: 64 << 10] == b"\x01" * 3072 + b"\x09" * 1024 + b"\x01" * (60 << 10)


def descriptors(pid: int) -> list[str]:
    """What the descriptors of a process refer to, without names of its own."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(entry.readlink()).split(":")[0])
        except FileNotFoundError:
            continue
    return sorted(links)


def test_an_idle_server_owns_no_descriptor_of_the_shim(kernel: sides.Side, shim: sides.Side, image: Path) -> None:
    """After a client has been served and left, the same descriptors are open on both sides."""
    client = ["qemu-io", "-f", "raw", "-c", "aio_write 0 1M", "-c", "aio_read 0 1M"]
    with served(kernel, image) as (uri, server):
        kernel.run([*client, uri]).check()
        # The socket that it listens on stays, the client's goes a moment after the client.
        sides.wait_until(lambda: descriptors(server.pid).count("socket") == 1)
        expected = descriptors(server.pid)
    with served(shim, image) as (uri, server):
        kernel.run([*client, uri]).check()
        # What the shim needs while requests are in flight it may keep for a moment.
        sides.wait_until(lambda: descriptors(server.pid) == expected)
