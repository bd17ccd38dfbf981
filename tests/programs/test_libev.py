"""libev's linuxaio backend, under Perl: an event loop whose every wait for a socket is a poll through AIO.

Not what libev takes by itself (epoll), but what LIBEV_FLAGS asks of any program on it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

SCRIPT = Path(__file__).with_name("libev.pl")
PAIRS, ROUNDS = 40, 25


@pytest.fixture(autouse=True)
def libev() -> None:
    perl = needs.program("perl")
    if subprocess.run([perl, "-MEV", "-e1"], capture_output=True, check=False).returncode:
        pytest.skip("Perl has no EV (apt-get install libev-perl)")


@tried("EV (Perl, libev)", "perl, EV on the backend linuxaio", "polls by the thousand, raw system calls",
       version=version("perl", "-MEV", "-e", "print $EV::VERSION"))  # fmt: skip
def test_every_socket_is_heard(side: sides.Side) -> None:
    """Each byte comes back, a file counts as ready, a silent pipe does not, and a child's end is noticed."""
    program = [shutil.which("env") or "env", "LIBEV_FLAGS=64", "perl", str(SCRIPT), str(PAIRS), str(ROUNDS)]
    ran = side.run(program).check()
    assert ran.stdout == f"right {PAIRS * ROUNDS}, file 1, quiet 0, child 3\n"
    assert (sum(line["submitted"] for line in ran.stats) >= 2 * PAIRS * ROUNDS) == side.is_shim
