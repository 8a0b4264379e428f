"""The part of the suite that shows the same objects under another look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likemind.evaluation.against_people import agreement_scores
from likemind.evaluation.odd_one_out import chosen, similarities
from likemind.evaluation.on_labels import Generalisation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.evaluation.context import Context, Scored, Subject


class Robustness:
    """Agreement and few-shot accuracy under the shifts that the data name."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._labels = Generalisation(context)

    def score(self, subject: Subject) -> Iterator[Scored]:
        """Yield the numbers about one layer."""
        for shift, rows in subject.shifted.items():
            yield from agreement_scores(self.context, shift, chosen(similarities(rows, self.context.heldout)))
            yield from self._labels.fewshot(f"{self.context.name}/{shift}", rows)
