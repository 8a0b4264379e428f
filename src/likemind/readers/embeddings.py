"""Models of people: embeddings fitted to their answers, such as VICE and SPoSE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pyarrow as pa

from likemind.errors import LikemindError, first_line
from likemind.hashes import digest
from likemind.pairs import PAIRS
from likemind.readers.names import CONCEPT, is_number, needed, read_rows
from likemind.readers.things import is_npy, read_npy, read_numbers
from likemind.triplets import Triplets, read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.artifacts import PathLike
    from likemind.readers.names import ItemNames

Order = Literal["items", "photographs"]
EmbeddingSource = Literal["human_model", "simulated"]

_BY_PHOTOGRAPH = {"6c596ec9fe6e135e3fd32207d4d1d5eb004e3cef3810d5cb40474b1996d5392f": "VICE"}
"""SHA-256 of published files whose rows are in the alphabetical order of the photographs' names."""

_SURE = 0.95

_HEADINGS = frozenset(["image_name", "name", "item", "id", "word", "label", CONCEPT])
"""How a column of names is headed in tables whose dimensions have numbers for names."""


@dataclass(frozen=True, eq=False)
class HumanEmbedding:
    """Items as points whose dot products predict people's choices.

    Attributes:
        items: Names, each once.
        embedding: (m, k) float64.
        source: ``human_model`` or ``simulated``.

    Raises:
        LikemindError: The shapes do not fit, a value is not finite, or a name occurs twice.

    Example:
        >>> vice = HumanEmbedding(["ant", "bee", "car"], np.array([[2.0, 0], [2, 0], [0, 1]]))
        >>> vice.probabilities(np.array([[0, 1, 2]])).round(2)
        array([[0.96, 0.02, 0.02]])
    """

    items: Sequence[str]
    embedding: np.ndarray
    source: EmbeddingSource = "human_model"

    def __post_init__(self) -> None:
        try:
            matrix = np.asarray(self.embedding, dtype=np.float64)
        except (TypeError, ValueError):
            raise LikemindError("the embedding is not a matrix of numbers: mend it") from None
        m = len(self.items)
        if matrix.ndim != 2 or len(matrix) != m or not matrix.shape[1]:
            raise LikemindError(f"{m} items need an embedding of {m} rows, got {matrix.shape}: mend it")
        if not np.isfinite(matrix).all():
            row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
            raise LikemindError(f"the embedding of {self.items[row]!r} is not all finite: mend or remove it")
        if len(set(self.items)) < m:
            twice = next(name for name in self.items if list(self.items).count(name) > 1)
            raise LikemindError(f"{twice!r} has two rows: names must be unique")
        if self.source not in get_args(EmbeddingSource):
            known = ", ".join(get_args(EmbeddingSource))
            raise LikemindError(f"source {self.source!r} is not one of {known}: say where the embedding comes from")
        object.__setattr__(self, "items", list(self.items))
        object.__setattr__(self, "embedding", matrix)

    def __len__(self) -> int:
        return len(self.items)

    def similarities(self) -> np.ndarray:
        """Return the (m, m) dot products."""
        products: np.ndarray = self.embedding @ self.embedding.T
        return products

    def pair_similarities(self, indices: np.ndarray) -> np.ndarray:
        """Return the dot products of the pairs 01, 02, 12 of (n, 3) triplets, (n, 3)."""
        rows = [self.embedding[indices[:, position]] for position in range(3)]
        return np.stack([np.einsum("nk,nk->n", rows[a], rows[b]) for a, b in PAIRS], axis=1)

    def probabilities(self, indices: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Return the softmax of the dot products of the pairs 01, 02, 12 of (n, 3) triplets, (n, 3).

        Args:
            indices: Positions in ``items``.
            temperature: The dot products are divided by it. Embeddings on another scale than their model was fitted on
                need one: SPoSE as published (0 to 100) about 1600.
        """
        return _softmax(self.pair_similarities(np.asarray(indices)) / temperature)

    def triplets(self, n: int, seed: int = 0, temperature: float = 1.0) -> Triplets:
        """Draw ``n`` different triplets, uniformly, with similarities and the model's choice probabilities.

        Raises:
            LikemindError: There are not so many different triplets.

        Example:
            >>> HumanEmbedding(["ant", "bee", "car"], np.eye(3)).triplets(1).indices.tolist()
            [[0, 1, 2]]
        """
        total = math.comb(len(self), 3)
        if not 1 <= n <= total:
            raise LikemindError(f"{len(self)} items make {total} different triplets, {n} are asked for: ask for fewer")
        ranks = np.random.default_rng([seed, len(self), n]).choice(total, size=n, replace=False)
        indices = _unranked(ranks, len(self))
        similarities = self.pair_similarities(indices)
        return Triplets(
            self.items,
            indices,
            similarities=similarities,
            probabilities=_softmax(similarities / temperature),
            source=self.source,
        )

    def to_parquet(self, path: PathLike) -> None:
        """Write a table with the column ``item`` and one column a dimension."""
        columns = {"item": pa.array(list(self.items), pa.string())}
        columns |= {f"dim_{k}": pa.array(self.embedding[:, k]) for k in range(self.embedding.shape[1])}
        write_table(Path(path), pa.table(columns).replace_schema_metadata({"likemind.source": self.source}))

    @classmethod
    def from_parquet(cls, path: PathLike) -> HumanEmbedding:
        """Read what ``to_parquet`` wrote."""
        table = read_table(Path(path))
        names = [f"dim_{k}" for k in range(table.num_columns - 1)]
        if sorted(table.column_names) != sorted(["item", *names]) or not names or table.column("item").null_count:
            raise LikemindError(f"{path} is not an embedding (column item, then one a dimension): make it again")
        source = (table.schema.metadata or {}).get(b"likemind.source", b"human_model").decode(errors="replace")
        try:
            matrix = np.stack([table.column(name).to_numpy() for name in names], axis=1)
            return cls([str(name) for name in table.column("item").to_pylist()], matrix, source)
        except LikemindError as error:
            raise LikemindError(f"{path}: {error}") from None


def _softmax(values: np.ndarray) -> np.ndarray:
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return probabilities


def _unranked(ranks: np.ndarray, items: int) -> np.ndarray:
    """Return the triplets a < b < c with these numbers, where abc has the number C(c, 3) + C(b, 2) + a."""
    k = np.arange(items + 1, dtype=np.int64)
    threes, twos = k * (k - 1) * (k - 2) // 6, k * (k - 1) // 2
    c = np.searchsorted(threes, ranks, side="right") - 1
    rest = ranks - threes[c]
    b = np.searchsorted(twos, rest, side="right") - 1
    return np.stack([rest - twos[b], b, c], axis=1)


def read_embedding(
    path: Path, items: ItemNames | None, source: str | None, order: str | None
) -> tuple[HumanEmbedding, list[str]]:
    """Read an embedding: ``.npy``, a text file of numbers, a table with a column of names, or our own Parquet.

    Args:
        path: The file.
        items: Names of the rows; a table's own if None.
        source: ``human_model`` if None.
        order: ``items``: rows follow ``items``. ``photographs``: rows follow the alphabetical order of the reference
            photographs of THINGS' concepts, as VICE is published. ``items`` if None, but for the published VICE file,
            which is known by its hash.

    Returns:
        The embedding, its rows in the order of ``items``, and what there is to say of it.

    Raises:
        LikemindError: The file is not readable, names are missing, or as many rows as names are not there.
    """
    if order not in (None, *get_args(Order)):
        raise LikemindError(f"order {order!r} is not items or photographs: name one")
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet:
        found = HumanEmbedding.from_parquet(path)
        return found if source is None else HumanEmbedding(found.items, found.embedding, source), []  # type: ignore[arg-type]
    own, matrix, notes = _rows(path, items)
    names = own
    if items is not None:
        if len(matrix) != len(items) or matrix.ndim != 2:
            raise LikemindError(f"{path} has the shape {matrix.shape}, but {items.where} holds {len(items)} names")
        names = items.names
        matrix, more = _ordered(path, matrix, items, order)
        notes += more
    elif order == "photographs":
        raise LikemindError(f"{path}: the order of photographs needs names: pass items, THINGS' table of concepts")
    try:
        found = HumanEmbedding(needed(items, path).names if names is None else names, matrix, source or "human_model")  # type: ignore[arg-type]
    except LikemindError as error:
        text = str(error)
        raise LikemindError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    return found, notes + _scale(found)


def _ordered(path: Path, matrix: np.ndarray, items: ItemNames, order: str | None) -> tuple[np.ndarray, list[str]]:
    published = _BY_PHOTOGRAPH.get(digest(path))
    photographs = items.by_photograph()
    if order == "photographs" or (order is None and published and items.concepts):
        row = {name: number for number, name in enumerate(photographs)}
        moved = sum(mine != theirs for mine, theirs in zip(items.names, photographs, strict=True))
        what = f"{published}, as published: rows" if published else "rows"
        ordered: np.ndarray = matrix[[row[name] for name in items.names]]
        return ordered, [f"{what} are in the alphabetical order of photographs; {moved} moved to the order of items"]
    moved = sum(mine != theirs for mine, theirs in zip(items.names, photographs, strict=True))
    if items.concepts and moved and order is None:
        other = f"in that of photographs, in which VICE is published, {moved} rows would differ (order photographs)"
        return matrix, [f"rows are taken in the order of the concepts' table; {other}"]
    return matrix, []


def _scale(found: HumanEmbedding) -> list[str]:
    """Say when a softmax over the dot products is nearly certain, as for SPoSE's rescaled table."""
    if len(found) < 3:
        return []
    rows = np.random.default_rng(0).permuted(np.tile(np.arange(len(found)), (200, 1)), axis=1)[:, :3]
    sure = float(found.probabilities(rows).max(axis=1).mean())
    if sure < _SURE:
        return []
    return [f"choices are nearly certain (mean largest probability {sure:.3f}): its scale is not that of its model"]


def _rows(path: Path, items: ItemNames | None) -> tuple[list[str] | None, np.ndarray, list[str]]:
    """Return the file's own names, if it has any, its numbers, and what there is to say of the names."""
    if is_npy(path):
        return None, read_npy(path), []
    table = read_rows(path)
    if not table or len(table[0]) < 2 or all(is_number(cell) for cell in table[1 if len(table) > 1 else 0]):
        return None, read_numbers(path), []
    headed = not is_number(table[0][-1]) or not table[0][0].strip() or not _HEADINGS.isdisjoint(table[0])
    header, body = (table[0], table[1:]) if headed else (None, table)
    column = _name_column(header, body)
    uneven = next((row for row, cells in enumerate(body) if len(cells) != len(table[0])), None)
    if uneven is not None:
        raise LikemindError(f"{path}: row {uneven} (counting from 0) is not as long as the others; mend it")
    # What stands before the names counts the rows.
    try:
        matrix = np.array([cells[column + 1 :] for cells in body], dtype=np.float64)
    except ValueError as error:
        raise LikemindError(f"{path} does not hold numbers after the column of names ({first_line(error)})") from None
    names = [cells[column] for cells in body]
    if header is None or header[column] != "image_name":
        return names, matrix, []
    if items is None:
        raise LikemindError(
            f"{path}: its column image_name is in the order of photographs and its rows in that of concepts, "
            f"so that 21 names are wrong: pass items, THINGS' table of concepts (with the column {CONCEPT})"
        )
    return None, matrix, ["its column image_name, in which 21 names are wrong as published, is not used"]


def _name_column(header: list[str] | None, body: list[list[str]]) -> int:
    if header is not None and "image_name" in header:
        return header.index("image_name")
    words = [column for column, cell in enumerate(body[0]) if not is_number(cell)]
    return words[0] if words else 0
