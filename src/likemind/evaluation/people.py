"""Which people's answers count: a stated rule, and a report of whom it leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from likemind.triplets import Triplets

FEW = 10
"""Fewer answers say nothing of a person."""

PLAUSIBLE = (0.15, 120.0)
"""Seconds within which people answer."""


def in_earnest(judgements: Triplets) -> tuple[Triplets, dict[str, Any]]:
    """Leave out people who cannot have looked, and times that cannot be.

    Somebody with ten or more answers is left out if all are at one position, or if more than half of the times that
    were taken lie outside 0.15 to 120 s. Where everybody's answers are at one position it is the file's convention, and
    nobody is left out for it. Of the others, single such times are left out, and the answers stay.

    Returns:
        What is left, and the report: ``excluded`` (a ``participant``, the number of ``answers`` and ``why``) and
        ``times_left_out``; empty where there is nothing to report.
    """
    keep = np.ones(len(judgements), dtype=bool)
    excluded: list[dict[str, Any]] = []
    choice, time = judgements.choice, judgements.response_time
    strange = np.zeros(len(judgements), dtype=bool)
    if time is not None:
        strange = np.isfinite(time) & ((time < PLAUSIBLE[0]) | (time > PLAUSIBLE[1]))
    if judgements.participant is not None and choice is not None and len(choice):
        convention = bool((choice == choice[0]).all())
        names, person = np.unique(judgements.participant.astype(str), return_inverse=True)
        order = np.argsort(person.reshape(-1), kind="stable")
        for name, rows in zip(names, np.split(order, np.cumsum(np.bincount(person.reshape(-1)))[:-1]), strict=True):
            timed = int(np.isfinite(time[rows]).sum()) if time is not None else 0
            why = ""
            if len(rows) >= FEW and not convention and (choice[rows] == choice[rows[0]]).all():
                why = f"every answer at position {int(choice[rows[0]])} (counting from 0)"
            elif timed >= FEW and strange[rows].sum() > timed / 2:
                why = f"{int(strange[rows].sum())} of {timed} response times outside {PLAUSIBLE[0]:g} to 120 s"
            if why:
                keep[rows] = False
                excluded.append({"participant": str(name), "answers": len(rows), "why": why})
    left = judgements.rows(keep) if not keep.all() else judgements
    odd = strange[keep]
    if odd.any() and left.response_time is not None:
        left.response_time[odd] = np.nan
    report = {"excluded": excluded, "times_left_out": int(odd.sum())}
    return left, report if any(report.values()) else {}
