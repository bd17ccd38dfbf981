"""The benchmark: the shim beside the kernel's AIO, io_uring and POSIX AIO, in paired and interleaved rounds.

cases     what is measured, and the targets
engines   who answers: how a load is started on each, and the proof of who answered
places    files and file systems to measure on
rounds    the runs themselves, medians and ratios
report    table, JSON and plot
build     compiles the load generator (src/) on demand
cli       `libaio-shim bench`
"""
