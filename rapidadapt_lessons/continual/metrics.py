"""What the accuracy matrix of a stream says: ACC, BWT, FWT and forgetting.

R is [T, T], and R[i, j] is the score on part j after learning parts 0 to i. Averages over what happened to
parts, BWT, FWT and forgetting, are over T - 1 of them: one part has nothing after it, or nothing before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CourseError

Matrix = Sequence[Sequence[float]] | Tensor


def average_accuracy(matrix: Matrix) -> float:
    """ACC = 1/T sum_j R[T-1, j]: the mean of the last row (Lopez-Paz and Ranzato 2017, equation 2).

    Raises: CourseError when the matrix is not square, or a number that is needed is not finite.
    """
    return _mean(_square(matrix)[-1])


def backward_transfer(matrix: Matrix) -> float:
    """BWT = 1/(T-1) sum_{j < T-1} (R[T-1, j] - R[j, j]): below 0 is forgetting (same, equation 3).

    The average is over T - 1 parts: the last one had no time to be forgotten.

    Raises: as `average_accuracy`; CourseError too for a single part.
    """
    r = _square(matrix, least=2)
    return _mean((r[-1] - r.diagonal())[:-1])


def forward_transfer(matrix: Matrix, before: Sequence[float] | Tensor) -> float:
    """FWT = 1/(T-1) sum_{j > 0} (R[j-1, j] - b[j]): what earlier parts did for a later one (same, equation 4).

    The average is over T - 1 parts: nothing comes before the first.

    Args:
        before: b, the scores before any part was learned, [T].

    Raises: as `backward_transfer`; CourseError too when `before` has another length.
    """
    r, b = _square(matrix, least=2), torch.as_tensor(before, dtype=torch.float64)
    if b.shape != r.shape[:1]:
        raise CourseError(f"`before` has shape {list(b.shape)} for {len(r)} parts.", "give one score to each part.")
    return _mean(r.diagonal(1) - b[1:])


def forgetting(matrix: Matrix) -> float:
    """F = 1/(T-1) sum_{j < T-1} (max_{j <= l < T-1} R[l, j] - R[T-1, j]) (Chaudhry et al. 2018, section 3).

    From the best that a part ever was, after it was learned and before the last part (the paper also counts
    how it was before it was learned): never below minus BWT. The average is over T - 1 parts.

    Raises: as `backward_transfer`.
    """
    r = _square(matrix, least=2)
    last = len(r) - 1
    return _mean(torch.stack([r[j:last, j].max() - r[last, j] for j in range(last)]))


def plasticity(matrix: Matrix) -> float:
    """1/T sum_j R[j, j]: how well each part was known just after it was learned.

    Raises: as `average_accuracy`.
    """
    return _mean(_square(matrix).diagonal())


def _square(matrix: Matrix, least: int = 1) -> Tensor:
    r = torch.as_tensor(matrix, dtype=torch.float64)
    if r.ndim != 2 or r.shape[0] != r.shape[1] or len(r) < least:
        raise CourseError(
            f"the accuracy matrix has shape {list(r.shape)}.", f"give T rows of T scores, with T at least {least}."
        )
    return r


def _mean(values: Tensor) -> float:
    if not torch.isfinite(values).all():
        raise CourseError(
            f"the accuracy matrix holds {values[~torch.isfinite(values)][0].item()} where a score is needed.",
            "measure every part after every part.",
        )
    return float(values.mean())
