"""How fast is a teacher fitted at the size of THINGS?

    python benchmarks/teacher.py [--quick]

``time_to_ce``: CPU seconds to the held-out cross-entropy that a mini-batch probe reaches in its budget. The peer is
gLocal's procedure (256 triplets a step, Adam, W = 0.001 I at the start, the same penalty form), with rows gathered, the
best of four learning rates; what it takes to look at the held-out triplets is counted for neither.
``one_pass``: loss and gradient of all of THINGS' triplets. ``cross_validation``: 5 penalties × 3 folds, and memory.
The full run draws ``docs/teacher-cost.svg``: one pass against the triplets and the objects.

Features are synthetic (VICE-like dimensions mixed with nuisances), answers are drawn from a choice model: times mean
something here, losses do not.
"""

from __future__ import annotations

from _measure import cpu_seconds, quick, row

import resource
import time
from pathlib import Path

import numpy as np
import torch

from likemind.choice import log_probabilities, pair_similarities
from likemind.teacher.affine import AffineProblem
from likemind.teacher.crossvalidate import Answered, cross_validate
from likemind.teacher.gram import GramObjective

OBJECTS, HELD_OUT = 1854, 100_000
RATES = (3e-5, 1e-4, 3e-4, 1e-3)
PEER_PENALTY, PENALTY = 1e-3, 1e-4
FIGURE = Path(__file__).parent.parent / "docs" / "teacher-cost.svg"


