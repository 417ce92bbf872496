"""Try LoRA's ranks over several seeds on a text task, with any number of workers, and go on where it stopped.

    python scale/sweep.py --out sweep --ranks 1 2 4 8 --seeds 0 1 2

Start the same command again, at the same time in other windows or after a kill: every combination is run to its end
once. (The trial of a killed worker waits again after half a minute.) Who finds none left writes table.md and figure.png
into --out. The plan and the results are in sweep.db (SQLite, by Optuna), on a disk of this machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.files import write_whole
from rapidadapt_lessons.lm.download import DEFAULT_MODEL
from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.scaling import sweep
from rapidadapt_lessons.show import plots
from rapidadapt_lessons.training.data import task_experience
from rapidadapt_lessons.training.loop import TrainConfig, train
from rapidadapt_lessons.training.rows import exact_rows, perplexity


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for sweep.db, table.md and figure.png")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the course's model, a folder, or a hub name")
    parser.add_argument("--task", default="past_tense", help="a task of tasks.load_task")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the adapter's start and the order")
    parser.add_argument("--rows", type=int, default=40, help="training examples")
    parser.add_argument("--test", type=int, default=48, help="held-out examples")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--measure", choices=("accuracy", "perplexity"), default="accuracy")
    return parser.parse_args()


def run(chosen: argparse.Namespace) -> int:
    """Run what is left of the sweep, write what came out, and return how many trials this worker finished."""
    model, tokenizer = load_model(chosen.model)
    part = task_experience(tokenizer, chosen.task, train=chosen.rows, test=chosen.test)

    def objective(settings: sweep.Settings) -> float:
        lora.inject(model, lora.LoRAConfig(settings["rank"], 2 * settings["rank"]), seed=settings["seed"])
        try:
            plan = TrainConfig(chosen.steps, chosen.batch_size, lr=chosen.lr, seed=settings["seed"])
            train(model, part.train, plan, progress=False)
            if chosen.measure == "perplexity":
                return perplexity(model, part.test)
            return sum(exact_rows(model, part.test)) / len(part.test)
        finally:
            lora.remove(model)

    storage = chosen.out / "sweep.db"
    fixed = {name: value for name, value in vars(chosen).items() if name not in ("out", "ranks", "seeds")}
    done = sweep.run_sweep(storage, {"rank": chosen.ranks, "seed": chosen.seeds}, objective, fixed=fixed)
    if sweep.counts(storage)["running"] == 0:  # else another worker still has one, and writes these files
        found = sweep.results(storage)
        title = f"{chosen.task}: {chosen.measure} of {chosen.test} held-out examples"
        write_whole(chosen.out / "table.md", f"{title}\n\n{markdown_table(found, 'rank')}\n")
        write_whole(chosen.out / "figure.png", figure(found, title, chosen.measure).png())
    return done


def markdown_table(found: list[sweep.Result], name: str) -> str:
    """Return the results as a Markdown table: for each value of a setting, how many trials, mean, lowest, highest."""
    lines = [f"| {name} | trials | mean | lowest | highest |", "|---|---|---|---|---|"]
    for setting, values in sweep.by_setting(found, name).items():
        lines.append(f"| {setting} | {len(values)} | {mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |")
    return "\n".join(lines)


def figure(found: list[sweep.Result], title: str, measure: str) -> plots.Picture:
    groups = {f"rank {rank}": {measure: values} for rank, values in sweep.by_setting(found, "rank").items()}
    values = [result.value for result in found]
    room = 0.05 * ((max(values) - min(values)) or 1)
    limits = plots.SHARES if measure == "accuracy" else (min(values) - room, max(values) + room)
    return plots.strips(groups, title=title, xlabel=f"{measure}, one dot a seed", limits=limits)


def main() -> int:
    chosen = arguments()
    try:
        done = run(chosen)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    states = ", ".join(f"{number} {state}" for state, number in sweep.counts(chosen.out / "sweep.db").items())
    print(f"this worker finished {done} trial(s); in all {states}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
