"""One thread, no network, no cache of the user's: what every test stands on. And the real photographs, if at hand."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

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
