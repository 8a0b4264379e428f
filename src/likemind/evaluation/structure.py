"""Do things lie together by meaning, or by look?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from likemind.evaluation.intervals import Resampled, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

_SAMPLES = 200
NEIGHBOURS = 5
ALIKE = 0.1
"""Share of pairs that count as of one colour: the nearest tenth."""


def grouping(embedding: np.ndarray, groups: list[str], seed: int) -> Resampled:
    """Return the adjusted mutual information between k-means clusters and superordinate groups.

    As many clusters as groups (k-means++, best of ten starts). 0 is chance, 1 a perfect match. Items are resampled with
    their cluster held fixed.

    Shapes:
        embedding: (n, d) unit rows. groups: n names.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    names = np.array(groups)
    found = KMeans(n_clusters=len(set(groups)), n_init=10, random_state=seed).fit_predict(embedding)
    rng = np.random.default_rng([seed, len(names)])
    rows = [rng.integers(len(names), size=len(names)) for _ in range(_SAMPLES)]
    replicates = np.array([adjusted_mutual_info_score(names[r], found[r]) for r in rows])
    return Resampled(float(adjusted_mutual_info_score(names, found)), len(names), replicates)


def colour_of(picture: Image.Image) -> np.ndarray:
    """Return the mean colour of a picture in CIELAB (D65), (3,); white paper, as around a drawing, does not count."""
    pixels = np.asarray(picture.convert("RGB").resize((32, 32)), dtype=np.float64).reshape(-1, 3) / 255
    inked = pixels[(pixels < 0.98).any(axis=1)]
    mean: np.ndarray = _lab(inked if len(inked) else pixels).mean(axis=0)
    return mean


def _lab(rgb: np.ndarray) -> np.ndarray:
    """Turn sRGB (n, 3) in 0…1 into CIELAB (IEC 61966-2-1; CIE 15)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    x, y, z = (linear @ to_xyz.T / [0.95047, 1.0, 1.08883]).T
    fx, fy, fz = (np.where(v > 216 / 24389, np.cbrt(v), (24389 / 27 * v + 16) / 116) for v in (x, y, z))
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=1)


def same_colour(colours: np.ndarray) -> np.ndarray:
    """Return which items are of one colour, (n, n) bool: the tenth of pairs with the smallest ΔE*ab.

    Shapes:
        colours: (n, 3) in CIELAB.
    """
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    near: np.ndarray = apart <= np.quantile(apart[np.triu_indices(len(apart), 1)], ALIKE)
    return near


def neighbours(embedding: np.ndarray, wanted: np.ndarray, seed: int) -> tuple[Resampled, float]:
    """Return how many of each item's five nearest neighbours are of a wanted kind, and how many of all others are.

    Shapes:
        embedding: (n, d) unit rows. wanted: (n, n) bool, symmetric.
    """
    cosines = embedding.astype(np.float64) @ embedding.T.astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    share = np.take_along_axis(wanted, nearest, axis=1).mean(axis=1)
    others = ~np.eye(len(wanted), dtype=bool)
    return mean_estimate(share, seed), float(wanted[others].mean())


def common_depth(paths: Sequence[Sequence[str]]) -> np.ndarray:
    """Return how deep below the root two things part, (n, n) int: 0 where they share the root alone.

    Args:
        paths: Of each thing, the nodes from the root down to it.

    Example:
        >>> common_depth([["all", "animal", "ant"], ["all", "animal", "bee"], ["all", "car"]]).tolist()
        [[2, 1, 0], [1, 2, 0], [0, 0, 1]]
    """
    longest = max(map(len, paths))
    names = {name: number for number, name in enumerate(sorted({name for path in paths for name in path}))}
    table = np.full((len(paths), longest), -1)
    for row, path in enumerate(paths):
        table[row, : len(path)] = [names[name] for name in path]
    depth = np.full((len(paths), len(paths)), -1)
    together = np.ones_like(depth, dtype=bool)
    for column in table.T:
        together &= (column[:, None] == column[None]) & (column >= 0)[:, None]
        depth += together
    return depth


def similarity_by(embedding: np.ndarray, kinds: dict[str, np.ndarray], seed: int) -> dict[str, Resampled]:
    """Return the mean cosine of some pairs, counted from the mean of all pairs in their standard deviations.

    So that models whose cosines lie high or low, close or far, can be compared. Items are resampled; a sample's pairs
    of an item with itself do not count.

    Shapes:
        embedding: (n, d) unit rows. kinds: name → (n, n) bool, symmetric.
    """
    n = len(embedding)
    cosines = embedding.astype(np.float64) @ embedding.T.astype(np.float64)
    others = ~np.eye(n, dtype=bool)
    rng = np.random.default_rng([seed, n])
    drawn = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=_SAMPLES)])

    def mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        total, count = (((drawn @ one) * drawn).sum(axis=1) for one in (values * where, where.astype(np.float64)))
        return np.where(count > 0, total / np.where(count > 0, count, 1), np.nan)

    middle = mean(cosines, others)
    spread = np.sqrt(np.maximum(mean(cosines**2, others) - middle**2, 0))
    found = {}
    for name, pairs in kinds.items():
        away = mean(cosines, pairs & others) - middle
        standard = np.where(spread > 1e-7, away / np.where(spread > 1e-7, spread, 1), 0 * away)
        found[name] = Resampled(float(standard[0]), n, standard[1:])
    return found
