"""Two-alternative judgements: which of two images is more like a third? In the layout of NIGHTS."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likemind.choice import TIE
from likemind.errors import LikemindError
from likemind.evaluation.clusters import Clusters
from likemind.evaluation.intervals import clustered_mean, mean_estimate
from likemind.triplets import read_table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from likemind.artifacts import PathLike
    from likemind.evaluation.intervals import Estimate, Intervals

COLUMNS = ("ref_path", "left_path", "right_path", "left_vote", "right_vote")


@dataclass(frozen=True, eq=False)
class TwoAlternatives:
    """Which of two images people found more like a reference.

    Attributes:
        rows: (n, 3) rows of the embedding: reference, left, right.
        left: (n,) share of votes for the left one.
        votes: (n,) their number.
        source: ``human`` unless the file says otherwise.
    """

    rows: np.ndarray
    left: np.ndarray
    votes: np.ndarray
    source: str = "human"

    @property
    def ceiling(self) -> float:
        """The mean larger share: what somebody who knows all votes gets."""
        return float(np.maximum(self.left, 1 - self.left).mean())

    def score(self, embedding: np.ndarray, seed: int, intervals: Intervals = "clustered") -> Estimate:
        """Return people's mean share for the model's choice by dot product; a tie is 0 (Fu et al. 2023, NIGHTS).

        Shapes:
            embedding: (items, d), unit rows for cosines.
        """
        reference, left, right = (embedding[self.rows[:, k]].astype(np.float64) for k in range(3))
        near, far = (reference * left).sum(axis=1), (reference * right).sum(axis=1)
        clear = np.abs(near - far) > TIE * np.maximum(np.abs(near), np.abs(far))
        share = np.where(clear, np.where(near > far, self.left, 1 - self.left), 0.0)
        if intervals == "independent":
            return mean_estimate(share, seed)
        none = np.zeros(0, dtype=np.int64)
        even = np.full((len(share), 3), 1 / 3)
        return clustered_mean(np.repeat(share[:, None], 3, axis=1), Clusters(self.rows, even, none, none, none))


def read_two_alternatives(path: PathLike, ids: Sequence[str], left_out: Collection[str] = ()) -> TwoAlternatives:
    """Read a table in the layout of NIGHTS' ``data.csv``, as CSV or Parquet.

    Args:
        path: With the columns ``ref_path``, ``left_path``, ``right_path``, ``left_vote``, ``right_vote`` (numbers of
            votes, or 1 and 0). Where there is a column ``split``, rows other than ``test`` are passed over, if any
            row says ``test``. A Parquet file may name another source in its metadata.
        ids: Ids of the images, which the paths must be.
        left_out: Ids of images whose rows are passed over.

    Raises:
        LikemindError: A column or an image is missing, or votes are no numbers; the row is named.
    """
    place = Path(path)
    rows, source = _table(place)
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise LikemindError(f"{place} has no rows, or no column {', '.join(missing)}: lay it out as NIGHTS does")
    if any(row.get("split") == "test" for row in rows):
        rows = [row for row in rows if row.get("split") == "test"]
    rows = [row for row in rows if not any(row[name] in left_out for name in COLUMNS[:3])]
    at = {name: position for position, name in enumerate(ids)}
    strange = sorted({str(row[name]) for row in rows for name in COLUMNS[:3]} - set(at))
    if strange:
        raise LikemindError(f"{place} names {len(strange)} images that are no items ({strange[0]!r}): add them")
    votes = np.array([[_votes(row[name], place, number) for name in COLUMNS[3:]] for number, row in enumerate(rows)])
    total = votes.sum(axis=1)
    if (total <= 0).any():
        raise LikemindError(
            f"{place}: row {int(np.flatnonzero(total <= 0)[0])} (counting from 0) has no vote: remove it"
        )
    places = np.array([[at[str(row[name])] for name in COLUMNS[:3]] for row in rows])
    return TwoAlternatives(places, votes[:, 0] / total, total, source)


def _table(place: Path) -> tuple[list[dict[str, Any]], str]:
    if place.suffix == ".parquet":
        table = read_table(place)
        return table.to_pylist(), (table.schema.metadata or {}).get(b"likemind.source", b"human").decode()
    try:
        with place.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file)), "human"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LikemindError(f"{place} cannot be read as CSV ({error}): check the path") from None


def _votes(value: Any, place: Path, number: int) -> float:
    try:
        votes = float(value)
    except (TypeError, ValueError):
        votes = -1.0
    if not 0 <= votes < np.inf:
        raise LikemindError(f"{place}: row {number} (counting from 0): {value!r} is no number of votes; mend it")
    return votes
