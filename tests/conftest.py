"""One thread, no network, no cache of the user's: what every test stands on. And the real photographs, if at hand."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CACHE = tempfile.mkdtemp(prefix="likemind-cache-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    NUMBA_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    LIKEMIND_CACHE=_CACHE,
    MPLBACKEND="Agg",
)

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("dev", max_examples=20, deadline=None, suppress_health_check=_SLOW_IS_FINE)
settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, suppress_health_check=_SLOW_IS_FINE, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public photographs and human data: ``$LIKEMIND_SHARED_DATA``, or a ``shared/data`` further up."""
    given = os.environ.get("LIKEMIND_SHARED_DATA")
    above = [folder / "shared" / "data" for folder in Path(__file__).resolve().parents]
    for folder in [Path(given)] if given else above:
        if (folder / "things" / "concepts.tsv").is_file():
            return folder
    pytest.skip("the public photographs are not at hand: set LIKEMIND_SHARED_DATA to their folder")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of a size such as ``64k`` and returns its folder; another call changes the size."""
    if sys.platform != "linux":
        pytest.skip("a tmpfs is Linux's")
    place = tmp_path / "disk"

    def of(size: str) -> Path:
        how, what = (
            (["-o", f"remount,size={size}"], [])
            if place.exists()
            else (["-t", "tmpfs", "-o", f"size={size}"], ["tmpfs"])
        )
        place.mkdir(exist_ok=True)
        tried = subprocess.run(["mount", *how, *what, str(place)], capture_output=True, text=True, check=False)
        if tried.returncode:
            place.rmdir()
            pytest.skip(f"mounting a small disk is not permitted here: {tried.stderr.strip()}")
        return place

    yield of
    if place.exists():
        subprocess.run(["umount", "-l", str(place)], check=True)
