"""iiod, the server of sensors' data, at a terminal: each byte of a command is a request on a pipe, with an eventfd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import sides
from table import tried, version

DEVICES = 20
CONTEXT = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE context [<!ELEMENT context (device)*><!ELEMENT device (attribute)*><!ELEMENT attribute EMPTY>
<!ATTLIST context name CDATA #REQUIRED description CDATA #IMPLIED>
<!ATTLIST device id CDATA #REQUIRED name CDATA #IMPLIED>
<!ATTLIST attribute name CDATA #REQUIRED filename CDATA #IMPLIED>]>
<context name="test" description="made up">%s</context>
"""
DEVICE = '<device id="iio:device%d" name="adc%d"><attribute name="rate" /></device>'


@contextmanager
def session(side: sides.Side, directory: Path) -> Iterator[subprocess.Popen[str]]:
    path = directory / "context.xml"
    path.write_text(CONTEXT % "".join(DEVICE % (i, i) for i in range(DEVICES)))
    process = side.start([needs.program("iiod"), "--aio", "--interactive", "--uri", f"xml:{path}"])
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], words: str, pieces: int = 1) -> str:
    """The first line of the answer; the command arrives in pieces, so that requests wait for the next."""
    assert process.stdin
    assert process.stdout
    command, step = f"{words}\r\n", -(-len(words) // pieces)
    for at in range(0, len(command), step):
        process.stdin.write(command[at : at + step])
        process.stdin.flush()
    return process.stdout.readline()


@tried("iiod", "iiod --aio --interactive", "pipes byte by byte, an eventfd waited for before each look",
       version=version("iiod", "--version"))  # fmt: skip
def test_commands_are_answered(side: sides.Side, tmp_path: Path) -> None:
    """In pieces and at once; a long answer is whole, a failure is told, and it ends when it is asked to."""
    with session(side, tmp_path) as process:
        assert process.stdout
        known = ask(process, "VERSION", pieces=7)
        assert known.startswith("0."), known
        for _ in range(20):
            assert ask(process, "VERSION", pieces=3) == known
        length = int(ask(process, "PRINT"))
        printed = process.stdout.read(length + 1)
        assert printed.count("<device ") == DEVICES
        assert printed.endswith("</context>\n")
        assert int(ask(process, "READ iio:device7 rate", pieces=5)) < 0
        assert ("/libaio_shim.so.0" in sides.maps(process.pid)) == side.is_shim
        ask(process, "EXIT")
        assert process.wait(100) == 0
