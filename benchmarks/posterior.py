"""How long does it take to learn what people would answer, and to say it?

    python benchmarks/posterior.py [--quick]

4.1 M answers are drawn from the published VICE embedding ($LIKEMIND_SHARED_DATA/things/vice_embedding.npy).
Speeds only.
The peer trains as VICE does: 128 triplets a step, 10 draws, Adam at the best of three rates, with gathered rows alone,
gradients written out, and the prior once a step. Its budget ends the comparison, so the ratio is a lower bound.
"""

from __future__ import annotations

from _measure import cpu_seconds, quick, row

import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from likemind.readers.embeddings import HumanEmbedding
from likemind.teacher.posterior import ChoicePosterior, Prior, _parts

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS, HELD_OUT, RATES = 4_100_000, 50_000, (1e-3, 3e-3, 1e-2)
CHOSEN_FIRST = np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])


def drawn(vice: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n random triplets and the pair that was chosen of each."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(vice), size=(n + n // 50 + 100, 3), dtype=np.int32)
    a, b, c = rows.T
    rows = rows[(a != b) & (a != c) & (b != c)][:n]
    p = HumanEmbedding([str(k) for k in range(len(vice))], vice).probabilities(rows)
    return rows, (rng.random((n, 1)) > p.cumsum(axis=1)[:, :2]).sum(axis=1)


def held_out(loc: torch.Tensor, scale: torch.Tensor, rows: np.ndarray, pair: np.ndarray) -> float:
    """Return the cross-entropy of fresh answers under the predictive distribution of 25 draws."""
    found = ChoicePosterior(loc.shape[1])
    found.loc_, found.scale_ = loc.numpy(), scale.numpy()
    return -float(np.log(found.predict(rows)[np.arange(len(rows)), pair]).mean())


def peer(rows: torch.Tensor, m: int, rate: float, d: int = 100) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield location and log scale after each step of 128 triplets, whose chosen pair is the first two items."""
    n, draws, size, prior = len(rows), 10, 128, Prior()
    generator = torch.Generator().manual_seed(0)
    loc = torch.rand(m, d, generator=generator).mul_(0.3)
    log_scale = torch.full((m, d), -2.5)
    loc.grad, log_scale.grad = torch.zeros_like(loc), torch.zeros_like(log_scale)
    adam = torch.optim.Adam([loc, log_scale], lr=rate, fused=True)
    while True:
        for part in torch.randperm(n, generator=generator).split(size):
            items = rows[part].reshape(-1)
            noise, scale = torch.randn(draws, len(items), d, generator=generator), log_scale.exp()
            z = torch.addcmul(loc[items], scale[items], noise).relu_().view(draws, len(part), 3, d)
            a, b, c = z.unbind(2)
            q = torch.stack([(a * b).sum(-1), (a * c).sum(-1), (b * c).sum(-1)], -1).softmax(-1)
            q[..., 0] -= 1
            ab, ac, bc = q.div_(draws * len(part)).unsqueeze(-1).unbind(2)
            by_z = torch.stack([ab * b + ac * c, ab * a + bc * c, ac * a + bc * b], 2).mul_(z > 0).view(draws, -1, d)
            whole = torch.randn(m, d, generator=generator)
            by_x = prior.slope(torch.addcmul(loc, scale, whole)).div_(-n)
            loc.grad.copy_(by_x).index_add_(0, items, by_z.sum(0))
            log_scale.grad.copy_(by_x.mul_(whole)).index_add_(0, items, (by_z * noise).sum(0)).mul_(scale).sub_(1 / n)
            adam.step()
            yield loc, log_scale


def peers_best(
    rows: torch.Tensor, m: int, rate: float, budget: float, every: float, asked: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float, float]:
    """Return the peer's lowest held-out cross-entropy, the CPU seconds it took, and those of one step."""
    best, at, spent, due, steps = float("inf"), 0.0, 0.0, every, 0
    start = time.process_time()
    for loc, log_scale in peer(rows, m, rate):
        steps += 1
        if spent + time.process_time() - start < due:
            continue
        spent += time.process_time() - start
        best, at = min((best, at), (held_out(loc, log_scale.exp(), *asked), spent))
        if spent >= budget:
            return best, at, spent / steps
        due, start = due + every, time.process_time()
    raise AssertionError("the peer never ends by itself")


def ours(rows: np.ndarray, pair: np.ndarray, m: int, target: float, asked: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the CPU seconds, setting up included, after which held-out cross-entropy is at most the target."""
    targets = np.eye(3, dtype=np.float32)[pair]
    start = time.process_time()
    found = ChoicePosterior()
    found.answers_, found.loc_ = float(len(rows)), np.zeros((m, 100), dtype=np.float32)
    spent = 0.0
    for step, (loc, log_scale) in enumerate(found.steps(_parts(rows, targets, None, m, 0, "cpu"), m)):
        if step % 10 == 9:
            spent += time.process_time() - start
            if held_out(loc, log_scale.exp(), *asked) <= target:
                return spent
            start = time.process_time()
    return float("nan")


def main() -> None:
    """Follow the peer, then ours to the same cross-entropy; then time the predictive distribution."""
    short = quick(__doc__)
    shared = os.environ.get("LIKEMIND_SHARED_DATA")
    if not shared:
        sys.exit("posterior: set LIKEMIND_SHARED_DATA to the folder with things/vice_embedding.npy")
    vice = np.load(Path(shared) / "things" / "vice_embedding.npy")
    m = len(vice)
    (rows, pair), asked = drawn(vice, ANSWERS, 0), drawn(vice, HELD_OUT, 1)
    tiny = np.arange(12).reshape(4, 3) % m
    ChoicePosterior(4, max_steps=2).fit(tiny, np.eye(3)[[0, 1, 2, 0]], objects=m).predict(tiny)  # compiles
    ordered = torch.from_numpy(np.take_along_axis(rows, CHOSEN_FIRST[pair], 1)).long()
    rate = RATES[0] if short else min(RATES, key=lambda r: peers_best(ordered, m, r, 40, 40, asked)[0])
    best, at, a_step = peers_best(ordered, m, rate, 14 if short else 400, 7 if short else 25, asked)
    spent = ours(rows, pair, m, best, asked)
    cut = f"mini-batches of 128, 10 draws, Adam {rate:g}, {a_step * 1e3:.2f} ms a step, cut off: a lower bound"
    unit = f"CPU s to a held-out cross-entropy of {best:.4f}, 4.1 M answers"
    row("posterior/time_to_ce", spent, unit, peer=cut, ratio=at / spent)
    found = ChoicePosterior()
    found.loc_ = np.pad(vice, ((0, 0), (0, 58)))
    found.scale_ = np.full_like(found.loc_, 0.15)
    n = 1_000_000
    row(
        "posterior/predictive",
        n / cpu_seconds(lambda: found.predict(rows[:n]), 1 if short else 3),
        "triplets a CPU s, 25 draws, 100 dimensions, 1 M triplets",
    )
    row("posterior/memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB, this whole process")


if __name__ == "__main__":
    main()
