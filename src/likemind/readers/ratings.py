"""How different people find each pair: a dissimilarity matrix with names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pyarrow as pa

from likemind.errors import LikemindError
from likemind.triplets import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.artifacts import PathLike

RatingSource = Literal["human", "human_model", "simulated"]


@dataclass(frozen=True, eq=False)
class RatingMatrix:
    """People's dissimilarities between all pairs of m items.

    Attributes:
        items: Names, each once.
        dissimilarities: (m, m) float64, symmetric, zeros on the diagonal; any unit, larger is less alike.
        source: ``human``, ``human_model`` or ``simulated``.

    Raises:
        LikemindError: The matrix is not square, finite, symmetric and zero on the diagonal, or a name occurs twice.

    Example:
        >>> RatingMatrix(["ant", "bee"], np.array([[0.0, 0.3], [0.3, 0.0]])).dissimilarities[0, 1]
        0.3
    """

    items: Sequence[str]
    dissimilarities: np.ndarray
    source: RatingSource = "human"

    def __post_init__(self) -> None:
        try:
            matrix = np.asarray(self.dissimilarities, dtype=np.float64)
        except (TypeError, ValueError):
            raise LikemindError("the dissimilarities are not a matrix of numbers: mend them") from None
        m = len(self.items)
        if matrix.shape != (m, m):
            raise LikemindError(f"{m} items need a matrix of {m} rows and columns, got {matrix.shape}: mend it")
        if not np.isfinite(matrix).all():
            row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
            raise LikemindError(f"the dissimilarities of {self.items[row]!r} are not all finite: fill or remove them")
        little = 1e-6 * max(1.0, np.abs(matrix).max(initial=0))
        if np.abs(matrix - matrix.T).max(initial=0) > little:
            raise LikemindError("the dissimilarities are not symmetric: average both directions")
        if np.abs(np.diagonal(matrix)).max(initial=0) > little:
            raise LikemindError("the diagonal is not zero: give dissimilarities, where larger is less alike")
        if len(set(self.items)) < m:
            twice = next(name for name in self.items if list(self.items).count(name) > 1)
            raise LikemindError(f"{twice!r} is rated twice: names must be unique")
        if self.source not in get_args(RatingSource):
            known = ", ".join(get_args(RatingSource))
            raise LikemindError(f"source {self.source!r} is not one of {known}: say where the ratings come from")
        object.__setattr__(self, "dissimilarities", matrix)

    def __len__(self) -> int:
        return len(self.items)

    def within(self, names: Sequence[str]) -> RatingMatrix:
        """Return the part about those of ``names`` that are rated, in the matrix's order."""
        known = set(names)
        rows = [row for row, name in enumerate(self.items) if name in known]
        return RatingMatrix([self.items[row] for row in rows], self.dissimilarities[np.ix_(rows, rows)], self.source)

    def to_parquet(self, path: PathLike) -> None:
        """Write a table with the column ``item`` and one column of dissimilarities an item."""
        columns = {"item": pa.array(list(self.items), pa.string())}
        columns |= {f"to_{k}": pa.array(self.dissimilarities[:, k]) for k in range(len(self))}
        write_table(Path(path), pa.table(columns).replace_schema_metadata({"likemind.source": self.source}))

    @classmethod
    def from_parquet(cls, path: PathLike) -> RatingMatrix:
        """Read what ``to_parquet`` wrote."""
        table = read_table(Path(path))
        names = [f"to_{k}" for k in range(table.num_rows)]
        if sorted(table.column_names) != sorted(["item", *names]) or table.column("item").null_count:
            raise LikemindError(f"{path} is not a matrix of ratings (column item, then one an item): make it again")
        items = [str(name) for name in table.column("item").to_pylist()]
        columns = [table.column(name).to_numpy() for name in names]
        source = (table.schema.metadata or {}).get(b"likemind.source", b"human").decode(errors="replace")
        try:
            return cls(items, np.stack(columns, axis=1) if items else np.zeros((0, 0)), source)
        except LikemindError as error:
            raise LikemindError(f"{path}: {error}") from None
