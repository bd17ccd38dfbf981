"""nginx with `aio on`: raw system calls, one eventfd in edge-triggered epoll, several worker processes."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sides
from table import tried, version

CONFIGURATION = """
worker_processes 2;
user {user};
pid pid;
events {{ worker_connections 256; }}
http {{
    access_log off; sendfile off; aio on; output_buffers 2 128k;
    {places}
    server {{ listen 127.0.0.1:{direct}; root files; directio 512; directio_alignment 512; }}
    server {{ listen 127.0.0.1:{buffered}; root files; directio off; }}
}}
"""
OPTIONAL = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # modules that make a directory each
RANGES = (None, (1000, 70000), (4096, 8191), (777, 400000))


@pytest.fixture(scope="module")
def nginx() -> str:
    """Debian's has no file AIO, nginx.org's has."""
    path = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    built = subprocess.run([path, "-V"], capture_output=True, text=True, check=True).stderr if path else ""
    if "--with-file-aio" not in built:
        pytest.skip("n/a: no nginx here that was built --with-file-aio, as the packages of nginx.org are")
    assert path
    return path


@contextmanager
def serving(side: sides.Side, nginx: str, home: Path) -> Iterator[list[int]]:
    """The ports of a server that reads with O_DIRECT and of one that does not."""
    ports = [sides.free_port(), sides.free_port()]
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=True).stderr
    places = [f"{name}_temp_path {name};" for name in OPTIONAL if f"--without-http_{name}_module" not in built]
    text = CONFIGURATION.format(user="root", places=" ".join(places), direct=ports[0], buffered=ports[1])
    (home / "nginx.conf").write_text(text)
    command = [nginx, "-p", str(home), "-c", "nginx.conf", "-e", "log", "-g", "daemon off;"]
    process = side.start(command)
    try:
        sides.wait_until(lambda: (home / "pid").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        assert ("/libaio_shim.so.0" in sides.maps(process.pid)) == side.is_shim
        yield ports
        subprocess.run([*command[:-2], "-s", "quit"], check=True, capture_output=True, timeout=100)
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.wait()
    assert not re.search(r"\[(error|alert|crit|emerg)\]", (home / "log").read_text())


@tried("nginx", "nginx, aio on, directio 512 and off", "raw system calls, eventfd, edge-triggered epoll",
       version=version("nginx", "-v"))  # fmt: skip
def test_files_arrive_as_they_are(side: sides.Side, nginx: str, ext4: Path) -> None:
    """Whole and in part, 16 at a time."""
    files = ext4 / "files"
    files.mkdir()
    contents = {f"file{i}": os.urandom(i * 300007) for i in range(1, 7)}
    for name, content in contents.items():
        (files / name).write_bytes(content)

    def is_right(job: tuple[int, str, tuple[int, int] | None]) -> bool:
        port, name, part = job
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        connection.request("GET", f"/{name}", headers={"Range": f"bytes={part[0]}-{part[1]}"} if part else {})
        got = connection.getresponse().read()
        connection.close()
        return got == (contents[name][part[0] : part[1] + 1] if part else contents[name])

    with serving(side, nginx, ext4) as ports, ThreadPoolExecutor(16) as pool:
        jobs = [(port, name, part) for port in ports for name in contents for part in RANGES]
        assert all(pool.map(is_right, jobs * 2))
