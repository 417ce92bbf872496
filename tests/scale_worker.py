"""Run by test_scale.py in two processes, or alone: what each of them ends with goes into a file of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tiny_models import tiny_llama

from rapidadapt_lessons.errors import CheckpointMismatch, TrainingDiverged
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.meta import maml, sinusoids
from rapidadapt_lessons.meta.task_batch import TaskBatch
from rapidadapt_lessons.scaling.processes import join_team
from rapidadapt_lessons.training.loop import TrainConfig, train
from rapidadapt_lessons.training.rows import Row, collate, token_loss
from rapidadapt_lessons.training.team import Team

ROWS = [Row(tuple((7 * i + 3 * j) % 90 + 3 for j in range(4 + 5 * (i % 3)))) for i in range(10)]  # 4, 9 or 14 tokens


def model_with_lora(seed: int = 0) -> torch.nn.Module:
    return lora.inject(tiny_llama(), LoRAConfig(4, target_modules=("q_proj", "v_proj", "down_proj")), seed=seed)


def listed(tensors: dict[str, torch.Tensor]) -> dict[str, list]:
    return {name: t.detach().flatten().tolist() for name, t in tensors.items()}


def trained(team: Team, *, rows=None, **options) -> dict:
    """Train for a few updates and return losses and adapter. Every process starts from an adapter of its own."""
    model = model_with_lora(seed=team.rank)
    config = TrainConfig(4, **{"batch_size": 5, "lr": 1e-2, **options.pop("config", {})})
    history = train(model, rows or ROWS, config, team=team, progress=False, **options)
    evaluations = list(history.evaluations.values())
    return {"losses": history.losses, "evaluations": evaluations, **listed(lora.adapter_state(model))}


def mean_over_rows(model, rows) -> torch.Tensor:
    return torch.stack([token_loss(model, collate([row])) for row in rows]).mean()


def mean_over_tokens(model, rows) -> torch.Tensor:
    return token_loss(model, collate(rows))


def diverges_in_the_last_process(team: Team) -> list:
    """Rank 1's loss is no number in the third update. Every process has to hear of it."""
    calls = []

    def loss(model, rows):
        calls.append(1)
        last = team.rank == team.world_size - 1
        return mean_over_rows(model, rows) * (float("nan") if last and len(calls) == 3 else 1.0)

    try:
        trained(team, loss=loss)
    except TrainingDiverged as error:
        return [error.problem.partition(" (")[0], len(error.history.losses)]
    return []


def refuses_another_runs_checkpoint(team: Team, out: Path) -> str:
    """The file is in process 0's folder only, as where each machine has a disk of its own."""
    file = out / f"disk{team.rank}" / "run.pt"
    trained(team, checkpoint=file)
    try:
        trained(team, checkpoint=file, rows=ROWS[:7])
    except CheckpointMismatch as error:
        return error.problem
    return ""


def meta_gradient(team: Team, tasks: int) -> dict:
    net = sinusoids.network(0, 8)
    params = dict(net.named_parameters())
    draw = torch.Generator().manual_seed(1)
    batch: TaskBatch = sinusoids.draw_waves(tasks, draw).batch(5, 5, draw)
    rates = maml.learned_rates(params, 0.01)
    found = maml.meta_gradient(net, params, batch, inner_lr=rates, team=team)
    learned = {f"rate {name}": values for name, values in listed(found.inner_lr).items()}
    return {"loss": [float(found.loss)], **listed(found.params), **learned}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with join_team(seconds=60) as team:
        found = {
            "plain": trained(team),
            "one row": trained(team, config={"batch_size": 1}),
            "accumulated": trained(team, config={"batch_size": 2, "accumulate": 3}),
            "own loss": trained(team, loss=mean_over_rows),
            "mean of means": trained(team, loss=mean_over_tokens),
            "evaluated": trained(team, evaluate=lambda m: float(team.rank), config={"eval_every": 1}),
            "diverged": diverges_in_the_last_process(team),
            "refused": refuses_another_runs_checkpoint(team, out),
            "meta": meta_gradient(team, 5),
            "one task": meta_gradient(team, 1),
            "bytes": [team.bytes_sent, team.messages],
        }
        (out / f"found{team.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