class Data:
    """Objects with 42 sparse dimensions that people see and 200 that they do not, all mixed in p features."""

    def __init__(self, objects: int, width: int, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        seen = np.maximum(rng.normal(size=(objects, 42)) - 0.8, 0) * 1.1
        hidden = np.maximum(rng.normal(size=(objects, 200)), 0) * 0.7
        mixed = np.concatenate([seen, hidden], axis=1) @ rng.normal(size=(242, width)) / 242**0.5
        self.X = (mixed + 0.1 * rng.normal(size=mixed.shape)).astype(np.float32)
        drawn = rng.integers(objects, size=(n + 4 * n // objects + 100, 3), dtype=np.int32)
        different = (drawn[:, 0] != drawn[:, 1]) & (drawn[:, 0] != drawn[:, 2]) & (drawn[:, 1] != drawn[:, 2])
        self.triplets = drawn[different][:n]
        gram = torch.from_numpy(seen @ seen.T)
        a, b, c = torch.from_numpy(self.triplets).long().T
        p = torch.stack([gram[a, b], gram[a, c], gram[b, c]], dim=1).softmax(1).numpy()
        self.pair = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=2)
        self.targets = np.eye(3, dtype=np.float32)[self.pair]


def peer(data: Data, train: int, rate: float, steps: int, look: int) -> list[tuple[float, float]]:
    """Return (CPU seconds, held-out cross-entropy) along a mini-batch fit."""
    X = torch.from_numpy((data.X - data.X.mean()) / data.X.std())
    width = X.shape[1]
    W = (torch.eye(width) * 1e-3).requires_grad_()
    b = torch.full((width,), 1e-3, requires_grad=True)
    optimiser = torch.optim.Adam([W, b], lr=rate)
    triplets, pair = torch.from_numpy(data.triplets).long(), torch.from_numpy(data.pair)
    order = torch.from_numpy(np.random.default_rng(0).permutation(train))
    spent, curve = 0.0, []
    for step in range(steps):
        start = time.process_time()
        chosen = order[torch.arange(step * 256, (step + 1) * 256) % train]
        rows, places = triplets[chosen].unique(return_inverse=True)
        z = X[rows] @ W + b
        loss = torch.nn.functional.cross_entropy(pair_similarities(z, places), pair[chosen])
        off = W - W.diagonal().mean() * torch.eye(width)
        optimiser.zero_grad()
        (loss + PEER_PENALTY * off.square().sum()).backward()
        torch.nn.utils.clip_grad_norm_([W, b], 1.0)
        optimiser.step()
        spent += time.process_time() - start
        if (step + 1) % look == 0:
            with torch.no_grad():
                curve.append((spent, held_out(X @ W + b, data, train)))
    return curve


def held_out(z: torch.Tensor, data: Data, train: int) -> float:
    """Return the cross-entropy of the answers after the first ``train``."""
    gram = z @ z.T
    a, b, c = torch.from_numpy(data.triplets[train:]).long().T
    log_p = log_probabilities(torch.stack([gram[a, b], gram[a, c], gram[b, c]], dim=1))
    return -float(log_p[torch.arange(len(a)), torch.from_numpy(data.pair[train:])].mean())


def ours(data: Data, train: int) -> list[tuple[float, float]]:
    """Return the same curve for the full-batch fit, everything counted from the raw arrays on."""
    curve: list[tuple[float, float]] = []
    looking, start = 0.0, time.process_time()
    passed = GramObjective.__call__

    def watched(self: GramObjective, z: torch.Tensor) -> tuple[float, torch.Tensor]:
        nonlocal looking
        found = passed(self, z)
        began = time.process_time()
        curve.append((began - start - looking, held_out(z, data, train)))
        looking += time.process_time() - began
        return found

    GramObjective.__call__ = watched  # type: ignore[method-assign]
    try:
        AffineProblem(data.X, data.triplets[:train], data.targets[:train]).solve(PENALTY)
    finally:
        GramObjective.__call__ = passed  # type: ignore[method-assign]
    return curve


def time_to_ce(*, fast: bool) -> None:
    """Race both to the peer's best."""
    train, steps, look = 500_000, 150 if fast else 2400, 50 if fast else 100
    data = Data(OBJECTS, 768, train + HELD_OUT)
    curves = {rate: peer(data, train, rate, steps, look) for rate in RATES}
    rate = min(curves, key=lambda one: min(loss for _, loss in curves[one]))
    theirs, target = min(curves[rate], key=lambda point: point[1])
    curve = ours(data, train)
    reached = next((seconds for seconds, loss in curve if loss <= target), None)
    if reached is None:
        raise SystemExit(f"the full-batch fit ended at {curve[-1]}, above the peer's {target:.4f}")
    end = f"{steps} steps" + ("; it is cut off long before it converges, and goes on getting better" if fast else "")
    row(
        "teacher/time_to_ce",
        reached,
        f"CPU s to held-out cross-entropy {target:.4f}, m=1854, p=768, 500 k triplets (ours ends at "
        f"{min(loss for _, loss in curve):.4f} after {curve[-1][0]:.1f} CPU s)",
        peer=f"mini-batch probe, 256 a step, best of {len(RATES)} rates ({rate:g}), {theirs:.1f} CPU s of {end}",
        ratio=theirs / reached,
    )


def one_pass(*, fast: bool) -> None:
    """Time loss and gradient in W at full size, at similarities as a fit has them."""
    data = Data(OBJECTS, 1152, 4_700_000)
    problem = GramObjective(data.triplets, data.targets, None, OBJECTS, dtype=torch.float32)
    X, W = torch.from_numpy(data.X - data.X.mean(axis=0)), torch.eye(1152)
    X *= 2 / float((X @ X.T).std()) ** 0.5  # similarities as far apart as a fit's, some nats

    def once() -> torch.Tensor:
        return X.T @ problem(X @ W)[1]

    once()
    row("teacher/one_pass", cpu_seconds(once, 3 if fast else 9), "CPU s, 4.7 M triplets, m=1854, p=1152, float32")


def cross_validation() -> None:
    """Time the choice of the penalty at full size, and take the process's peak memory."""
    data = Data(OBJECTS, 1152, 4_700_000)
    answered = Answered(data.X, data.triplets, data.targets, np.ones(len(data.triplets)), object_of=np.arange(OBJECTS))
    penalties = (0.03, 0.01, 0.003, 0.001, 0.0003)
    spent = cpu_seconds(lambda: cross_validate(answered, folds=3, penalties=penalties))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row(
        "teacher/cross_validation",
        spent,
        f"CPU s, 5 penalties × 3 folds, 4.7 M triplets, m=1854, p=1152; peak memory of the process {memory:.2f} GiB",
    )


def scaling() -> None:
    """Time a pass against n and m, and draw it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    by_n = [(n, 1854) for n in (10_000, 100_000, 1_000_000, 4_700_000, 20_000_000)]
    by_m = [(1_000_000, m) for m in (60, 250, 1000, 1854, 4000, 8000, 20_000)]
    for axis, points, name, which in (
        (axes[0], by_n, "triplets n, at m = 1,854 objects", 0),
        (axes[1], by_m, "objects m, at n = 1 M triplets", 1),
    ):
        spent = []
        for n, m in points:
            data = Data(m, 512, n)
            objective = GramObjective(data.triplets, data.targets, None, m, dtype=torch.float32)
            z = torch.from_numpy(data.X)
            objective(z)
            spent.append(cpu_seconds(lambda objective=objective, z=z: objective(z), 3))
            row(f"teacher/scaling n={n} m={m}", spent[-1], "CPU s a pass, p=512")
        axis.loglog([point[which] for point in points], spent, "o-", color="#3355aa")
        axis.set(xlabel=name, ylabel="CPU seconds a pass, p = 512")
        axis.grid(alpha=0.3)
    axes[1].axvline(8192, color="#999999", linestyle=":")
    axes[1].annotate(
        "beyond: only pairs\nthat are asked about", (8192, axes[1].get_ylim()[0]), fontsize=7, ha="right", va="bottom"
    )
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    """Run everything; with ``--quick``, the race is cut and the last two are left out."""
    fast = quick(__doc__)
    torch.set_num_threads(1)
    if not fast:
        cross_validation()  # first: its memory is the process's
    one_pass(fast=fast)
    time_to_ce(fast=fast)
    if not fast:
        scaling()


if __name__ == "__main__":
    main()
