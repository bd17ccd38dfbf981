"""``python -m libaio_shim``: the same as the ``libaio-shim`` command."""

from libaio_shim.cli import main

raise SystemExit(main())
