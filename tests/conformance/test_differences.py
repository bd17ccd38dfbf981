"""docs/kernel-differences.md, the DIFFERS names of the cases and the KERNEL tags of the code tell the same story."""

from __future__ import annotations

import re
from pathlib import Path

import conformance

NAME = "[a-z0-9]+(?:-[a-z0-9]+)+"
DOCUMENT = conformance.ROOT / "docs" / "kernel-differences.md"
CODE = [path for room in ("csrc", "compat", "include") for path in sorted((conformance.ROOT / room).rglob("*.[ch]"))]


def documented() -> dict[str, str]:
    """Each difference's section by name."""
    parts = re.split(r"^### (\S+)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cases_that_differ() -> dict[str, set[str]]:
    """The names that the cases carry, and which cases (program.case) carry each."""
    found: dict[str, set[str]] = {}
    for source in conformance.programs():
        text = source.read_text()
        starts = [(match.start(), match[1]) for match in re.finditer(r"^TEST\((\w+)\)", text, re.MULTILINE)]
        for match in re.finditer(r'DIFFERS\("([^"]+)"\)', text):
            before = [case for at, case in starts if at < match.start()]
            # In a helper function above the first case, or between two cases: the program as a whole.
            found.setdefault(match[1], set()).add(f"{source.stem}.{before[-1]}" if before else source.stem)
    return found


def comments(path: Path) -> str:
    """A file's text with the line breaks inside its comments undone."""
    return re.sub(r"\n[ \t]*\*(?!/)[ \t]*", " ", path.read_text())


def code_tags() -> dict[str, str]:
    """Names after "KERNEL:" in comments, and where; a tag without a name reproduces the kernel."""
    found = {}
    for path in CODE:
        for match in re.finditer(rf"KERNEL: ({NAME}):", comments(path)):
            found[match[1]] = path.name
    return found


def all_cases() -> set[str]:
    """Every program.case there is."""
    return {f"{source.stem}.{case}" for source in conformance.programs() for case in conformance.cases(source)}


def unit_cases() -> set[str]:
    """The same of the unit tests, which comments may name as well."""
    sources = (conformance.ROOT / "tests" / "unit").glob("*.c")
    return {f"{source.stem}.{case}" for source in sources for case in conformance.cases(source)}


def test_every_difference_that_a_case_claims_is_documented() -> None:
    """A case may not excuse the shim with a name that no reader can look up."""
    assert set(cases_that_differ()) - set(documented()) == set()


def test_every_documented_difference_is_tested() -> None:
    """A section without a case would be a claim that nothing proves."""
    assert set(documented()) - set(cases_that_differ()) == set()


def test_every_difference_that_the_code_claims_is_documented() -> None:
    """KERNEL: name: in a comment needs its section."""
    assert {name: where for name, where in code_tags().items() if name not in documented()} == {}


def test_every_documented_difference_is_marked_in_the_code() -> None:
    """Whoever changes the place where the shim departs must learn there that a promise hangs on it."""
    assert set(documented()) - set(code_tags()) == set()


def test_tags_with_a_name_are_written_as_such() -> None:
    """A name that is not followed by a colon would escape the two tests above."""
    wrong = []
    for path in CODE:
        wrong += [f"{path.name}: {match}" for match in re.findall(rf"KERNEL:? {NAME}(?![:\w-])", comments(path))]
    assert wrong == []


def test_cases_that_the_code_names_exist() -> None:
    """A comment that says "(test: program.case)" must not point at a case that was renamed."""
    known = all_cases() | unit_cases()
    missing = []
    for path in CODE:
        for comment in re.findall(r"\(tests?:([^)]*)\)", comments(path)):
            named = re.findall(r"\b\w+\.\w{3,}\b", comment)
            missing += [f"{path.name}: {name}" for name in named if name not in known]
            missing += [] if named else [f"{path.name}: {comment}"]
    assert missing == []


def test_documented_tests_exist() -> None:
    """The sections name cases that are there."""
    for name, section in documented().items():
        named = set(re.findall(r"`(\w+\.\w+)`", section.split("**Tests:**")[1]))
        assert named, name
        assert named - all_cases() == set(), name


def test_each_section_says_why_and_who_could_notice() -> None:
    """Three things make a difference acceptable, and all three must be told."""
    for name, section in documented().items():
        for heading in ("**Why:**", "**Who could notice:**", "**Tests:**"):
            assert heading in section, (name, heading)


def test_cases_have_unique_names_and_are_many() -> None:
    """At least two hundred behaviours, each named once in its program."""
    for source in conformance.programs():
        names = conformance.cases(source)
        assert len(names) == len(set(names)), source.name
    assert len(all_cases()) >= 200
