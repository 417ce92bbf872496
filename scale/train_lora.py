"""Train a LoRA adapter on a text task: alone, or with several processes that share every update's rows.

    python scale/train_lora.py --out run                              one process
    torchrun --nproc-per-node 2 scale/train_lora.py --out run         two, on this machine
    accelerate launch --multi_gpu --num_processes 2 scale/train_lora.py --out run

The adapter and the losses are the same each time, up to rounding. In --out, process 0 writes the adapter (in peft's
format), losses.json, and a checkpoint, run.pt, from which the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rapidadapt_lessons.lm.download import DEFAULT_MODEL
from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.files import save_adapter
from rapidadapt_lessons.scaling.processes import local_device, run_as_team
from rapidadapt_lessons.scaling.run_files import write_report
from rapidadapt_lessons.training.data import task_experience
from rapidadapt_lessons.training.loop import TrainConfig, train
from rapidadapt_lessons.training.team import Team


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter, losses.json and run.pt")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the course's model, a folder, or a hub name")
    parser.add_argument("--task", default="past_tense", help="a task of tasks.load_task")
    parser.add_argument("--rows", type=int, default=40, help="training examples")
    parser.add_argument("--steps", type=int, default=15, help="updates")
    parser.add_argument("--batch-size", type=int, default=8, help="rows in an update, over all processes")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=8, help="of LoRA; lora_alpha is twice as much")
    parser.add_argument("--all-weights", action="store_true", help="train every weight; no adapter is saved")
    parser.add_argument("--seed", type=int, default=0, help="of the adapter's start and the rows' order")
    parser.add_argument("--checkpoint-every", type=int, default=5, help="updates")
    return parser.parse_args()


def run(chosen: argparse.Namespace, team: Team) -> None:
    model, tokenizer = load_model(chosen.model, device=local_device())
    shape = lora.LoRAConfig(chosen.rank, 2 * chosen.rank)
    if chosen.all_weights:
        model.requires_grad_(True)
    else:
        lora.inject(model, shape, seed=chosen.seed)
    rows = task_experience(tokenizer, chosen.task, train=chosen.rows, test=1).train
    config = TrainConfig(
        chosen.steps, chosen.batch_size, lr=chosen.lr, seed=chosen.seed, checkpoint_every=chosen.checkpoint_every
    )
    history = train(model, rows, config, team=team, checkpoint=chosen.out / "run.pt")
    if team.is_main:
        if not chosen.all_weights:
            save_adapter(model, chosen.out / "adapter", shape)
        write_report(chosen.out / "losses.json", team, history.losses)
        print(f"{team.world_size} process(es), {len(history.losses)} updates, last loss {history.losses[-1]:.4f}")


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(run_as_team(lambda team: run(chosen, team)))
