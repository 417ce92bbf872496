"""What the accuracy matrix of a stream says: ACC, BWT, FWT and forgetting.

R is [T, T], and R[i, j] is the score on experience j after learning experiences 0 to i. All raise CourseError when R
is not square, or a number that they need is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CourseError

Matrix = Sequence[Sequence[float]] | Tensor


def average_accuracy(matrix: Matrix) -> float:
    """ACC = 1/T sum_j R[T-1, j]: the mean of the last row (Lopez-Paz and Ranzato 2017, equation 2)."""
    return _mean(_square(matrix)[-1])


def backward_transfer(matrix: Matrix) -> float:
    """BWT = 1/(T-1) sum_{j < T-1} (R[T-1, j] - R[j, j]): below 0 is forgetting (same, equation 3)."""
    r = _square(matrix, least=2)
    return _mean((r[-1] - r.diagonal())[:-1])


def forward_transfer(matrix: Matrix, before: Sequence[float] | Tensor) -> float:
    """FWT = 1/(T-1) sum_{j > 0} (R[j-1, j] - b[j]): what earlier experiences did for a later one (same, equation 4).

    `before` is b, the scores before anything was learned, [T]; CourseError where it has another length.
    """
    r, b = _square(matrix, least=2), torch.as_tensor(before, dtype=torch.float64)
    if b.shape != r.shape[:1]:
        raise CourseError(f"`before` has shape {list(b.shape)} for {len(r)} experiences.", "give a score for each.")
    return _mean(r.diagonal(1) - b[1:])


def forgetting(matrix: Matrix) -> float:
    """F = 1/(T-1) sum_{j < T-1} (max_{j <= l < T-1} R[l, j] - R[T-1, j]) (Chaudhry et al. 2018, section 3).

    The maximum starts when the experience is learned; the paper counts scores from before that too.
    """
    r = _square(matrix, least=2)
    return _mean(torch.stack([r[j:-1, j].max() - r[-1, j] for j in range(len(r) - 1)]))


def plasticity(matrix: Matrix) -> float:
    """1/T sum_j R[j, j]: the mean score on each experience just after it was learned."""
    return _mean(_square(matrix).diagonal())


def _square(matrix: Matrix, least: int = 1) -> Tensor:
    r = torch.as_tensor(matrix, dtype=torch.float64)
    if r.ndim != 2 or r.shape[0] != r.shape[1] or len(r) < least:
        remedy = f"give T rows of T scores, with T at least {least}."
        raise CourseError(f"the accuracy matrix has shape {list(r.shape)}.", remedy)
    return r


def _mean(values: Tensor) -> float:
    for bad in values[~torch.isfinite(values)].tolist():
        problem = f"the accuracy matrix holds {bad} where a score is needed."
        raise CourseError(problem, "measure every experience after every experience.")
    return float(values.mean())
