"""Convert judgements to Parquet, and say what they hold."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from likemind.errors import LikemindError, few
from likemind.readers.embeddings import HumanEmbedding
from likemind.readers.judgements import Reading, Request, read
from likemind.triplets import LEVELS, Triplets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.artifacts import PathLike

_FEW = 10
"""Fewer answers all at one position say nothing of a person."""

_MANY = 0.4
"""Share of all answers at one position beyond which, and beyond chance, positions are no accident."""

_PLAUSIBLE = (0.15, 120.0)
"""Seconds within which people answer."""


@dataclass(frozen=True)
class Summary:
    """What a file of judgements holds; None is what it does not tell.

    Attributes:
        out: What was written.
        kind: ``triplets``, ``embedding`` or ``ratings``.
        format: As read.
        source: Of the judgements.
        items: Those that are judged.
        dimensions: Of an embedding.
        triplets: Different ones.
        trials: Rows.
        people: How many.
        repeats: Answers of a person to a triplet that they had answered before.
        self_consistency: Of the triplets that a person answered again, the share answered alike throughout.
        ceiling: Mean of the largest share of answers, over triplets with two or more answers. It is not corrected for
            their number, so that few answers raise it. For probabilities, the mean of the largest one.
        ceiling_left_out: The same, where each answer is compared with the most frequent among the others: corrected.
        ceiling_triplets: Over how many.
        levels: Trials by level.
        response_time: ``low``, ``median``, ``high`` in seconds, and how many are ``missing`` and ``implausible`` (not
            between 0.15 and 120 s).
        same_position: People with ten or more answers who always picked the same position.
        same_position_people: Their names as the file holds them (hashed, where it was read from text), five at most.
        notes: What else there is to say.
    """

    out: str
    kind: str
    format: str
    source: str
    items: int
    dimensions: int | None = None
    triplets: int | None = None
    trials: int | None = None
    people: int | None = None
    repeats: int | None = None
    self_consistency: float | None = None
    ceiling: float | None = None
    ceiling_left_out: float | None = None
    ceiling_triplets: int | None = None
    levels: dict[str, int] | None = None
    response_time: dict[str, float] | None = None
    same_position: int | None = None
    same_position_people: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it as text, a line each."""
        return [f"{self.out}: {self._what()} ({self.format}, source {self.source})", *map("  {}".format, self._more())]

    def _what(self) -> str:
        if self.kind == "ratings":
            return f"ratings of {self.items} items"
        if self.kind == "embedding":
            return f"an embedding of {self.items} items in {self.dimensions} dimensions"
        people = "" if self.people is None else f"{self.people} people, "
        return f"{people}{self.items} items, {self.triplets} different triplets, {self.trials} trials"

    def _more(self) -> list[str]:
        told = []
        if self.repeats is not None:
            alike = "" if self.self_consistency is None else f", answered alike {self.self_consistency:.3f}"
            told.append(f"repeats within people: {self.repeats}{alike}")
        if self.ceiling is not None:
            told.append(self._ceiling())
        if self.levels is not None:
            told.append("levels: " + ", ".join(f"{name} {count}" for name, count in self.levels.items()))
        if self.response_time is not None:
            t = self.response_time
            range_ = f"{t['low']:.2f} to {t['high']:.2f} s, median {t['median']:.2f} s"
            told.append(f"response time: {range_}; {t['implausible']} implausible, {t['missing']} missing")
        if self.same_position is not None:
            who = f" ({few(self.same_position_people)})" if self.same_position_people else ""
            told.append(f"people who always press the same position: {self.same_position}{who}")
        return told + self.notes

    def _ceiling(self) -> str:
        if self.ceiling_left_out is None:
            return f"ceiling: {self.ceiling:.3f}, the mean largest probability"
        return (
            f"ceiling: {self.ceiling:.3f}, not corrected for the number of answers (mean of the largest share over "
            f"{self.ceiling_triplets} triplets with two or more answers); {self.ceiling_left_out:.3f} corrected "
            "(each answer against the others)"
        )


