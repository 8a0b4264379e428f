"""Numbers in words: units, signs, intervals, and whose answers they are about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from likemind.evaluation.results import Score

OBSERVERS = {"human": "people", "human_model": "a model of people", "simulated": "simulated observers"}
_SOURCES = {
    "human": "answers from people",
    "human_model": "answers from a model of people",
    "simulated": "simulated answers",
    "pseudo": "answers from the teacher",
    "labels": "labels, no answers",
}
_ANSWERS = {
    "human": "Answers: recorded from people.",
    "human_model": "Answers: from a model of people, not from people themselves.",
    "simulated": "Answers: simulated; no claim about people.",
}
_NOTICES = {
    "human": "",
    "human_model": "The answers on this page come from a model of people, which may differ from people.",
    "simulated": "The answers on this page are simulated. Nothing on it is a claim about people.",
}
_MIXED = {
    "human_model": "Most answers on this page come from a model of people, which may differ from people. "
    "What people themselves answered is marked “answers from people”.",
    "simulated": "Most answers on this page are simulated and are no claim about people. "
    "What people themselves answered is marked “answers from people”.",
}
LEVELS = {
    "all": "All triplets",
    "between_class": "Between classes",
    "class_border": "At a class border",
    "within_class": "Within a class",
}
_SPLITS = {
    "heldout": "held-out items",
    "outline": "outlines",
    "train": "training items",
    "validation": "validation items",
}
_AGAINST = {
    "base": "the base model",
    "teacher": "the teacher",
    "control": "the control",
    "aligned": "the aligned model",
}


@dataclass(frozen=True)
class Measure:
    """How a metric is written.

    Attributes:
        name: What it is.
        unit: What a difference is counted in, as it stands after the number.
        scale: What the stored number is multiplied with.
        digits: After the decimal point.
        counted: What its ``n`` counts.
    """

    name: str
    unit: str
    scale: float
    digits: int
    counted: str

    def fine_enough(self, *values: float) -> Measure:
        """Return a measure with digits enough that no value other than zero is written as zero (two more at most)."""
        digits = next(
            (
                more
                for more in range(3)
                if all(abs(v * self.scale) >= 0.5 * 10 ** -(self.digits + more) or v == 0 for v in values)
            ),
            2,
        )
        return replace(self, digits=self.digits + digits)

    def number(self, value: float) -> str:
        """Write a value, with a true minus."""
        text = f"{value * self.scale:.{self.digits}f}"
        if float(text) == 0:
            text = text.removeprefix("-")
        return text.replace("-", "−")

    def signed(self, value: float) -> str:
        """Write a difference with its sign."""
        text = self.number(value)
        return text if text.startswith("−") or float(text) == 0 else f"+{text}"

    def interval(self, low: float, high: float) -> str:
        """Write a 95 % interval."""
        return f"[{self.number(low)}, {self.number(high)}]"


_MEASURES = {
    "agreement": Measure("Agreement, %", "points of agreement", 100, 1, "triplets"),
    "agreement_dot": Measure("Agreement by dot product, %", "points of agreement", 100, 1, "triplets"),
    "accuracy": Measure("Accuracy, %", "points of accuracy", 100, 1, "answers"),
    "majority": Measure("What most people answer, %", "points of accuracy", 100, 1, "triplets"),
    "twoafc": Measure("Which of two is nearer, %", "points of agreement", 100, 1, "comparisons"),
    "fewshot": Measure("Few-shot, %", "points of accuracy", 100, 1, "episodes"),
    "centroid": Measure("Nearest class mean, %", "points of accuracy", 100, 1, "episodes"),
    "fewshot_ece": Measure("Few-shot calibration error, %", "points of calibration error", 100, 1, "episodes"),
    "fewshot_nll": Measure("Few-shot cross-entropy, nats", "nats", 1, 3, "episodes"),
    "knn": Measure("Nearest neighbours’ class, %", "points of accuracy", 100, 1, "images"),
    "probe": Measure("Linear probe, %", "points of accuracy", 100, 1, "images"),
    "entropy_rt": Measure("Entropy and response time, ρ", "in rank correlation", 1, 2, "triplets"),
    "ece": Measure("Calibration error, %", "points of calibration error", 100, 1, "triplets"),
    "ece_adaptive": Measure("Calibration error, even bins, %", "points of calibration error", 100, 1, "triplets"),
    "brier": Measure("Brier score", "in Brier score", 1, 3, "triplets"),
    "risk_coverage": Measure("Area under risk and coverage", "in area", 1, 3, "triplets"),
    "nll": Measure("Cross-entropy, nats", "nats", 1, 3, "triplets"),
    "grouping": Measure("Grouping by meaning, AMI", "in adjusted mutual information", 1, 2, "items"),
    "neighbours": Measure("Neighbours, %", "points of neighbours", 100, 1, "items"),
    "tree": Measure("Similarity along the tree", "standard deviations of similarity", 1, 2, "items"),
    "rsa": Measure("Representational similarity, ρ", "in rank correlation", 1, 2, "items"),
}


def measure(stem: str) -> Measure:
    """Return how a metric is written, by the first part of its stem (``agreement.all`` → agreement)."""
    return _MEASURES.get(stem.split(".", maxsplit=1)[0], Measure(stem, "", 1, 3, "trials"))


def count(number: int) -> str:
    """Write a count with separators."""
    return f"{number:,}"


def counts(numbers: Sequence[int]) -> str:
    """Write one count, or the range of several."""
    low, high = min(numbers), max(numbers)
    return count(low) if low == high else f"{count(low)}–{count(high)}"


def frame(scores: Sequence[Score], stem: str, *, sourced: bool = True) -> str:
    """Write what scores share: n, chance, ceiling and, where ``sourced``, whose answers they rest on."""
    how = measure(stem)
    parts = [f"n\u00a0{counts([score.n for score in scores])} {how.counted}"]
    for name in ("chance", "ceiling"):
        known = [value for score in scores if (value := getattr(score, name)) is not None]
        span = dict.fromkeys(how.number(value) for value in (min(known), max(known))) if known else []
        parts.append(f"{name} {' to '.join(span)}" if known else f"no {name}")
    if sourced:
        parts += dict.fromkeys(source_name(score.source) for score in scores)
    return " · ".join(parts)


def against(model: str) -> str:
    """Name a model that another is compared with."""
    return _AGAINST.get(model, f"“{model}”")


def subject(model: str) -> str:
    """Name a model at the beginning of a sentence."""
    return {"aligned": "The aligned model", "base": "The base model"}.get(model, f"“{model}”")


def split_name(split: str) -> str:
    """Name a split or a shift."""
    return _SPLITS.get(split, split)


def level_name(level: str) -> str:
    """Name a level of triplets."""
    return LEVELS.get(level, level)


def tasks_name(tasks: str) -> str:
    """Name the classes that few-shot is tried on: ``caltech101/unseen`` → caltech101, unseen classes."""
    dataset, _, split = tasks.partition("/")
    return f"{dataset}, {split or 'other'} classes"


def source_name(source: str) -> str:
    """Say beside a number whose answers it rests on."""
    return _SOURCES.get(source, f"answers: {source}")


def answers(source: str) -> str:
    """Say in a caption where the answers come from."""
    return _ANSWERS.get(source, f"Answers: {source}.")


def notice(source: str, others: Collection[str] = ()) -> str:
    """Say at the top what the answers do not show, or nothing; ``others`` are the sources of single numbers."""
    mixed = "human" in others and source in _MIXED
    return _MIXED[source] if mixed else _NOTICES.get(source, "")


def credits_of(licences: dict[str, str]) -> list[str]:
    """Return the licences of the pictures; all of them where none is plainly theirs."""
    words = ("image", "picture", "photo", "drawing", "emoji")
    own = [text for what, text in licences.items() if any(word in what.lower() for word in words)]
    return own or list(licences.values())
