"""Real files, which are no part of this repository: tests of them are skipped where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("LIKEMIND_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
THINGS = DATA / "things"
LEVELS = DATA / "levels_example"

needs_things = pytest.mark.skipif(not THINGS.is_dir(), reason=f"{THINGS} is not there (set LIKEMIND_TEST_DATA)")
needs_levels = pytest.mark.skipif(not LEVELS.is_dir(), reason=f"{LEVELS} is not there (set LIKEMIND_TEST_DATA)")