def judgements(
    path: PathLike,
    *,
    out: PathLike,
    format: str | None = None,  # noqa: A002
    source: str | None = None,
    items: PathLike | Sequence[str] | None = None,
    order: str | None = None,
    scale: str | None = None,
    variable: str | None = None,
    overwrite: bool = False,
    **columns: str,
) -> Summary:
    """Convert a file of judgements to Parquet, and say what it holds.

    Args:
        path: The file; see ``read_judgements`` for it and for all that is not named here.
        out: A ``.parquet`` file.
        format: As for ``read_judgements``.
        source: As for ``read_judgements``.
        items: As for ``read_judgements``.
        order: As for ``read_judgements``.
        scale: As for ``read_judgements``.
        variable: As for ``read_judgements``.
        overwrite: Replace ``out``.
        columns: As for ``read_judgements``.

    Returns:
        What it holds.

    Raises:
        LikemindError: As for ``read_judgements``; or ``out`` is there, or cannot be written. Then it is as it was.

    Example:
        >>> judgements("levels.pkl", out="levels.parquet").self_consistency  # doctest: +SKIP
        0.83
    """
    target = Path(out)
    if target.suffix != ".parquet":
        raise LikemindError(f"{target} does not end in .parquet: name such a file as --out")
    if target.is_dir():
        raise LikemindError(f"{target} is a folder: give the file's own name")
    if target.exists() and not overwrite:
        raise LikemindError(f"{target} is there already: choose another --out, or pass --overwrite")
    if target.exists() and Path(path).exists() and target.samefile(path):
        raise LikemindError(f"{target} is the file that is read: choose another --out")
    found = read(path, Request(format, source, items, order, scale, variable, columns))
    summary = summarise(found, str(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        found.judgements.to_parquet(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            target.with_name(target.name + ".tmp").unlink()
        raise LikemindError(f"{target} cannot be written ({error.strerror}): choose another --out") from error
    return summary


def summarise(found: Reading, out: str = "") -> Summary:
    """Say what judgements hold."""
    held = found.judgements
    if not isinstance(held, Triplets):
        kind, wide = ("embedding", held.embedding.shape[1]) if isinstance(held, HumanEmbedding) else ("ratings", None)
        return Summary(out, kind, found.format, held.source, len(held), dimensions=wide, notes=found.notes)
    facts: dict[str, Any] = {"trials": len(held), "notes": found.notes}
    if held.choice is not None:
        facts |= _answers(held, held.choice)
        facts["notes"] = found.notes + _one_position(held.choice)
    else:
        facts["triplets"] = _count(_keys(held)[0])
        if held.probabilities is not None and len(held):
            facts |= {"ceiling": float(held.probabilities.max(axis=1).mean()), "ceiling_triplets": len(held)}
    if held.level is not None:
        facts["levels"] = {name: int((held.level == name).sum()) for name in LEVELS}
    if held.response_time is not None and np.isfinite(held.response_time).any():
        facts["response_time"] = _times(held.response_time)
    used = np.zeros(len(held.items), dtype=bool)
    for column in range(3):
        used[held.indices[:, column]] = True
    return Summary(out, "triplets", found.format, held.source, int(used.sum()), **facts)


def _answers(held: Triplets, choice: np.ndarray) -> dict[str, Any]:
    keys, ordered = _keys(held)
    distinct, triplet = np.unique(keys, return_inverse=True)
    triplet, triplets = triplet.reshape(-1), len(distinct)
    odd = np.take_along_axis(held.indices, choice[:, None].astype(np.int64), axis=1)
    answer = (ordered == odd).argmax(axis=1)
    facts = {"triplets": triplets} | _ceiling(triplet, answer, triplets)
    if held.participant is None:
        return facts
    person = pa.array(held.participant, pa.string()).dictionary_encode().indices.to_numpy().astype(np.int64)
    facts["people"] = int(person.max(initial=-1)) + 1
    return facts | _repeats(person, triplet, answer, triplets) | _same_position(person, choice, held.participant)


def _keys(held: Triplets) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each row, the same for the same three items, and the rows sorted."""
    ordered = np.sort(held.indices, axis=1)
    n = len(held.items)
    if n >= 2**21:  # three such numbers do not fit into 63 bits
        return np.unique(ordered, axis=0, return_inverse=True)[1].reshape(-1), ordered
    keys = ordered[:, 0].astype(np.int64)
    for column in (1, 2):
        keys *= n
        keys += ordered[:, column]
    return keys, ordered


def _count(keys: np.ndarray) -> int:
    """Return how many different numbers there are; ``np.unique`` takes four times the memory."""
    keys.sort()
    return (len(keys) > 0) + int((keys[1:] != keys[:-1]).sum())


def _ceiling(triplet: np.ndarray, answer: np.ndarray, triplets: int) -> dict[str, Any]:
    counts = np.bincount(triplet * 3 + answer, minlength=triplets * 3).reshape(-1, 3)
    answers = counts.sum(axis=1)
    counts, answers = counts[answers > 1], answers[answers > 1]
    if not len(counts):
        return {}
    right = np.zeros(len(counts))
    for one in range(3):
        others = counts.copy()
        others[:, one] -= 1
        best = others == others.max(axis=1, keepdims=True)
        right += counts[:, one] * best[:, one] / best.sum(axis=1)
    return {
        "ceiling": float((counts.max(axis=1) / answers).mean()),
        "ceiling_left_out": float((right / answers).mean()),
        "ceiling_triplets": len(counts),
    }


def _repeats(person: np.ndarray, triplet: np.ndarray, answer: np.ndarray, triplets: int) -> dict[str, Any]:
    _, group = np.unique(person * triplets + triplet, return_inverse=True)
    counts = np.bincount(group.reshape(-1) * 3 + answer, minlength=3 * (int(group.max(initial=-1)) + 1)).reshape(-1, 3)
    answers = counts.sum(axis=1)
    again = answers > 1
    alike = float((counts.max(axis=1) == answers)[again].mean()) if again.any() else None
    return {"repeats": int((answers - 1).sum()), "self_consistency": alike}


def _one_position(choice: np.ndarray) -> list[str]:
    """Say so if a position got more answers than an order at random can explain; all of them is a file's convention."""
    counts = np.bincount(choice, minlength=3)
    most, n = int(counts.argmax()), len(choice)
    if counts[most] == n or counts[most] <= max(_MANY * n, n / 3 + 5 * (2 * n / 9) ** 0.5):
        return []
    warning = (
        f"warning: {counts[most] / n:.1%} of all answers are at position {most} (counting from 0; chance 33.3%): "
        "people pressed without looking, or the order was not drawn at random"
    )
    return [warning]


def _same_position(person: np.ndarray, choice: np.ndarray, names: np.ndarray) -> dict[str, Any]:
    counts = np.bincount(person * 3 + choice, minlength=3 * (int(person.max(initial=-1)) + 1))
    by_person = counts.reshape(-1, 3)
    answers = by_person.sum(axis=1)
    who = np.flatnonzero((by_person.max(axis=1) == answers) & (answers >= _FEW))
    first = [str(names[(person == one).argmax()]) for one in who[:5]]
    return {"same_position": len(who), "same_position_people": first}


def _times(times: np.ndarray) -> dict[str, float]:
    there = times[np.isfinite(times)]
    low, high = _PLAUSIBLE
    return {
        "low": float(there.min()),
        "median": float(np.median(there)),
        "high": float(there.max()),
        "implausible": int(((there < low) | (there > high)).sum()),
        "missing": len(times) - len(there),
    }
