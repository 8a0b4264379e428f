"""The full-batch objective: every triplet over m objects in one pass through one m×m matrix.

A triplet's loss depends on three entries of the Gram matrix G = Z Zᵀ alone. So one pass over n triplets costs O(n) for
the entries and O(m² d) for the matrix, instead of O(n d) for gathered rows, and a quasi-Newton method can see them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from likemind.choice import PAIRS, log_probabilities

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class GramObjective:
    """Mean cross-entropy between people's choice distribution and softmax over a Gram matrix's entries.

    loss(G) = − Σ_s w_s Σ_pair p_s(pair) log softmax(G_pair) / Σ_s w_s
    (Muttenthaler et al. 2025, Methods: uncertainty distillation, up to the targets' constant entropy).

    Args:
        indices: (n, 3) positions in 0…objects−1.
        targets: (n, 3) distributions over the pairs 01, 02, 12.
        weights: (n,) number of answers behind each.
        objects: Rows of the Gram matrix, m.

    Example:
        >>> import numpy as np
        >>> objective = GramObjective(np.array([[0, 1, 2]]), np.array([[1.0, 0.0, 0.0]]), np.ones(1), 3)
        >>> round(objective(torch.zeros(3, 3, dtype=torch.float64))[0], 4)  # ln 3
        1.0986
    """

    def __init__(self, indices: np.ndarray, targets: np.ndarray, weights: np.ndarray, objects: int) -> None:
        triplets = torch.as_tensor(indices, dtype=torch.int64)
        self._cells = torch.stack([triplets[:, a] * objects + triplets[:, b] for a, b in PAIRS], dim=1)
        self._targets = torch.as_tensor(targets, dtype=torch.float64)
        share = torch.as_tensor(weights, dtype=torch.float64)
        self._share = (share / share.sum()).unsqueeze(1)
        self._objects = objects

    def __call__(self, gram: Tensor) -> tuple[float, Tensor]:
        """Return the loss and its gradient with respect to each entry that is read.

        Shapes:
            gram: (m, m) float64. Returns a float and (m, m); the gradient is not symmetrised.
        """
        log_p = log_probabilities(gram.reshape(-1)[self._cells])
        loss = -(self._share * self._targets * log_p).sum()
        by_pair = self._share * (log_p.exp() - self._targets)
        gradient = torch.zeros(self._objects * self._objects, dtype=torch.float64)
        gradient.index_add_(0, self._cells.reshape(-1), by_pair.reshape(-1))
        return float(loss), gradient.view(self._objects, self._objects)
