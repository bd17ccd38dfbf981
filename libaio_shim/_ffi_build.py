"""Writes ``_ffi.py``: the C declarations in the form that cffi loads without a compiler and without pycparser.

Run ``python libaio_shim/_ffi_build.py`` after a change here (needs pycparser, which comes with cffi on most systems).
A test compares the outcome with the file in the tree, another compares the sizes and offsets with a C compiler's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

# include/libaio_shim.h and the iocb of include/libaio.h on a 64-bit machine.  io_context_t is an address here.
DECLARATIONS = """
typedef struct { int64_t tv_sec; int64_t tv_nsec; } las_timespec;
typedef struct { void *iov_base; size_t iov_len; } las_iovec;

const char *las_version(void);
long las_io_setup(unsigned nr_events, void **ctxp);
long las_io_destroy(void *ctx);
long las_io_submit(void *ctx, long nr, void *iocbpp);
long las_io_submit_quiet(void *ctx, long nr, void *iocbpp);
long las_io_submit_one(void *ctx, void *iocb);
long las_io_cancel(void *ctx, void *iocb, void *result);
long las_io_getevents(void *ctx, long min_nr, long nr, void *events, void *timeout);
int las_io_owns(void *ctx);

typedef struct {
    uint64_t contexts, submitted, head, native, crew, polled, helped, cancelled, threads;
} las_stats;
size_t las_stats_get(void *out, size_t bytes);

/* of the C library */
long syscall(long number, ...);
"""


def generate(target: Path) -> None:
    builder = FFI()
    builder.set_source("libaio_shim._ffi", None)
    builder.cdef(DECLARATIONS)
    builder.emit_python_code(str(target))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("_ffi.py"))
