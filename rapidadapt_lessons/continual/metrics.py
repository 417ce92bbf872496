"""What the accuracy matrix of a stream says: ACC, BWT, FWT and forgetting.

R is [T, T], and R[i, j] is the score on experience j after learning experiences 0 to i. BWT, FWT and forgetting
average over T - 1 experiences: nothing comes after the last one, or before the first. All raise CourseError when
the matrix is not square, or when a number that they need is not finite.
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

    Args:
        before: b, the scores before anything was learned, [T].

    Raises:
        CourseError: as for the others, or `before` has another length.
    """
    r, b = _square(matrix, least=2), torch.as_tensor(before, dtype=torch.float64)
    if b.shape != r.shape[:1]:
        raise CourseError(f"`before` has shape {list(b.shape)} for {len(r)} experiences.", "give a score for each.")
    return _mean(r.diagonal(1) - b[1:])


def forgetting(matrix: Matrix) -> float:
    """F = 1/(T-1) sum_{j < T-1} (max_{j <= l < T-1} R[l, j] - R[T-1, j]) (Chaudhry et al. 2018, section 3).

    The maximum starts when the experience is learned, where the paper counts scores from before that too. F is
    never below -BWT.
    """
    r = _square(matrix, least=2)
    last = len(r) - 1
    return _mean(torch.stack([r[j:last, j].max() - r[last, j] for j in range(last)]))


def plasticity(matrix: Matrix) -> float:
    """1/T sum_j R[j, j]: the mean score on each experience just after it was learned."""
    return _mean(_square(matrix).diagonal())


def _square(matrix: Matrix, least: int = 1) -> Tensor:
    r = torch.as_tensor(matrix, dtype=torch.float64)
    if r.ndim != 2 or r.shape[0] != r.shape[1] or len(r) < least:
        problem = f"the accuracy matrix has shape {list(r.shape)}."
        raise CourseError(problem, f"give T rows of T scores, with T at least {least}.")
    return r


def _mean(values: Tensor) -> float:
    if not torch.isfinite(values).all():
        bad = values[~torch.isfinite(values)][0].item()
        problem = f"the accuracy matrix holds {bad} where a score is needed."
        raise CourseError(problem, "measure every experience after every experience.")
    return float(values.mean())
