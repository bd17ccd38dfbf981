"""`python -m libaio_shim.bench`."""

from libaio_shim.bench.cli import main

raise SystemExit(main())
