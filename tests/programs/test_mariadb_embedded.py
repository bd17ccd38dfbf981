"""MariaDB's server as a library in python3: InnoDB's threads and its AIO in a process that is no server."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
import sides
from table import tried

LIBRARY = "libmariadbd.so.19"
SCRIPT = """
import ctypes, sys

library = ctypes.CDLL("libmariadbd.so.19")
for name in ("mysql_init", "mysql_real_connect", "mysql_store_result"):
    getattr(library, name).restype = ctypes.c_void_p
library.mysql_error.restype = ctypes.c_char_p
library.mysql_fetch_row.restype = ctypes.POINTER(ctypes.c_char_p)
options = ["python", "--no-defaults", f"--datadir={sys.argv[1]}", f"--tmpdir={sys.argv[1]}"]
options += ["--innodb-flush-method=O_DIRECT", "--innodb-buffer-pool-size=8M", "--innodb-use-native-aio=1"]
options = [option.encode() for option in options]
groups = (ctypes.c_char_p * 2)(b"embedded", None)
assert library.mysql_server_init(len(options), (ctypes.c_char_p * len(options))(*options), groups) == 0
connection = ctypes.c_void_p(library.mysql_init(None))
assert library.mysql_real_connect(connection, None, b"root", None, None, 0, None, 0), library.mysql_error(connection)

def ask(statement):
    assert library.mysql_query(connection, statement.encode()) == 0, library.mysql_error(connection)
    result = ctypes.c_void_p(library.mysql_store_result(connection))
    if result:
        while row := library.mysql_fetch_row(result):
            print(*(row[i].decode() for i in range(library.mysql_num_fields(result))))
        library.mysql_free_result(result)

for statement in open(sys.argv[2]):
    ask(statement.strip())
library.mysql_close(connection)
library.mysql_server_end()
"""
FILL = [
    "create database t",
    "create table t.x(id bigint primary key auto_increment, a varchar(255), b char(32), key(b)) engine=innodb",
    "insert into t.x(a, b) values('a', 'b'), ('c', 'd')",
    *[f"insert into t.x(a, b) select repeat(md5(id + {i}), 7), md5(id * {i}) from t.x" for i in range(13)],  # noqa: S608
    "update t.x set a = concat('q', substr(a, 1, 200)) where id % 3 = 0",
    "delete from t.x where id % 5 = 0",
]
CHECK = [
    # Deleted rows go away in batches in the background, and while a batch ends amid a transaction the check warns of
    # the rest of it, on the kernel's AIO as well.
    "set global innodb_max_purge_lag_wait = 0",
    "check table t.x extended",
    "checksum table t.x",
    "select count(*), sum(crc32(a)), sum(crc32(b)) from t.x",
]


@pytest.fixture(autouse=True)
def library() -> None:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        pytest.skip(f"there is no {LIBRARY} (apt-get install libmariadbd19)")


def ask(side: sides.Side, refuse: Path, data: Path, statements: list[str]) -> sides.Ran:
    """Debian's library prefers io_uring too."""
    script = data.parent / "statements"
    script.write_text("\n".join(statements))
    return side.run([sys.executable, "-c", SCRIPT, data, script], before=[refuse, "io_uring", "ENOSYS"]).check()


@tried("libmariadbd", "python3, InnoDB inside it", "a server's AIO in another program's process", version="19")
def test_tables_are_sound(side: sides.Side, kernel: sides.Side, refuse: Path, ext4: Path) -> None:
    """Filled on this side with more than fits its memory, checked there and on the kernel's."""
    data = ext4 / "data"
    data.mkdir()
    ran = ask(side, refuse, data, [*FILL, *CHECK])
    assert (sum(line["submitted"] for line in ran.stats) > 100) == side.is_shim
    assert ran.stdout.splitlines()[0] == "t.x check status OK"
    assert ask(kernel, refuse, data, CHECK).stdout == ran.stdout
