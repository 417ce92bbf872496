"""Meta-train on sinusoids by MAML: alone, or with several processes that share every meta-batch.

    python scale/meta_train.py --out run                              one process
    torchrun --nproc-per-node 2 scale/meta_train.py --out run         two, on this machine
    accelerate launch --multi_gpu --num_processes 2 scale/meta_train.py --out run

The initialisation and the meta-losses are the same each time, up to rounding. In --out, process 0 writes
start.safetensors, losses.json, and a checkpoint, run.pt, from which the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from safetensors.torch import save

from rapidadapt_lessons.files import write_whole
from rapidadapt_lessons.scaling.meta_run import MetaRunConfig, meta_train_sinusoids
from rapidadapt_lessons.scaling.processes import run_as_team
from rapidadapt_lessons.scaling.run_files import write_report
from rapidadapt_lessons.training.team import Team


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for start.safetensors, losses.json and run.pt")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--meta-batch-size", type=int, default=25, help="tasks in an update, over all processes")
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--inner-lr", type=float, default=0.01)
    parser.add_argument("--inner-steps", type=int, default=1)
    parser.add_argument("--outer-lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and the tasks")
    parser.add_argument("--checkpoint-every", type=int, default=50, help="iterations")
    return parser.parse_args()


def run(chosen: argparse.Namespace, team: Team) -> None:
    config = MetaRunConfig(
        chosen.iterations, chosen.meta_batch_size, chosen.shots, chosen.inner_lr, chosen.inner_steps, chosen.outer_lr,
        chosen.width, chosen.checkpoint_every, chosen.seed,
    )  # fmt: skip

    def goes_on(done: int) -> None:
        if team.is_main:
            print(f"goes on from iteration {done}", flush=True)

    params, losses = meta_train_sinusoids(config, team=team, checkpoint=chosen.out / "run.pt", goes_on=goes_on)
    if team.is_main:
        write_whole(chosen.out / "start.safetensors", save(params), sync=True)
        write_report(chosen.out / "losses.json", team, losses)
        print(f"{team.world_size} process(es), {len(losses)} iterations, last meta-loss {losses[-1]:.4f}")


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(run_as_team(lambda team: run(chosen, team)))
