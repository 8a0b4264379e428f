"""Learning new categories from a few examples: the tasks, and the classifiers that solve them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from likemind.errors import LikemindError

EPISODES = 40
QUERIES = 10
ALPHAS = np.logspace(-3, 3, 13)


@dataclass(frozen=True, eq=False)
class Episode:
    """One task: rows to learn from, rows to be tested on, with their classes."""

    support: np.ndarray
    support_class: np.ndarray
    query: np.ndarray
    query_class: np.ndarray


def draw_episodes(categories: list[str], k: int, seed: int, *, episodes: int = EPISODES) -> list[Episode]:
    """Draw the same tasks for every model: k examples of each category, up to 10 others of each to be recognised.

    Args:
        categories: Of each row.
        k: Examples a category.
        seed: Decides the tasks, with the categories.
        episodes: Tasks.

    Raises:
        LikemindError: Fewer than two categories have more than k rows.
    """
    names, label = np.unique(categories, return_inverse=True)
    usable = [c for c in range(len(names)) if (label == c).sum() > k]
    if len(usable) < 2:
        raise LikemindError(f"{k}-shot tasks need two categories with more than {k} images: label more images")
    tasks = []
    for number in range(episodes):
        rng = np.random.default_rng([seed, k, number])
        drawn = [rng.permutation(np.flatnonzero(label == c)) for c in usable]
        support, query = [rows[:k] for rows in drawn], [rows[k : k + QUERIES] for rows in drawn]
        classes = [np.repeat(np.arange(len(usable)), [len(rows) for rows in part]) for part in (support, query)]
        tasks.append(Episode(np.concatenate(support), classes[0], np.concatenate(query), classes[1]))
    return tasks


def accuracies(
    embedding: np.ndarray, tasks: list[Episode], method: Literal["ridge", "centroid"] = "ridge"
) -> np.ndarray:
    """Return the accuracy on each task, (tasks,).

    Args:
        embedding: (rows, d), unit rows.
        tasks: From ``draw_episodes``.
        method: ``ridge`` is scikit-learn's ``RidgeClassifierCV`` (alphas 1e-3…1e3); ``centroid`` the nearest class mean
            by cosine.
    """
    found = zip(decisions(embedding, tasks, method), tasks, strict=True)
    return np.array([float((scores.argmax(axis=1) == task.query_class).mean()) for scores, task in found])


def decisions(
    embedding: np.ndarray, tasks: list[Episode], method: Literal["ridge", "centroid"] = "ridge"
) -> list[np.ndarray]:
    """Return each classifier's scores on each task, (queries, classes) float64; the largest one is its choice."""
    solve = _ridge if method == "ridge" else _centroid
    rows = in_own_span(embedding.astype(np.float64))
    return [solve(rows, task) for task in tasks]


def chance(tasks: list[Episode]) -> float:
    """Return the accuracy of guessing."""
    return 1 / len(np.unique(tasks[0].query_class))


def in_own_span(embedding: np.ndarray) -> np.ndarray:
    """Rotate rows into as many dimensions as they span: both classifiers see the same geometry, in less time."""
    rows, width = embedding.shape
    if rows >= width:
        return embedding
    rotated: np.ndarray = np.asarray(np.linalg.qr(embedding.T, mode="r")).T
    return rotated


def _ridge(embedding: np.ndarray, task: Episode) -> np.ndarray:
    from sklearn.linear_model import RidgeClassifierCV

    fitted = RidgeClassifierCV(alphas=ALPHAS).fit(embedding[task.support], task.support_class)
    scores: np.ndarray = fitted.decision_function(embedding[task.query])
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def _centroid(embedding: np.ndarray, task: Episode) -> np.ndarray:
    classes = np.unique(task.support_class)
    means = np.stack([embedding[task.support[task.support_class == c]].mean(axis=0) for c in classes])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    scores: np.ndarray = embedding[task.query] @ means.T
    return scores
