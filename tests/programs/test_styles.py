"""Small programs in the style of real AIO users (styles/), through libaio and through plain system calls.

They include nothing of the shim.  Each verifies all data that it reads and prints "ok N" for N requests.
"""

from __future__ import annotations

from pathlib import Path

import needs
import pytest
import sides
from table import tried

from libaio_shim.bench import places

STYLES = {
    "nginx": "one eventfd, edge-triggered epoll, reaps in portions",
    "seastar": "reads two words at ctx+8 before it calls; O_DIRECT with RWF_NOWAIT",
    "spdk": "reads the ring only, never calls io_getevents",
    "tgt": "waits for exactly the eventfd's count; one array used over and over",
    "deepspeed": "submits iocbs again that are in flight",
    "qemu": "ring and eventfd, nested processing, pointers into the ring kept",
    "mariadb": "set up by libaio, reaped by syscall(), destroyed under the reaper",
    "glusterfs": "O_DIRECT switched around each submit; takes 0 for the end",
    "multipath": "descriptor closed in flight, cancelled, context destroyed",
    "stack": "iocb and iovec on the stack, several reapers",
}
RAW_ONLY = {"mariadb"}  # even its libaio variant makes raw calls


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """All programs, compiled both ways."""
    needs.program("cc", "gcc")
    directory = tmp_path_factory.mktemp("styles")
    found = {}
    for name in STYLES:
        for how in ("libaio", "raw"):
            source = sides.ROOT / "tests" / "programs" / "styles" / f"{name}.c"
            output = directory / f"{name}-{how}"
            found[name, how] = sides.compile_style(source, output, raw=how == "raw", libaio=name in RAW_ONLY)
    return found


@pytest.fixture
def data(place: Path) -> Path:
    """16 MiB of blocks that begin with their offsets."""
    path = place / "data"
    places.write_stamped(path, 16 << 20)
    return path


def needs_interposer(side: sides.Side, style: str, how: str) -> None:
    """Raw calls reach the shim only through its replacement of syscall()."""
    if side.launcher and (how == "raw" or style in RAW_ONLY):
        library = side.launcher.parent.parent / "lib" / "libaio_syscall.so"
        if not library.exists():
            pytest.skip("n/a: raw system calls reach the shim only with libaio_syscall.so, which is not built")


@pytest.mark.parametrize("how", ["libaio", "raw"])
@pytest.mark.parametrize("place", ["ext4"], indirect=True)
def test_the_shim_answers(shim: sides.Side, binaries: dict[tuple[str, str], Path], data: Path, how: str) -> None:
    """The shim counts the requests of a program."""
    needs_interposer(shim, "tgt", how)
    ran = shim.run([binaries["tgt", how], data], own=True).check()
    assert [line["submitted"] for line in ran.stats] == [20000]


@pytest.mark.parametrize("how", ["libaio", "raw"])
@pytest.mark.parametrize("place", ["ext4"], indirect=True)
def test_no_aio_system_call_is_made(
    shim_without_kernel_aio: sides.Side, binaries: dict[tuple[str, str], Path], data: Path, how: str
) -> None:
    """Neither by the library's functions nor by syscall()."""
    needs.program("strace")
    needs_interposer(shim_without_kernel_aio, "tgt", how)
    ran, calls = sides.aio_system_calls(shim_without_kernel_aio, [binaries["tgt", how], data])
    ran.check()
    assert calls == []


@pytest.mark.parametrize(
    ("place", "mode"),
    [("ext4", []), ("ext4", ["direct"]), ("tmpfs", [])],
    ids=["buffered", "direct", "tmpfs"],
    indirect=["place"],
)
@pytest.mark.parametrize("how", ["libaio", "raw"])
@pytest.mark.parametrize(
    "style",
    [
        pytest.param(name, marks=tried(f"in {name}'s style", f"tests/programs/styles/{name}.c", exercises))
        for name, exercises in STYLES.items()
    ],
)
def test_style(
    side: sides.Side,
    binaries: dict[tuple[str, str], Path],
    data: Path,
    style: str,
    how: str,
    mode: list[str],
) -> None:
    """Everything that it submitted came back, with the right data."""
    needs_interposer(side, style, how)
    ran = side.run([binaries[style, how], data, *mode], own=True).check()
    assert ran.stdout.startswith("ok ")
    if side.is_shim:
        assert len(ran.stats) == 1
