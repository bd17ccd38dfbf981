"""``libaio-shim which PROGRAM``: how a program reaches AIO, and whether the shim answers it."""
