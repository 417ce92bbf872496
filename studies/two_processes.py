"""Eight updates of LoRA by one process and by two: how far apart their losses are.

python studies/two_processes.py --processes 1
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from runner import Study, main

SCRIPT = Path(__file__).resolve().parents[1] / "scale" / "train_lora.py"


def apart(processes: int, seed: int) -> dict[str, float]:
    """Train by one process and by several, and compare the losses, in nats per token. The seed draws LoRA's A and the
    order of the rows; both runs start from it.

    Raises RuntimeError where a run fails.
    """
    from rapidadapt_lessons.scaling.launch import launch
    from rapidadapt_lessons.scaling.run_files import read_report

    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for team in (1, processes):
            out = Path(folder) / str(team)
            options = ["--steps", 8, "--batch-size", 8, "--lr", 1e-3, "--seed", seed, "--out", out]
            with launch(SCRIPT, options, processes=team) as run:
                if run.wait(seconds=600):
                    raise RuntimeError(run.output()[-1500:])
            losses.append(read_report(out / "losses.json").losses)
    one, several = losses
    return {
        "largest difference": max(abs(a - b) for a, b in zip(one, several, strict=True)),
        "first loss": one[0],
        "last loss": one[-1],
    }


STUDY = Study(
    name="two_processes",
    question="Do two processes that share the rows take the same steps as one?",
    run=apart,
    settings=[{"processes": 2}],
    seconds=40,
    tolerance={"largest difference": 1e-4, "": 0.05},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
