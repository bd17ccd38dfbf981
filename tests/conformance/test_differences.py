"""docs/kernel-differences.md, the DIFFERS names of the cases and the KERNEL tags of the code tell the same story."""

from __future__ import annotations

import re

import conformance

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


def code_tags() -> dict[str, str]:
    """Names after "KERNEL:" in comments, and where; a tag without a name reproduces the kernel."""
    found = {}
    for path in CODE:
        for match in re.finditer(r"KERNEL: ([a-z0-9]+(?:-[a-z0-9]+)+):", path.read_text()):
            found[match[1]] = path.name
    return found


def all_cases() -> set[str]:
    """Every program.case there is."""
    return {f"{source.stem}.{case}" for source in conformance.programs() for case in conformance.cases(source)}


def test_every_difference_that_a_case_claims_is_documented() -> None:
    """A case may not excuse the shim with a name that no reader can look up."""
    assert set(cases_that_differ()) - set(documented()) == set()


def test_every_documented_difference_is_tested() -> None:
    """A section without a case would be a claim that nothing proves."""
    assert set(documented()) - set(cases_that_differ()) == set()


def test_every_difference_that_the_code_claims_is_documented() -> None:
    """KERNEL: name: in a comment needs its section."""
    assert {name: where for name, where in code_tags().items() if name not in documented()} == {}


def test_cases_that_the_code_names_exist() -> None:
    """A comment that says "(test: program.case)" must not point at a case that was renamed."""
    programs = {source.stem for source in conformance.programs()}
    missing = []
    for path in CODE:
        for comment in re.findall(r"\(tests?:([^)]*)\)", path.read_text()):
            named = re.findall(r"\b(\w+)\.(\w+)\b", comment)
            missing += [f"{path.name}: {a}.{b}" for a, b in named if a in programs and f"{a}.{b}" not in all_cases()]
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
