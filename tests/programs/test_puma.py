"""Puma, a web server, on nio4r (Ruby): its reactor is libev, which LIBEV_FLAGS puts on AIO."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

SCRIPT = Path(__file__).with_name("puma.rb")
CLIENTS, ROUNDS = 40, 10


@pytest.fixture(autouse=True)
def puma() -> None:
    ruby = needs.program("ruby")
    if subprocess.run([ruby, "-rpuma", "-rnio", "-e1"], capture_output=True, check=False).returncode:
        pytest.skip("Ruby has no Puma (apt-get install puma)")


@tried("Puma (Ruby, nio4r)", "ruby, Puma's reactor on the backend linuxaio", "polls of sockets, woken by threads",
       version=version("ruby", "-rpuma", "-e", "puts Puma::Const::VERSION"))  # fmt: skip
def test_every_client_is_answered(side: sides.Side) -> None:
    """Requests that come in pieces, on connections that are kept; the script refuses any other backend."""
    command = [shutil.which("env") or "env", "LIBEV_FLAGS=64", "ruby", str(SCRIPT), str(CLIENTS), str(ROUNDS)]
    ran = side.run(command).check()
    assert ran.stdout == f"silent 0, heard 1, right {CLIENTS * ROUNDS}\n"
    assert (sum(line["submitted"] for line in ran.stats) >= CLIENTS) == side.is_shim
