"""dqlite, SQLite replicated by Raft: its log is written with raw system calls, an eventfd and libuv's loop."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sides
from table import tried

# A node of its own, until standard input ends.
NODE = """
import ctypes, sys
try:
    library = ctypes.CDLL("libdqlite.so.0")
except OSError:
    sys.exit(77)
directory, address = sys.argv[1].encode(), sys.argv[2].encode()
node = ctypes.c_void_p()
assert library.dqlite_node_create(ctypes.c_ulonglong(1), address, directory, ctypes.byref(node)) == 0
assert library.dqlite_node_set_bind_address(node, address) == 0
assert library.dqlite_node_start(node) == 0
print("ready", flush=True)
sys.stdin.read()
assert library.dqlite_node_stop(node) == 0
"""
CLIENT, OPEN, EXECUTE, QUERY, FAILURE = 1, 3, 8, 9, 0  # of its wire protocol
ROWS = 100


class Client:
    """As much of the protocol as is needed here: words of 8 bytes, texts padded with zeros."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=100)
        self.answers = self.socket.makefile("rb")
        self.socket.sendall(struct.pack("<Q", 1))  # the version of the protocol
        self.ask(CLIENT, struct.pack("<Q", 1))
        opened = self.ask(OPEN, self.text("test.db") + bytes(8) + self.text("volatile"))
        self.database = opened[:4] + bytes(4)

    @staticmethod
    def text(words: str) -> bytes:
        data = words.encode() + b"\0"
        return data + bytes(-len(data) % 8)

    def ask(self, kind: int, body: bytes) -> bytes:
        self.socket.sendall(struct.pack("<IBBH", len(body) // 8, kind, 0, 0) + body)
        words, answer, _, _ = struct.unpack("<IBBH", self.answers.read(8))
        body = self.answers.read(words * 8)
        assert answer != FAILURE, body
        return body

    def sql(self, kind: int, words: str) -> bytes:
        return self.ask(kind, self.database + self.text(words) + bytes(8))


@contextmanager
def serving(side: sides.Side, directory: Path) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    port = sides.free_port()
    process = side.start([sys.executable, "-c", NODE, directory, f"127.0.0.1:{port}"])
    try:
        assert process.stdout
        if process.stdout.readline() != "ready\n" and process.wait() == 77:
            pytest.skip("libdqlite is not installed (apt-get install libdqlite0)")
        assert process.poll() is None, process.communicate()[1]
        client = Client(port)
        yield client, process
        client.answers.close()
        client.socket.close()
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.wait()


@tried("dqlite", "a node, as a library in python3", "raw system calls, eventfd in libuv's loop, O_DIRECT log",
       version="1.11")  # fmt: skip
def test_rows_are_there_after_a_restart(side: sides.Side, kernel: sides.Side, ext4: Path) -> None:
    """Each insert is a write to the log that the node waits for; another start, on the kernel, replays it."""
    ask = "select count(*), sum(n), min(s), max(s) from t"
    with serving(side, ext4) as (client, process):
        client.sql(EXECUTE, "create table t (n integer, s text)")
        for _ in range(ROWS):
            client.sql(EXECUTE, "insert into t select count(*), hex(zeroblob(900)) || count(*) from t")
        assert ("/libaio_shim.so.0" in sides.maps(process.pid)) == side.is_shim
        before = client.sql(QUERY, ask)
    assert struct.pack("<QQ", ROWS, ROWS * (ROWS - 1) // 2) in before
    for where in (kernel, side):
        with serving(where, ext4) as (client, _):
            assert client.sql(QUERY, ask) == before
