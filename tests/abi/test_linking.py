"""Programs linked with the shim instead of run on it: the example, compiled in every way that it documents."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import linking
import pytest


@pytest.mark.parametrize("way", linking.WAYS)
def test_example_is_linked_with_the_shim(build_dir: Path, tmp_path: Path, way: str) -> None:
    """With what `make build` left."""
    launcher = build_dir / "bin" / "libaio-shim"
    linking.prove(way, linking.build(way, launcher, tmp_path), launcher, tmp_path)


@pytest.mark.parametrize("way", ["config", "pkg-config"])
@pytest.mark.parametrize("name", ["elsewhere", "else where"])
def test_moved_directory_still_links(build_dir: Path, tmp_path: Path, name: str, way: str) -> None:
    """pkg-config's files, the launcher and the libraries name each other relatively."""
    home = _moved(build_dir, tmp_path / name)
    launcher = home / "bin" / "libaio-shim"
    program = linking.build(way, launcher, _made(tmp_path / "built"))
    assert str(home) in linking.output("ldd", program)
    linking.prove(way, program, launcher, tmp_path / "built")


def test_config_quotes_for_a_shell(build_dir: Path, tmp_path: Path) -> None:
    """What a compiler gets: words that may hold anything.  A directory alone is told as it is."""
    home = _moved(build_dir, tmp_path / 'it\'s \t"$HOME" `a` \\ (b) & c; <*?[d]{e}~#!é')
    config = home / "bin" / "libaio-shim", "config"
    assert shlex.split(linking.output(*config, "--cflags", "--libs")) == [
        *(f"-I{home}/include", f"-L{home}/lib", f"-Wl,-rpath,{home}/lib", "-laio", "-laio_shim"),
    ]
    (word,) = linking.output(*config, "--cflags").splitlines()
    assert linking.output("sh", "-c", f"printf %s {word}") == f"-I{home}/include"
    assert linking.output(*config, "--libdir") == f"{home}/lib\n"


def _moved(build_dir: Path, home: Path) -> Path:
    subprocess.run(["cp", "-a", *(build_dir / part for part in ("bin", "include", "lib")), _made(home)], check=True)
    return home


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_static_library_shows_the_public_names_only(build_dir: Path) -> None:
    """Its insides cannot clash with a program's own functions."""
    listed = linking.output("nm", "--defined-only", "--extern-only", "--format=posix", build_dir / "lib" / "libaio.a")
    names = {line.split()[0] for line in listed.splitlines() if " " in line}
    here = Path(__file__).parent
    public = {line.split("@")[0] for file in here.glob("*.symbols") for line in file.read_text().split()}
    assert names == public


def test_unknown_option_is_told(build_dir: Path) -> None:
    """As by `libaio-shim run`."""
    launcher = build_dir / "bin" / "libaio-shim"
    done = subprocess.run([launcher, "config", "--nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "--nonsense" in done.stderr
