"""Every continual method on two streams of digits: ACC, BWT, and what it costs against plain fine-tuning.

    python benchmarks/continual.py [SEEDS]

Prints means over seeds (3 by default) with their standard deviations. Time is processor time of the fastest
seed, all in one run, as a multiple of plain fine-tuning's; numbers are those stored besides the network's 4810 weights.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from statistics import mean, stdev

from rapidadapt_lessons.adapters_per_task import Averaged, PerTask
from rapidadapt_lessons.continual import Joint, Method, run_stream
from rapidadapt_lessons.digits import digit_network, permuted_digits, split_digits
from rapidadapt_lessons.distillation import LwF
from rapidadapt_lessons.ewc import EWC
from rapidadapt_lessons.replay import Replay
from rapidadapt_lessons.training import TrainConfig

CONFIG = TrainConfig(steps=60, batch_size=32, lr=3e-3)
METHODS = (
    Method(), Joint(), Replay(50), Replay(50, balanced=True), EWC(30.0), EWC(30.0, online=True), LwF(0.3),
    PerTask(), PerTask("centroid"), Averaged(),
)  # fmt: skip


def main(seeds: int) -> None:
    run_stream(Method(), digit_network(), permuted_digits(), CONFIG)  # warm up
    for make_stream in (permuted_digits, split_digits):
        print(f"\n{make_stream(seed=0).name}, {seeds} seeds")
        print(f"{'':24}{'ACC':>12}{'BWT':>13}{'time':>7}{'examples':>10}{'numbers':>9}")
        plain = 0.0
        for method in METHODS:
            runs = [
                run_stream(method, digit_network(seed), make_stream(seed=seed), replace(CONFIG, seed=seed))
                for seed in range(seeds)
            ]
            seconds = min(sum(run.seconds) for run in runs)
            plain = plain or seconds
            cells = [f"{mean(v):.2f} ± {stdev(v):.2f}" for v in ([r.acc for r in runs], [r.bwt for r in runs])]
            kept = f"{runs[0].stored_examples:>10}{runs[0].stored_numbers:>9}"
            print(f"{method.name:24}{cells[0]:>12}{cells[1]:>13}{seconds / plain:>6.1f}x{kept}", flush=True)


if __name__ == "__main__":
    main(max(2, int(sys.argv[1])) if len(sys.argv) > 1 else 3)
