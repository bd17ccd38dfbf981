"""`python bench`: the benchmark from a checkout, without installing anything."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from libaio_shim.bench.cli import main

raise SystemExit(main(sys.argv[1:]))
