"""A MariaDB server: set up through libaio, reaped by syscall(), direct I/O from many threads, a lock on its files.

Debian's build prefers io_uring and falls back to libaio where that is refused, as container sandboxes do.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

FILL = """
create database t; use t;
create table x(id bigint primary key auto_increment, a varchar(255), b char(32), key(b));
insert into x(a, b) select repeat(md5(seq), 7), md5(seq * 7) from seq_1_to_{rows};
update x set a = concat('q', substr(a, 1, 200)) where id % 3 = 0;
delete from x where id % 5 = 0;
"""
# Deleted rows go away in batches in the background, and while a batch ends amid a transaction the check warns of the
# rest of it, on the kernel's AIO as well.
PURGED = "set global innodb_max_purge_lag_wait = 0;"
CHECK = f"use t; {PURGED} checksum table x; check table x extended; select count(*), sum(crc32(a)) from x;"  # noqa: S608
ROWS = 20000


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh data directory."""
    needs.program("mariadbd", "mariadb-server-core")
    needs.program("mariadb", "mariadb-client-core")
    directory = tmp_path_factory.mktemp("mariadb") / "data"
    words = [
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={directory}",
        "--auth-root-authentication-method=normal",
    ]
    done = subprocess.run(
        [*words, "--skip-test-db", f"--user={pwd.getpwuid(os.geteuid()).pw_name}"],
        env=os.environ | {"TMPDIR": str(directory.parent)},  # a server that starts removes what others have in theirs
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class Server:
    """A running server and a client to it."""

    def __init__(self, process: subprocess.Popen[str], socket: Path, log: Path) -> None:
        self.process, self.socket, self.log = process, socket, log

    def client(self, statements: str) -> list[str]:
        return [
            "mariadb",
            "--no-defaults",
            "--user=root",
            f"--socket={self.socket}",
            "--batch",
            "--execute",
            statements,
        ]

    def start(self, statements: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.client(statements))

    def ask(self, statements: str) -> str:
        done = subprocess.run(self.client(statements), capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stderr + self.log.read_text()[-3000:]
        return done.stdout


@contextmanager
def serving(side: sides.Side, refuse: Path, data: Path) -> Iterator[Server]:
    """A server on native AIO in data; shut down at the end, or killed if that takes long."""
    socket, log = data / "socket", data / "log"
    socket.unlink(missing_ok=True)
    words = [
        needs.program("mariadbd", "mariadb-server-core"),
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={socket}",
        "--skip-networking",
    ]
    words += [
        "--user=root",
        f"--tmpdir={data.parent}",
        "--innodb-flush-method=O_DIRECT",
        "--innodb-buffer-pool-size=8M",
        "--innodb-use-native-aio=1",
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(refuse), "io_uring", "ENOSYS", *side.command(words)],
            env=side.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
        )
    server = Server(process, socket, log)
    try:
        # Not the socket: a server that is told to end before it is ready hangs, on the kernel's AIO as well.
        sides.wait_until(lambda: "ready for connections" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()[-3000:]
        assert "InnoDB: Using Linux native AIO" in log.read_text()
        yield server
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(100) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def data(empty: Path, ext4: Path) -> Path:
    """A copy of the fresh data directory."""
    subprocess.run(["cp", "-a", empty, ext4 / "data"], check=True)
    return ext4 / "data"


def test_the_shim_answers(shim: sides.Side, refuse: Path, data: Path) -> None:
    """Its libraries are in the server's memory."""
    with serving(shim, refuse, data) as server:
        assert "/libaio_shim.so.0" in sides.maps(server.process.pid)


@tried("mariadbd", "mariadbd --innodb-use-native-aio --innodb-flush-method=O_DIRECT", "mixes libaio and syscall()",
       version=version("mariadbd", "--version"))  # fmt: skip
def test_tables_are_sound_also_after_a_crash(side: sides.Side, refuse: Path, data: Path) -> None:
    """Filled with more than fits its memory, checked, killed while writing, recovered, checked again."""
    with serving(side, refuse, data) as server:
        server.ask(FILL.format(rows=ROWS))
        before = server.ask(CHECK)
        assert "\tstatus\tOK" in before
        # Dirty pages are on their way when it dies.
        server.ask("use t; create table y select * from x; update y set a = reverse(a);")
        server.process.kill()
        server.process.wait()
    with serving(side, refuse, data) as server:
        assert server.ask(CHECK) == before
        assert "\tstatus\tOK" in server.ask("use t; check table y extended")


def test_both_sides_hold_the_same_rows(
    kernel: sides.Side, shim: sides.Side, refuse: Path, empty: Path, ext4: Path
) -> None:
    """Filled on one side, read on the other: the files go between them."""
    answers = []
    for writer, reader in ((kernel, shim), (shim, kernel)):
        data = ext4 / writer.name
        subprocess.run(["cp", "-a", empty, data], check=True)
        with serving(writer, refuse, data) as server:
            server.ask(FILL.format(rows=ROWS // 4))
        with serving(reader, refuse, data) as server:
            answers.append(server.ask(CHECK))
    assert answers[0] == answers[1]
    assert "\tstatus\tOK" in answers[0]


@tried("mariadb-backup", "mariadb-backup --backup, --prepare --use-memory=8M", "recovery of InnoDB's log",
       version=version("mariadbd", "--version"))  # fmt: skip
def test_backup_under_load_can_be_restored(
    side: sides.Side, kernel: sides.Side, refuse: Path, data: Path, ext4: Path
) -> None:
    """Taken while rows change, made consistent on this side, served by the kernel's."""
    program = needs.program("mariadb-backup", "mariadb-backup")
    copy = ext4 / "copy"

    def backup(*words: str) -> sides.Ran:
        command = [program, "--no-defaults", f"--target-dir={copy}", f"--tmpdir={ext4}", *words]
        return side.run(command, before=[refuse, "io_uring", "ENOSYS"]).check()

    with serving(kernel, refuse, data) as server:
        server.ask(FILL.format(rows=ROWS))
        writer = server.start("use t; create table y select * from x; update y set a = reverse(a);")
        backup("--backup", "--user=root", f"--socket={server.socket}", f"--datadir={data}")
        assert writer.wait(100) == 0
        expected = server.ask(CHECK)
    ran = backup("--prepare", "--use-memory=8M")
    assert (sum(line["submitted"] for line in ran.stats) > 0) == side.is_shim
    with serving(kernel, refuse, copy) as server:
        assert server.ask(CHECK) == expected
