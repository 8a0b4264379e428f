"""The order of a triplet's pairs. Apart from ``likemind.choice``, so that reading a table need not wait for torch."""

from __future__ import annotations

PAIRS: tuple[tuple[int, int], ...] = ((0, 1), (0, 2), (1, 2))
"""Positions of the pairs in a triplet, in the order that every array of three follows."""

ODD_OF_PAIR: tuple[int, int, int] = (2, 1, 0)
"""Position of the odd one out when pair 0, 1 or 2 is the most similar."""
