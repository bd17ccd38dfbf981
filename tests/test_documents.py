"""What documents and comments name is there: files, options, variables, test cases."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import conformance
import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("csrc", "compat", "include", "libaio_shim", "tests", "bench", "examples", "docs")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md"))])
SOURCES = sorted(
    path
    for path in [*(ROOT / name for name in ("Makefile", "setup.py", "pyproject.toml", ".ci/run", "compat/libaio-shim")),
                 *(path for room in ROOMS for path in (ROOT / room).rglob("*.*"))]
    if path.suffix in (".c", ".h", ".py", ".mk", ".toml", ".map", "") and path.is_file()
)  # fmt: skip


def found(pattern: str, files: list[Path]) -> dict[str, str]:
    """What matches anywhere in them, and where."""
    return {match: str(path.relative_to(ROOT)) for path in files for match in re.findall(pattern, path.read_text())}


def test_files_that_are_named_exist() -> None:
    """In documents and comments, by their path from the root, or from csrc as its files include each other."""
    rooms = "|".join(ROOMS)
    paths = found(
        rf"(?<![\w/.$}}-])((?:{rooms}|aio|lanes|base)/[\w./-]*\w\.(?:c|h|py|md|map|svg|mk))\b", DOCUMENTS + SOURCES
    )
    lost = {
        path: where
        for path, where in paths.items()
        if not any((base / path).exists() for base in (ROOT, ROOT / "csrc", (ROOT / where).parent))
    }
    assert lost == {}


def test_the_map_of_the_engine_names_every_file() -> None:
    """csrc/README.md is read instead of a listing."""
    text = (ROOT / "csrc" / "README.md").read_text()
    stems = {path.stem for path in (ROOT / "csrc").rglob("*.[ch]")}
    assert {stem for stem in stems if not re.search(rf"\b{stem}\.[ch]\b", text)} == set()


def test_variables_are_documented() -> None:
    """Each LIBAIO_SHIM_* that something reads stands in a document, and no document promises another."""
    pattern = r"\bLIBAIO_SHIM_[A-Z_]*[A-Z]\b"
    not_variables = {"LIBAIO_SHIM_H"}
    of_the_launcher_alone = {"LIBAIO_SHIM_TRAP"}
    read = set(found(pattern, [path for path in SOURCES if path != Path(__file__)])) - not_variables
    told = set(found(pattern, DOCUMENTS))
    assert read - told - of_the_launcher_alone == set()
    assert told - read == set()


def test_options_are_documented(build_dir: Path) -> None:
    """Those of `run` that --help tells are the ones it takes, and the README and docs/ speak of no others."""
    launcher = build_dir / "bin" / "libaio-shim"
    usage = subprocess.run([launcher, "--help"], capture_output=True, text=True, check=True).stdout
    told = set(re.findall(r"^  (--[a-z-]+)", usage, re.MULTILINE))
    taken = launcher.read_text().partition("\nlibaio_shim_trap=\nwhile")[2].partition("\ndone\n")[0]
    assert told | {"--version"} == set(re.findall(r"^\t(?:-\w \| )?(--[a-z-]+)", taken, re.MULTILINE)) | {"--lanes"}
    documented = (ROOT / "README.md").read_text().partition("libaio-shim run [options]")[2].partition("```")[0]
    assert set(re.findall(r"^  (--[a-z-]+)", documented, re.MULTILINE)) == told - {"--verbose", "--help"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_cases_that_a_document_names_exist(path: Path) -> None:
    """As `ring.handle_is_the_ring`: a theme of the conformance suite, and a case in it."""
    cases = {source.stem: set(conformance.cases(source)) for source in conformance.programs()}
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r"(?<![\w./])([a-z]+)\.(\w{3,})\b(?![.(])", prose)
    lost = [f"{theme}.{case}" for theme, case in named if theme in cases and case not in cases[theme]]
    assert lost == []
