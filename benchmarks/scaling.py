"""One process against two at the same global batch: time of an update, efficiency, and bytes that each hands over.

Run: python benchmarks/scaling.py [rounds]
Two processes are started by torchrun and take turns within each round, so that all see the same state of the machine:
  alone       process 0 computes the whole batch with one thread, while the other waits
  alone, 2    the same with two threads: what one process gets out of two cores
  together    each computes half with one thread, then both add up their gradients
Medians over the rounds. Efficiency is alone / (2 x together): 1 would be twice as fast. Both processes share the
machine's cores, caches and memory bandwidth, and talk over 127.0.0.1: this is no measurement of a network, nor of two
machines.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.distributed as dist
from torch import nn

from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.meta import maml, sinusoids
from rapidadapt_lessons.scaling.launch import launch
from rapidadapt_lessons.scaling.processes import join_team
from rapidadapt_lessons.training.rows import Row, batches, collate, token_loss
from rapidadapt_lessons.training.team import Team

Step = Callable[[Team], None]


def lora_step(all_weights: bool) -> Step:
    """Return an update of the real model on 8 rows of 64 random tokens: what they say does not matter to the time."""
    model, _ = load_model(device="cpu")
    model.requires_grad_(True) if all_weights else lora.inject(model, lora.LoRAConfig(8))
    parameters = [p for p in model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    draw = torch.Generator().manual_seed(0)
    rows = [Row(tuple(torch.randint(3, 40_000, (64,), generator=draw).tolist())) for _ in range(8)]

    def step(team: Team) -> None:
        optimizer.zero_grad(set_to_none=True)
        counted, total = collate(rows).counted, 0.0
        for piece in batches(team.share(rows), 8):
            loss = token_loss(model, collate(piece), "sum") / counted
            loss.backward()
            total += loss.item()
        team.all_reduce_gradients(parameters, total)
        optimizer.step()

    return step


def maml_step(tasks: int) -> Step:
    """Return a second-order meta-step on sinusoids: 10 shots, 1 inner step, two hidden layers of 40."""
    net: nn.Module = sinusoids.network()
    params = dict(net.named_parameters())
    optimizer = torch.optim.Adam(params.values(), 1e-3)
    draw = torch.Generator().manual_seed(0)
    batch = sinusoids.draw_waves(tasks, draw).batch(10, 10, draw)
    return lambda team: maml.meta_step(net, params, batch, optimizer, inner_lr=0.01, team=team) and None


WORK: dict[str, Callable[[], Step]] = {
    "LoRA, 8 x 64 tokens": lambda: lora_step(False),
    "all weights, 8 x 64 tokens": lambda: lora_step(True),
    "MAML, 25 tasks": lambda: maml_step(25),
    "MAML, 4,000 tasks": lambda: maml_step(4000),
}


def seconds(step: Step, team: Team, alone: bool, threads: int) -> float:
    """Return what one update takes, from a barrier to the end of the slower process."""
    torch.set_num_threads(threads)
    dist.barrier()
    start = time.perf_counter()
    if not alone:
        step(team)
    elif team.is_main:
        step(Team())
    dist.barrier()
    return time.perf_counter() - start


def worker(rounds: int) -> None:
    with join_team() as team:
        if team.is_main:
            print(f"{os.cpu_count()} cores, {rounds} rounds; the first is dropped")
            head = f"{'ms':>12}{'ms, 2 threads':>15}{'ms together':>13}{'efficiency':>12}{'bytes':>14}"
            print(f"{'':<28}{head}", flush=True)
        for name, make in WORK.items():
            step = make()
            ways = {"alone": (True, 1), "alone, 2": (True, 2), "together": (False, 1)}
            times: dict[str, list[float]] = {way: [] for way in ways}
            before, messages = team.bytes_sent, team.messages
            for _ in range(rounds + 1):
                for way, how in ways.items():
                    times[way].append(seconds(step, team, *how))
            each = (team.bytes_sent - before) // (team.messages - messages)
            if team.is_main:
                one, two, both = (median(values[1:]) * 1e3 for values in times.values())
                print(f"{name:<28}{one:>12.1f}{two:>15.1f}{both:>13.1f}{one / both / 2:>12.2f}{each:>14,}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=7)
    chosen = parser.parse_args()
    if "RANK" in os.environ:
        worker(chosen.rounds)
        return 0
    with launch(__file__, [chosen.rounds], processes=2) as launched:
        status = launched.wait(1800)
        print(launched.output())
    return status


if __name__ == "__main__":
    sys.exit(main())
