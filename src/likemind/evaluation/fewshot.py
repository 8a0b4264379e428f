"""Learning new categories, from a few examples or from many, with an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from likemind.choice import fit_temperature, log_probabilities
from likemind.episodes import ALPHAS, Episode, accuracies, decisions, in_own_span
from likemind.evaluation.bootstrap import bootstrap_sums
from likemind.evaluation.calibration import BINS
from likemind.evaluation.intervals import Resampled, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

NEIGHBOURS = 20
SHARPNESS = 0.07


def fewshot(
    embedding: np.ndarray, tasks: list[Episode], seed: int, *, method: Literal["ridge", "centroid"] = "ridge"
) -> Resampled:
    """Return the accuracy over tasks; tasks are what is resampled.

    Args:
        embedding: (rows, d), unit rows.
        tasks: From ``draw_episodes``.
        seed: Of the resampling.
        method: As for ``likemind.episodes.accuracies``.
    """
    return mean_estimate(accuracies(embedding, tasks, method), seed)


def fewshot_calibrated(embedding: np.ndarray, tasks: list[Episode], seed: int) -> dict[str, Resampled]:
    """Return the ridge classifier's accuracy, and how well it knows when it is right.

    Its probabilities are the softmax of its scores at one temperature, which for every other task is fitted on the
    tasks between: no query serves for its own temperature.

    Args:
        embedding: (rows, d), unit rows.
        tasks: At least two, from ``draw_episodes``.
        seed: Of the resampling; tasks are what is resampled.

    Returns:
        ``fewshot``, the accuracy; ``fewshot_ece``, the expected calibration error over all queries (15 bins of equal
        width; Guo et al. 2017, eq. 3); ``fewshot_nll``, the cross-entropy in nats.
    """
    scores = [torch.from_numpy(one) for one in decisions(embedding, tasks, "ridge")]
    truths = [torch.from_numpy(task.query_class) for task in tasks]
    accuracy = np.array([float((s.argmax(1) == y).double().mean()) for s, y in zip(scores, truths, strict=True)])
    tau = [_temperature(scores[half::2], truths[half::2]) for half in (0, 1)]
    nats, gaps = np.empty(len(tasks)), np.empty((len(tasks), BINS + 1))
    for number, (score, truth) in enumerate(zip(scores, truths, strict=True)):
        log_p = log_probabilities(score, tau[1 - number % 2])
        nats[number] = float(-log_p.gather(1, truth[:, None]).mean())
        confidence, picked = (one.numpy() for one in log_p.exp().max(dim=1))
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        gaps[number, :BINS] = np.bincount(bins, confidence - (picked == truth.numpy()), minlength=BINS)
        gaps[number, BINS] = len(truth)

    def error(sums: np.ndarray) -> np.ndarray:
        off: np.ndarray = np.abs(sums[..., :BINS]).sum(axis=-1) / sums[..., BINS]
        return off

    whole = float(error(gaps.sum(axis=0)))
    drawn = error(bootstrap_sums(gaps, seed))
    drawn = np.maximum(drawn - (drawn.mean() - whole), 0.0)  # drawing tasks again adds scatter, and so error
    return {
        "fewshot": mean_estimate(accuracy, seed),
        "fewshot_ece": Resampled(whole, len(tasks), drawn),
        "fewshot_nll": mean_estimate(nats, seed),
    }


def _temperature(scores: Sequence[torch.Tensor], truths: Sequence[torch.Tensor]) -> float:
    every = torch.cat(list(scores))
    wanted = torch.nn.functional.one_hot(torch.cat(list(truths)), every.shape[1]).double()
    return fit_temperature(every, wanted)


def halves(categories: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to learn from and those to be tested on: half of each category with four or more, at random."""
    names, label = np.unique(categories, return_inverse=True)
    rng = np.random.default_rng([seed, len(categories)])
    drawn = [rng.permutation(np.flatnonzero(label == c)) for c in range(len(names))]
    kept = [rows for rows in drawn if len(rows) >= 4]
    if len(kept) < 2:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    learn, test = [rows[: len(rows) // 2] for rows in kept], [rows[len(rows) // 2 :] for rows in kept]
    return np.sort(np.concatenate(learn)), np.sort(np.concatenate(test))


def nearest_neighbours(embedding: np.ndarray, categories: Sequence[str], seed: int) -> Resampled:
    """Return the accuracy of a vote of the 20 nearest images by cosine, each weighing exp(cosine / 0.07).

    Wu et al. 2018; the settings are those of DINO (Caron et al. 2021). Tested images are what is resampled.

    Shapes:
        embedding: (n, d) unit rows.
    """
    label = np.unique(categories, return_inverse=True)[1]
    learn, test = halves(categories, seed)
    cosines = embedding[test].astype(np.float64) @ embedding[learn].T.astype(np.float64)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    weight = np.exp((np.take_along_axis(cosines, nearest, axis=1) - 1) / SHARPNESS)
    votes = np.zeros((len(test), label.max() + 1))
    np.add.at(votes, (np.arange(len(test))[:, None], label[learn][nearest]), weight)
    return mean_estimate((votes.argmax(axis=1) == label[test]).astype(float), seed)


def linear_probe(embedding: np.ndarray, categories: Sequence[str], seed: int) -> Resampled:
    """Return the accuracy of a ridge classifier on half of the images; its penalty is chosen by leaving one out.

    Tested images are what is resampled.

    Shapes:
        embedding: (n, d) unit rows.
    """
    from sklearn.linear_model import RidgeClassifierCV

    label = np.unique(categories, return_inverse=True)[1]
    learn, test = halves(categories, seed)
    rows = in_own_span(embedding.astype(np.float64))
    fitted = RidgeClassifierCV(alphas=ALPHAS).fit(rows[learn], label[learn])
    return mean_estimate((fitted.predict(rows[test]) == label[test]).astype(float), seed)
