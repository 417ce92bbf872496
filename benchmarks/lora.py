"""What LoRA costs: ours beside peft's, beside full fine-tuning, in bfloat16, and as rank, length and batch grow; what
our loss saves against transformers' own; and how much of the machine's peak a step reaches.

Run: python benchmarks/lora.py [rounds]
All ways of one table take turns within each round, on the same batch; medians, and ratios of medians. Memory is
what one step holds above the model, counted tensor by tensor (see rapidadapt_lessons/training/cost.py), and the peak of
the process during the step, measured in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from matrix_product import matmul_flops  # beside this file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.lora.quantise import hide_library_notices
from rapidadapt_lessons.training.cost import measure, training_bytes
from rapidadapt_lessons.training.data import task_experience
from rapidadapt_lessons.training.rows import Batch, Row, collate, token_loss

TARGETS = ("q_proj", "v_proj")


def own_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return transformers' own loss, with the outputs of every token."""
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss


class Way:
    """A model and its optimiser, ready to be stepped."""

    def __init__(
        self,
        make: Callable[[nn.Module], nn.Module],
        dtype: str = "float32",
        loss: Callable[[nn.Module, Batch], torch.Tensor] = token_loss,
    ):
        self._loss = loss
        self.model = make(load_model(dtype=dtype)[0]).train()
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-5)

    def loss(self, batch: Batch) -> torch.Tensor:
        return self._loss(self.model, batch)

    def step(self, batch: Batch) -> float:
        """Do one update and return its seconds."""
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        self.optimizer.step()
        if batch.input_ids.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def ours(rank: int = 8) -> Callable[[nn.Module], nn.Module]:
    return lambda model: lora.inject(model, LoRAConfig(rank, 2 * rank, target_modules=TARGETS))


def theirs(rank: int = 8) -> Callable[[nn.Module], nn.Module]:
    def make(model: nn.Module) -> nn.Module:
        hide_library_notices()
        import peft

        config = peft.LoraConfig(
            task_type=peft.TaskType.CAUSAL_LM, r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS)
        )
        return peft.get_peft_model(model, config)

    return make


def full(model: nn.Module) -> nn.Module:
    return model.requires_grad_(True)


METHODS = {
    "our LoRA": (ours(), "float32"),
    "peft's LoRA": (theirs(), "float32"),
    "all weights": (full, "float32"),
    "our LoRA, bfloat16 base": (ours(), "bfloat16"),
}


def batch_of(size: int, length: int, device: torch.device) -> Batch:
    """Return rows of random tokens: what they say does not matter to the time."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 40_000, (size, length), generator=draw).tolist()
    return collate([Row(tuple(row)) for row in ids], device)


def alternate(ways: dict[str, Way], batches: dict[str, Batch], rounds: int) -> dict[str, float]:
    """Return each way's median seconds a step. A first round warms up and is dropped."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            times[name].append(way.step(batches[name]))
    return {name: median(values[1:]) for name, values in times.items()}


def compare_losses(rounds: int) -> None:
    """Print a step with our loss beside one of peft's LoRA with transformers' own, on both kinds of rows."""
    _, tokenizer = load_model()
    task = task_experience(tokenizer, "number_words", train=8, test=1)
    ways = {"ours": Way(ours()), "peft, transformers' own loss": Way(theirs(), loss=own_loss)}
    device = next(ways["ours"].model.parameters()).device
    kinds = {"a task, 8 rows with answers": collate(task.train, device)}
    kinds["packed text, 4 x 128"] = batch_of(4, 128, device)
    peak = matmul_flops(device)
    print(f"\nthe loss alone changed; peak of a matrix product here: {peak / 1e12:.2f} TFLOP/s")
    print(f"{'rows':<30}{'way':<30}{'seconds':>8}{'ratio':>7}{'of peak':>9}{'loss apart':>12}")
    for kind, batch in kinds.items():
        with torch.no_grad():
            losses = {name: float(way.loss(batch)) for name, way in ways.items()}
        seconds = alternate(ways, dict.fromkeys(ways, batch), rounds)
        for name, way in ways.items():
            with FlopCounterMode(display=False) as counter:
                way.loss(batch).backward()
            share = counter.get_total_flops() / seconds[name] / peak
            apart = abs(losses[name] - losses["ours"])
            ratio = seconds[name] / seconds["ours"]
            print(f"{kind:<30}{name:<30}{seconds[name]:>8.2f}{ratio:>7.2f}{share:>9.0%}{apart:>12.1e}", flush=True)


def peak_of(name: str) -> int:
    """Return the peak bytes of one step above the loaded model, in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--peak", name], check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        way = Way(*METHODS[sys.argv[2]])
        device = next(way.model.parameters()).device
        batch = batch_of(4, 128, device)
        print(json.dumps(measure(lambda: way.step(batch), device)[1].peak_bytes))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ways = {name: Way(*how) for name, how in METHODS.items()}
    device = next(ways["our LoRA"].model.parameters()).device
    batch = batch_of(4, 128, device)
    seconds = alternate(ways, dict.fromkeys(ways, batch), rounds)
    print(f"one update, batch 4 x 128 tokens, rank 8 on {', '.join(TARGETS)}, {rounds} rounds, {device}")
    print(f"{'way':<26}{'seconds':>9}{'ratio':>7}{'counted MB':>12}{'peak MB':>9}")
    for name, way in ways.items():
        parts = training_bytes(way.model, way.optimizer, lambda way=way: way.loss(batch))
        counted = (sum(parts.values()) - parts["weights"]) / 1e6
        ratio = seconds[name] / seconds["our LoRA"]
        print(f"{name:<26}{seconds[name]:>9.2f}{ratio:>7.2f}{counted:>12,.0f}{peak_of(name) / 1e6:>9,.0f}", flush=True)
    del ways

    compare_losses(rounds)
    growth = {f"rank {rank}": (rank, 4, 128) for rank in (1, 8, 64)}
    growth |= {f"batch {size}": (8, size, 128) for size in (1, 2, 8)}
    growth |= {f"{length} tokens a row": (8, 4, length) for length in (32, 64, 256)}
    ranks = {rank: Way(ours(rank)) for rank in {rank for rank, _, _ in growth.values()}}
    named = {name: ranks[rank] for name, (rank, _, _) in growth.items()}
    shapes = {name: batch_of(size, length, device) for name, (_, size, length) in growth.items()}
    seconds = alternate(named, shapes, max(1, rounds // 2))
    print("\nour LoRA, one thing changed from rank 8, batch 4, 128 tokens a row")
    for name, value in seconds.items():
        print(f"{name:<26}{value:>9.2f}{value / seconds['rank 8']:>7.2f}")


if __name__ == "__main__":
    main()
