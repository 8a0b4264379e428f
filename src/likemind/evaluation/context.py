"""What all parts of the suite share: the data, how numbers are made, and one layer of one model to be scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from likemind.choice import fit_temperature, log_probabilities
from likemind.errors import LikemindError
from likemind.evaluation.odd_one_out import Trials, similarities
from likemind.evaluation.people import in_earnest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from likemind.datasets.evaluation_set import EvaluationSet, Split
    from likemind.datasets.shifts import ShiftSets
    from likemind.evaluation.intervals import Estimate, Intervals
    from likemind.evaluation.models import Model
    from likemind.triplets import Triplets


@dataclass(frozen=True, eq=False)
class Scored:
    """One number about one layer of one model, before it is written down.

    Attributes:
        metric: Its id without the layer.
        estimate: The number.
        chance, ceiling, ceiling_low, higher_is_better, temperature: As in ``Score``.
        source: As there; that of the data if None.
        similarity: As there; the layer's if None.
    """

    metric: str
    estimate: Estimate
    chance: float | None = None
    ceiling: float | None = None
    higher_is_better: bool = True
    source: str | None = None
    temperature: float | None = None
    similarity: str | None = None
    ceiling_low: float | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """What a layer says of triplets.

    Attributes:
        cosines: (n, 3) by pair.
        temperature: Fitted.
        after: (n, 3) log p(pair) at that temperature.
    """

    cosines: torch.Tensor
    temperature: float
    after: torch.Tensor


@dataclass(frozen=True, eq=False)
class Subject:
    """One layer of one model.

    Attributes:
        context: What it is scored on.
        model: Whose.
        layer: Its name.
        rows: (items, d) unit rows, in the order of the context's ids.
        raw: (items, d) rows before their length is made one; None where that is no embedding of its own.
        shifted: Shift → rows under it; zeros for items that are not held out.
    """

    context: Context
    model: Model
    layer: str
    rows: np.ndarray
    raw: np.ndarray | None
    shifted: dict[str, np.ndarray]

    @cached_property
    def choice(self) -> Choice:
        """What it says of the held-out triplets; the temperature is fitted on the validation judgements."""
        context = self.context
        cosines = similarities(self.rows, context.heldout)
        people = torch.from_numpy(context.validation.people)
        temperature = fit_temperature(similarities(self.rows, context.validation), people)
        return Choice(cosines, temperature, log_probabilities(cosines, temperature))


class Part(Protocol):
    """Part of the suite: made once, then asked about each layer of each model."""

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        ...


class Context:
    """The evaluation set, ready to be scored on.

    Attributes:
        data: The evaluation folder.
        ids: Of its items, which the rows of embeddings follow.
        name: Of the data.
        seed: Of tasks and resampling.
        intervals: ``clustered`` or ``independent``.
        sets: Data sets that robustness is tested on, if there are any.
        features: Where features of their photographs go.
        people: File of answers → who was left out of it, and why.
    """

    def __init__(
        self,
        data: EvaluationSet,
        seed: int,
        intervals: Intervals = "clustered",
        sets: ShiftSets | None = None,
        features: Path = Path("features"),
    ) -> None:
        self.data, self.seed, self.intervals = data, seed, intervals
        self.sets, self.features = sets, features
        self.ids = [item.id for item in data.items]
        self.name = data.description.name
        self.people: dict[str, dict[str, Any]] = {}

    @cached_property
    def heldout(self) -> Trials:
        """The judgements that models are scored on."""
        return self._trials("heldout")

    @cached_property
    def validation(self) -> Trials:
        """The judgements that temperatures are fitted on."""
        return self._trials("validation")

    def _trials(self, split: Split) -> Trials:
        categories = [item.category for item in self.data.items]
        judgements = self.earnest(split, self.data.judgements(split))
        if not len(judgements):
            raise LikemindError(f"{self.data.path}: no {split} judgement is left to score on: give more")
        return Trials.of(judgements, self.ids, f"the items of {self.data.path}", categories)

    def earnest(self, name: str, judgements: Triplets) -> Triplets:
        """Return the answers of those who cannot but have looked; notes in ``people`` who is left out."""
        left, report = in_earnest(judgements)
        self.people |= {name: report} if report else {}
        return left

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the rows of embeddings of these items, (n,)."""
        place = {name: row for row, name in enumerate(self.ids)}
        return np.array([place[name] for name in ids], dtype=int)
