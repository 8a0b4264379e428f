"""What all benchmarks share: own CPU seconds on one thread, and one JSON line a figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # read when the libraries load: import this module first


def quick(doc: str | None) -> bool:
    """Parse ``--quick``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="end within 50 s")
    return bool(parser.parse_args().quick)


def cpu_seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Return the median CPU seconds of this process for one call."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return sorted(spent)[len(spent) // 2]


def row(name: str, value: float, unit: str, *, peer: str = "", ratio: float | None = None, **more: Any) -> None:
    """Print one figure; ``ratio`` is peer ÷ ours, above 1 where we are faster."""
    figure = {"name": name, "value": round(value, 4), "unit": unit, "peer": peer}
    figure["ratio"] = None if ratio is None else round(ratio, 2)
    print(json.dumps({**figure, **more, "threads": 1, "machine": _machine()}), flush=True)


def _machine() -> str:
    model = ""
    about = Path("/proc/cpuinfo")
    if about.exists():
        model = next(
            (line.split(":", 1)[1].strip() for line in about.read_text().splitlines() if "model name" in line), ""
        )
    return f"{model or platform.machine()}, {os.cpu_count()} cores"
