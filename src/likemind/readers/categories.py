"""What each item shows: a table with the columns ``id`` and ``category``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likemind.errors import LikemindError
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from likemind.artifacts import PathLike


def read_categories(categories: PathLike | Mapping[str, str], option: str) -> dict[str, str]:
    """Return the category of each item; items of which nobody says what they show are left out.

    Args:
        categories: Item → category, or a Parquet table with the columns ``id`` and ``category`` (an evaluation
            folder's ``items.parquet``).
        option: What the table was given as, such as ``--groups``; an error names it.

    Raises:
        LikemindError: There is no such table, or it lacks a column.

    Example:
        >>> read_categories({"tom.jpg": "cat", "blur.jpg": ""}, "--classes")
        {'tom.jpg': 'cat'}
    """
    if isinstance(categories, Mapping):
        return _known(categories.items())
    table = read_table(Path(categories))
    missing = [name for name in ("id", "category") if name not in table.column_names]
    if missing:
        raise LikemindError(f"{categories} has no column {', '.join(missing)}: name another {option}")
    return _known(zip(table.column("id").to_pylist(), table.column("category").to_pylist(), strict=True))


def _known(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {str(name): str(shows) for name, shows in pairs if shows not in (None, "")}
