"""Puts the shim's libraries, headers and launcher into the package; all else is in pyproject.toml.

The libraries are built by the Makefile, the same way as by `make build`, and laid out as there:
libaio_shim/lib beside libaio_shim/bin.  No extension module is compiled, hence one wheel for every Python 3.
An editable install adds nothing: it uses the libraries of `make build`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

ROOT = Path(__file__).parent.resolve()
# `build/lib`, setuptools' own choice, is where the Makefile puts its libraries.
BUILD_BASE = Path("build", "package")

# Everything that is there, links followed: a wheel has none.
PACKAGED = ("bin", "include", "lib", "lib/pkgconfig")


class BuildWithLibraries(build_py):
    """build_py, and the Makefile's products beside the modules."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # what a former version left must not be packaged
        super().run()
        if not self.editable_mode:
            self.add_libraries()

    def add_libraries(self) -> None:
        # For make without the root before it, which may have a space.
        relative = BUILD_BASE / "native"
        native = ROOT / relative
        for directory in PACKAGED:
            shutil.rmtree(native / directory, ignore_errors=True)  # the same, and make builds it anew
        try:
            subprocess.run(["make", "-C", str(ROOT), "build", f"BUILD={relative}"], check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            # Without the traceback that hides what the compiler said.
            raise CompileError(f"`make build` failed, which needs make and a C compiler: {error}") from None
        package = Path(self.build_lib, "libaio_shim")
        for directory in PACKAGED:
            (package / directory).mkdir(parents=True)
            for file in sorted((native / directory).iterdir()):
                if file.is_file():
                    shutil.copy2(file, package / directory / file.name)


class PlatformWheel(bdist_wheel):
    """A wheel for every Python 3 of this platform: py3-none-PLATFORM."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        """Has compiled parts, so that they go to platlib."""
        return True


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildWithLibraries, "bdist_wheel": PlatformWheel},
    options={"build": {"build_base": str(BUILD_BASE)}},
)
