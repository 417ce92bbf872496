"""How many operations a second this machine does: a product of two square matrices, for other benchmarks to divide by.

python benchmarks/matrix_product.py
"""

from __future__ import annotations

import time
from statistics import median

import torch


def matmul_flops(device: torch.device | str = "cpu", size: int = 2048, rounds: int = 7) -> float:
    """Return the floating-point operations a second of a product of two square matrices in float32: the median."""
    device = torch.device(device)
    a, times = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(device), []
    for _ in range(rounds + 1):  # the first one warms up
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / median(times[1:])


if __name__ == "__main__":
    print(matmul_flops())
