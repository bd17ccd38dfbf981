"""What the binding declares is what the headers say."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from libaio_shim import Iocb, Stats, _native

ROOT = Path(__file__).resolve().parents[2]


def test_the_generated_module_is_current(tmp_path: Path) -> None:
    """_ffi.py is what _ffi_build.py writes."""
    pytest.importorskip("pycparser", reason="pycparser is not installed (pip install pycparser)")
    built = tmp_path / "_ffi.py"
    runpy.run_path(str(ROOT / "libaio_shim" / "_ffi_build.py"))["generate"](built)
    # The first line tells a version of cffi's.
    assert built.read_text().splitlines()[1:] == (ROOT / "libaio_shim" / "_ffi.py").read_text().splitlines()[1:]


def test_constants_are_the_headers() -> None:
    """What las_io_submit_one returns and leaves behind."""
    header = (ROOT / "include" / "libaio_shim.h").read_text()
    for name, value in (("LAS_SUBMITTED", _native.SUBMITTED), ("LAS_KEY_RETURNED", _native.KEY_RETURNED)):
        found = re.search(rf"#define {name} \(?(-?\d+)", header)
        assert found, name
        assert int(found.group(1)) == value


def test_the_iocb_has_the_header_s_layout(tmp_path: Path) -> None:
    """Every field of the ctypes structure lies where the C compiler puts it."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler (apt-get install gcc)")
    fields = {
        "data": "data",
        "key": "key",
        "rw_flags": "aio_rw_flags",
        "opcode": "aio_lio_opcode",
        "reqprio": "aio_reqprio",
        "fd": "aio_fildes",
        "buf": "u.c.buf",
        "nbytes": "u.c.nbytes",
        "offset": "u.c.offset",
        "aio_flags": "u.c.flags",
        "resfd": "u.c.resfd",
    }
    lines = [
        f'printf("{name} %zu %zu\\n", offsetof(struct iocb, {field}), sizeof(((struct iocb *)0)->{field}));'
        for name, field in fields.items()
    ]
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <libaio.h>\nint main(void) {\n" + "\n".join(lines) + "\n}\n"
    )
    subprocess.run([compiler, "-I", ROOT / "include", "-o", tmp_path / "layout", source], check=True)
    told = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout
    for line in told.splitlines():
        name, offset, size = line.split()
        field = getattr(Iocb, name)
        assert (field.offset, field.size) == (int(offset), int(size)), name


def test_statistics_have_the_header_s_fields() -> None:
    """The same counts in the same order; the header may only append."""
    header = (ROOT / "include" / "libaio_shim.h").read_text()
    body = re.search(r"struct las_stats \{(.*?)\};", header, re.DOTALL)
    assert body
    assert tuple(re.findall(r"uint64_t (\w+);", body[1])) == Stats._fields
