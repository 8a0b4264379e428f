from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from likemind.errors import LikemindError
from likemind.readers.categories import read_categories
from likemind.triplets import write_table

if TYPE_CHECKING:
    from pathlib import Path


def test_a_table_and_a_mapping(tmp_path: Path) -> None:
    ids, shown = ["a", "b", "c", "d"], ["cat", "", None, "dog"]
    write_table(tmp_path / "t.parquet", pa.table({"category": shown, "more": [1, 2, 3, 4], "id": ids}))
    wanted = {"a": "cat", "d": "dog"}
    assert read_categories(tmp_path / "t.parquet", "--classes") == wanted
    assert read_categories(dict(zip(ids, [s or "" for s in shown], strict=True)), "--classes") == wanted


def test_numbers_become_texts(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", pa.table({"id": [7, 8], "category": [0, 1]}))
    assert read_categories(tmp_path / "t.parquet", "--classes") == {"7": "0", "8": "1"}


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match=r"nowhere.parquet does not exist"):
        read_categories(tmp_path / "nowhere.parquet", "--classes")
    write_table(tmp_path / "t.parquet", pa.table({"id": ["a"], "class": ["cat"]}))
    with pytest.raises(LikemindError, match="has no column category: name another --classes"):
        read_categories(tmp_path / "t.parquet", "--classes")
