"""multipath-tools' directio checker: asks for a block of each path, and looks for the answer now or some time later."""

from __future__ import annotations

import sys
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

CHECKER = Path("/lib/multipath/libcheckdirectio.so")
# As multipathd calls its plug-in.  struct checker is multipath-tools' own affair; it is so from 0.8.9 to 0.9.4.
DRIVER = """
import ctypes, os, sys

class Class(ctypes.Structure):
    _fields_ = [("before", ctypes.c_char * 28), ("sync", ctypes.c_int), ("after", ctypes.c_char * 128)]

class Checker(ctypes.Structure):
    _fields_ = [("cls", ctypes.POINTER(Class)), ("fd", ctypes.c_int), ("timeout", ctypes.c_uint),
                ("disable", ctypes.c_int), ("msgid", ctypes.c_short), ("context", ctypes.c_void_p),
                ("mpcontext", ctypes.c_void_p), ("spare", ctypes.c_char * 64)]

DOWN, UP, PENDING = 2, 3, 6
library, device, paths, rounds = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
classes = [Class(sync=0), Class(sync=1)]
checkers = []
for i in range(paths):
    fd = os.open(device, os.O_RDONLY | (os.O_DIRECT if i % 3 else 0))
    # Also the number of looks, of a microsecond each here and a second apart in multipathd, until a path is down.
    checkers.append(Checker(ctypes.pointer(classes[i % 2]), fd, 1000000))
    assert library.libcheck_init(ctypes.byref(checkers[-1])) == 0

def check(checker):
    while (state := library.libcheck_check(ctypes.byref(checker))) == PENDING:
        pass
    return state

states = [check(checker) for _ in range(rounds) for checker in checkers]
print("up", states.count(UP), "of", len(states))
gone = checkers[0]
os.dup2(os.open("/dev/null", os.O_RDONLY), gone.fd)
print("down" if check(gone) == DOWN else "what?")
for checker in checkers[1:]:  # some with a request that nobody has looked for
    library.libcheck_check(ctypes.byref(checker))
for checker in checkers:
    library.libcheck_free(ctypes.byref(checker))
    os.close(checker.fd)
library.libcheck_reset()
"""


@pytest.fixture(autouse=True)
def checker() -> None:
    needs.root()
    if not CHECKER.exists():
        pytest.skip("there is no directio checker (apt-get install multipath-tools)")


@tried("multipath-tools", "libcheckdirectio.so for 300 paths", "one request a path, looked for or waited for",
       version=version("multipath", "-h"))  # fmt: skip
def test_paths_are_up(side: sides.Side, device: str) -> None:
    """With and without waiting, beside each other on the checker's shared context; a path without an answer is down."""
    ran = side.run([sys.executable, "-c", DRIVER, CHECKER, device, "300", "10"]).check()
    assert ran.stdout == "up 3000 of 3000\ndown\n"
    assert (sum(line["submitted"] for line in ran.stats) >= 3000) == side.is_shim
