"""What the tests of real programs share: the two sides to run them on, places for files, and the table of programs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filesystems
import needs
import pytest
import sides
import table

HERE = Path(__file__).resolve().parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--programs-table",
        type=Path,
        metavar="FILE",
        help="write the table of programs that were tried, with their results (docs/programs.md)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tried(program, command, exercises, version): a line of the table of programs")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    words = table.words(item)
    if words:
        report.user_properties.append(("tried", words))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the process that shows the results, also where others run the tests (pytest-xdist)."""
    if report.when == "call" or report.outcome == "failed":
        for name, words in report.user_properties:
            if name == "tried":
                table.add_outcome(words, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Without a default this would fail where pytest saw this file too late for its option.
    path = session.config.getoption("--programs-table", None)
    if path and not hasattr(session.config, "workerinput"):
        path.write_text(table.render())


@pytest.fixture(scope="session")
def kernel(build_dir: Path) -> sides.Side:
    """The kernel's AIO through the system's libaio."""
    side = sides.Side("kernel", None, {})
    if not sides.kernel_has_aio():
        pytest.skip("the kernel has no AIO, or a sandbox forbids it")
    return side


@pytest.fixture(scope="session")
def shim(build_dir: Path) -> sides.Side:
    """The shim, preloaded by its launcher, with all lanes."""
    return sides.Side("shim", build_dir / "bin" / "libaio-shim", {})


@pytest.fixture(scope="session")
def shim_without_kernel_aio(build_dir: Path) -> sides.Side:
    """The shim with the lanes that use no AIO of the kernel's."""
    return sides.Side("shim, head and crew", build_dir / "bin" / "libaio-shim", {"LIBAIO_SHIM_LANES": "head,crew"})


@pytest.fixture(params=["kernel", "shim", "shim_without_kernel_aio"])
def side(request: pytest.FixtureRequest) -> sides.Side:
    """Each of them in turn."""
    chosen: sides.Side = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[filesystems.Mounts]:
    with filesystems.mounted(tmp_path_factory.mktemp("mounts"), lambda: None) as made:
        yield made


@pytest.fixture(scope="session")
def refuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that runs another one as if the kernel had no AIO, or no io_uring (refuse.c)."""
    output = tmp_path_factory.mktemp("refuse") / "refuse"
    compiler = [needs.program("cc", "gcc"), *sides.CFLAGS]
    subprocess.run([*compiler, HERE / "refuse.c", "-o", output], check=True)
    if subprocess.run([output, "aio", "ENOSYS", "true"], check=False).returncode == 77:
        pytest.skip("n/a: no seccomp filters here")
    return output


@pytest.fixture
def ext4(mounts: filesystems.Mounts, tmp_path: Path) -> Iterator[Path]:
    """An empty directory on ext4."""
    yield from sides.fresh_directory(mounts, "ext4")


@pytest.fixture
def tmpfs(mounts: filesystems.Mounts) -> Iterator[Path]:
    """An empty directory on a tmpfs."""
    yield from sides.fresh_directory(mounts, "tmpfs")


@pytest.fixture
def device(tmpfs: Path) -> Iterator[str]:
    """A loop device of 64 MiB over a file in memory."""
    image = tmpfs / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True)
    name = done.stdout.strip()
    yield name
    subprocess.run(["losetup", "--detach", name], check=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Path:
    """The directory that the parameter names."""
    chosen: Path = request.getfixturevalue(request.param)
    return chosen
