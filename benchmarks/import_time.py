"""How long `import rapidadapt_lessons` takes, beside numpy's and torch's imports.

Run: python benchmarks/import_time.py [rounds]
Each import runs in a fresh Python, the three in turn, and the time of starting Python is taken off.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

STATEMENTS = {
    "python alone": "pass",
    "rapidadapt_lessons": "import rapidadapt_lessons",
    "numpy": "import numpy",
    "torch": "import torch",
}


def seconds(statement: str) -> float:
    """Return how long a fresh Python takes to run the statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    """Return each statement's times. The first round only warms the disk cache and is dropped."""
    taken = [{name: seconds(statement) for name, statement in STATEMENTS.items()} for _ in range(rounds + 1)]
    return {name: [one[name] for one in taken[1:]] for name in STATEMENTS}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times = measure(rounds)
    start = median(times.pop("python alone"))
    print(f"{'import':<20} {'median':>9} {'lowest':>9} {'highest':>9}   ({rounds} rounds, less {start:.3f} s of start)")
    for name, values in times.items():
        low, middle, high = (f"{value - start:.3f} s" for value in (min(values), median(values), max(values)))
        print(f"{name:<20} {middle:>9} {low:>9} {high:>9}")


if __name__ == "__main__":
    main()
