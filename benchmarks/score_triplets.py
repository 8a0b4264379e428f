"""How fast are millions of triplets scored, and how fast is a bootstrap of them?

    python benchmarks/score_triplets.py [--quick]

Row `score`: 4.7 million triplets over 1,854 items of width 1,152, as many as THINGS has, from features to the share of
answers matched. The peer gathers the rows of the three items in numpy, in blocks that fit a cache, and takes their
products; with --quick it does a tenth of the triplets, and its time is multiplied. Row `bootstrap`: 10,000 samples of
100,000 trials. The peer draws rows with numpy's generator and takes their mean, 1,000 samples (100 with --quick). Row
`clustered`: the standard error over images and people instead, on the same number of trials.
"""

from __future__ import annotations

from _measure import cpu_seconds, quick, row

import numpy as np

# isort: split
from likemind.evaluation.bootstrap import bootstrap_sums
from likemind.evaluation.clusters import Clusters
from likemind.evaluation.intervals import clustered_mean
from likemind.evaluation.kernel import choices

TRIPLETS, ITEMS, WIDTH = 4_700_000, 1854, 1152
TRIALS, SAMPLES = 100_000, 10_000


def gathered(rows: np.ndarray, triplets: np.ndarray, block: int = 4096) -> np.ndarray:
    """Return the pair with the largest product, from gathered rows."""
    out = np.empty(len(triplets), dtype=np.int8)
    for start in range(0, len(triplets), block):
        a, b, c = (rows[triplets[start : start + block, k]] for k in range(3))
        products = [np.einsum("ij,ij->i", x, y) for x, y in ((a, b), (a, c), (b, c))]
        out[start : start + block] = np.stack(products, axis=1).argmax(axis=1)
    return out


def score() -> None:
    """Print the row of scoring."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ITEMS, WIDTH), dtype=np.float32)
    triplets = rng.integers(ITEMS, size=(TRIPLETS, 3), dtype=np.int32)
    answer = rng.integers(3, size=TRIPLETS, dtype=np.int8)
    choices(rows, triplets[:10])
    found: list[np.ndarray] = []

    def ours() -> float:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        found.append(choices(unit, triplets))
        return float((found[-1] == answer).mean())

    own = cpu_seconds(ours, 3)
    part = TRIPLETS // 10 if SHORT else TRIPLETS
    theirs: list[np.ndarray] = []
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    spent = cpu_seconds(lambda: theirs.append(gathered(unit, triplets[:part]))) * TRIPLETS / part
    alike = float((found[0][:part] == theirs[0]).mean())
    how = f"numpy gather of rows, blocks of 4,096: {spent:.1f} CPU s" + (" (a tenth, times ten)" if SHORT else "")
    unit_name = f"CPU s for {TRIPLETS} triplets over {ITEMS} × {WIDTH} float32, normalising included"
    row("score_triplets/score", own, unit_name, peer=how, ratio=spent / own, same_choice=round(alike, 6))


def bootstrap() -> None:
    """Print the rows of intervals."""
    rng = np.random.default_rng(0)
    right = (rng.random(TRIALS) < 0.5).astype(np.float64)
    bootstrap_sums(right[:10, None], 0, 2)
    own = cpu_seconds(lambda: bootstrap_sums(right[:, None], 0, SAMPLES))
    few = 100 if SHORT else 1000

    def numpy_way() -> None:
        peer = np.random.default_rng(0)
        for _ in range(few):
            right[peer.integers(TRIALS, size=TRIALS, dtype=np.uint32)].mean()

    spent = cpu_seconds(numpy_way) * SAMPLES / few
    how = f"numpy, rows drawn and averaged: {spent:.1f} CPU s ({few} samples, times {SAMPLES // few})"
    row("score_triplets/bootstrap", own, f"CPU s, {SAMPLES} samples of {TRIALS} trials", peer=how, ratio=spent / own)
    items = np.argsort(rng.random((TRIALS // 10, 200)), axis=1)[:, :3]
    triplet, pair = np.repeat(np.arange(len(items)), 10), rng.integers(3, size=TRIALS)
    people = np.stack([np.bincount(triplet, pair == k, minlength=len(items)) / 10 for k in range(3)], axis=1)
    person = rng.integers(300, size=TRIALS)

    def clustered() -> float:
        clusters = Clusters(items, people, triplet, pair, person)
        return clustered_mean(np.tile([1.0, 0.0, 0.0], (len(items), 1)), clusters).error[0]

    spent = cpu_seconds(clustered, 3)
    row("score_triplets/clustered", spent, f"CPU s for one standard error over {TRIALS} answers of 300 people")


SHORT = quick(__doc__)

if __name__ == "__main__":
    score()
    bootstrap()
