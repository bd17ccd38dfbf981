"""ClickHouse: merges written and tables read with O_DIRECT; one process-wide reaper, raw system calls."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import pytest
import sides
from table import tried, version

ROWS = 400_000  # that FILL inserts
FILL = """
CREATE TABLE t (k UInt64, v UInt64, s String)
ENGINE = MergeTree ORDER BY k SETTINGS min_merge_bytes_to_use_direct_io = 1;
INSERT INTO t SELECT number, cityHash64(number), toString(sipHash64(number)) FROM numbers(200000);
INSERT INTO t SELECT number + 200000, cityHash64(number), toString(sipHash64(number)) FROM numbers(200000);
OPTIMIZE TABLE t FINAL;
"""
READ = """
SELECT count(), sum(k), sum(v), sum(sipHash64(s)) FROM t;
SELECT count(), sum(v) FROM t WHERE k % 1000 = 7;
SELECT k, v, s FROM t WHERE k = 123456;
"""
DIRECTLY = "SET min_bytes_to_use_direct_io = 1;"
EVENTS = "SELECT event FROM system.events WHERE event IN ('ReadBufferAIORead', 'WriteBufferAIOWrite') ORDER BY event"
CONFIG = """<yandex>
<logger><level>warning</level><console>1</console></logger>
<tcp_port>{port}</tcp_port><listen_host>127.0.0.1</listen_host>
<path>{path}/data/</path><tmp_path>{path}/tmp/</tmp_path><mark_cache_size>1000000</mark_cache_size>
<users_config>users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database>
</yandex>"""
USERS = """<yandex>
<profiles><default><load_balancing>random</load_balancing></default></profiles>
<users><default>
<password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
</default></users>
<quotas><default></default></quotas>
</yandex>"""


@pytest.fixture(autouse=True)
def programs() -> None:
    needs.program("clickhouse-server")
    needs.program("clickhouse-client")


def ask(port: int, queries: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["clickhouse-client", "--port", str(port), "--multiquery"], input=queries, text=True,
                          capture_output=True, check=False, timeout=180)  # fmt: skip


def answer(port: int, queries: str) -> str:
    done = ask(port, queries)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(side: sides.Side, directory: Path) -> Iterator[int]:
    """A server that keeps its tables in directory; its port."""
    for name in ("data", "tmp"):
        (directory / name).mkdir(exist_ok=True)
    port = sides.free_port()
    (directory / "config.xml").write_text(CONFIG.format(port=port, path=directory))
    (directory / "users.xml").write_text(USERS)
    process = side.start(["clickhouse-server", f"--config-file={directory}/config.xml"], cwd=directory)
    try:
        sides.wait_until(lambda: process.poll() is not None or ask(port, "SELECT 1").returncode == 0)
        assert process.poll() is None, process.communicate()
        assert ("/libaio_shim.so.0" in sides.maps(process.pid)) == side.is_shim
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=100)


@tried("clickhouse-server", "clickhouse-server; min_merge_bytes_to_use_direct_io, min_bytes_to_use_direct_io = 1",
       "raw system calls, one reaper for all threads, O_DIRECT",
       version=version("clickhouse-client", "--version"))  # fmt: skip
def test_tables_merged_and_read_directly(side: sides.Side, ext4: Path) -> None:
    """What AIO merged and read is what plain reads find, also after a restart, and is what was inserted."""
    with serving(side, ext4) as port:
        answer(port, FILL)
        read = answer(port, DIRECTLY + READ)
        # A merge that had begun in the background by itself may still be under way.
        sides.wait_until(lambda: answer(port, EVENTS).split() == ["ReadBufferAIORead", "WriteBufferAIOWrite"])
        assert answer(port, READ) == read
        assert read.splitlines()[0].startswith(f"{ROWS}\t{sum(range(ROWS))}\t")
    with serving(side, ext4) as port:
        assert answer(port, DIRECTLY + READ) == read
