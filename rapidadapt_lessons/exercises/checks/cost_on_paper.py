"""The checks of the exercise in which a learner works out on paper what a training takes (lesson 11)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...scaling import cost_model
from ..compare import Learner, Nothing, Rest, Test, require, require_same, show

_PARTS = ("weights", "gradients", "optimiser")


def _paper(f: Learner, frozen: int, trained: int, bits: int, memory: float) -> tuple[dict[str, Any], str]:
    """Return what came, a dict with the right names, and how it was asked."""
    call = f"training_bytes_on_paper({frozen:_}, {trained:_}, {bits}, {memory:g})"
    came, names = f(frozen, trained, bits, memory), [*_PARTS, "gpus"]
    if came is None:
        raise Nothing(call, f"a dict with the names {names}", "None", "does the function end with `return`?")
    good = isinstance(came, Mapping) and set(came) == set(names)
    require(good, call, f"a dict with the names {names}", show(came), "give back all four under these names.")
    return dict(came), call


def _require_parts(
    came: dict[str, Any], frozen: int, trained: int, bits: int, right: dict[str, int], call: str
) -> None:
    size, count = bits // 8, frozen + trained
    kept = 8 if bits == 32 else 12
    every_weight = "frozen weights get none: only what is trained counts here."
    wide = f"the numbers have {bits} bits here, that is {size} bytes each."
    slips: dict[str, list[tuple[float, str]]] = {
        "weights": [
            (size * frozen, "the trained weights are weights, too: the forward pass needs all of them."),
            (size * trained, "the frozen weights have to be there as well: the forward pass needs all of them."),
            (bits * count, "those are bits: a byte has 8."),
            ((6 - size) * count, wide),
            (count, "that is how many numbers there are: how many bytes has each?"),
        ],
        "gradients": [
            (size * count, every_weight),
            (size * frozen, every_weight),
            (bits * trained, "those are bits: a byte has 8."),
            ((6 - size) * trained, f"a gradient is as wide as its weight: {wide}"),
            (trained, "that is how many numbers there are: how many bytes has each?"),
        ],
        "optimiser": [
            (kept * count, f"AdamW remembers nothing about frozen weights: {every_weight}"),
            (kept * frozen, f"AdamW remembers nothing about frozen weights: {every_weight}"),
            (
                4 * trained,
                "4 bytes are one average in 32 bits, or two in 16. AdamW keeps two, each in 32 bits, whatever the "
                "weights have.",
            ),
            (
                8 * trained,
                "in 16 bits it is 12 bytes: 4 for each of two averages, and 4 for a copy of the weight in 32 bits, "
                "since small steps would be rounded away in 16. Which is missing, or too small?",
            ),
            (12 * trained, "the copy is kept beside weights in 16 bits only. These have 32 bits themselves."),
            (16 * trained, "16 bytes a trained weight is all together: take its own and its gradient's out."),
            (6 * trained, "the averages and the copy are kept in 32 bits, whatever the weights have."),
        ],
    }
    rule = "weights: the bytes of a number for each. Gradients: the same for each trained one. AdamW: 8 for each "
    rule += "trained one, and in 16 bits 4 more for its copy."
    for name in _PARTS:
        require_same(came[name], right[name], f"{call}[{name!r}]", slips[name], rule)


def _shape_on_paper(f: Learner, shape: cost_model.Shape, method: str, bits: int = 16) -> None:
    trained = shape.trained_weights(method)
    frozen = 0 if method == cost_model.TRAIN_ALL else shape.weights
    came, call = _paper(f, frozen, trained, bits, cost_model.H100.memory)
    right = cost_model.step_memory(shape, 0, 0, method, bits=bits, each=0)  # no tokens: no activations
    _require_parts(came, frozen, trained, bits, {name: getattr(right, name) for name in _PARTS}, call)


def _all_weights(f: Learner) -> None:
    _shape_on_paper(f, cost_model.LLAMA_7B, cost_model.TRAIN_ALL)


def _with_lora(f: Learner) -> None:
    _shape_on_paper(f, cost_model.LLAMA_7B, cost_model.TRAIN_LORA)


def _gpus_are(f: Learner, frozen: int, trained: int, memory: float) -> int:
    """Return how many GPUs came, which is how many it takes: all three divided evenly among them, in 16 bits."""
    came, call = _paper(f, frozen, trained, 16, memory)
    total, weights = 16 * trained + 2 * frozen, 2 * (frozen + trained)
    right = -int(-total // memory)
    why_up = "round up: GPUs come whole, and what is left over needs one too. (`math.ceil`)"
    slips = [
        (total / memory, why_up),
        (total // memory, why_up),
        (round(total / memory), why_up),
        (total // memory + 1, "where it divides evenly, that is one too many: use `math.ceil`."),
        (min(8, right), "eight do not suffice here. The fewest that do are asked for, however many that is."),
        (8, "the fewest that suffice are asked for."),
        (1, "weights, gradients and optimiser together do not fit into one GPU."),
        (-int(-weights // memory), "the weights alone were divided: gradients and optimiser need room, too."),
        (-int(-(total - weights) // memory), "the weights were left out: they are divided, too."),
        (-int(-max(weights, 12 * trained) // memory), "the largest part alone was taken: add all three up."),
    ]
    rule = "add up weights, gradients and optimiser, divide by the memory of a GPU, and round up."
    require_same(came["gpus"], right, f"{call}['gpus']", slips, rule)
    return right


def _how_many_gpus(f: Learner) -> Rest:
    small, large, memory = cost_model.LLAMA_7B, cost_model.LLAMA_65B, cost_model.H100.memory
    # The largest first: there, most slips lead to numbers of their own.
    of_large = [_gpus_are(f, frozen, trained, memory) for frozen, trained in _both_methods(large)]
    of_small = [_gpus_are(f, frozen, trained, memory) for frozen, trained in _both_methods(small)]
    _gpus_are(f, 0, 10**9, 8e9)  # 16 GB: exactly two
    remark = "7 billion take {} for all weights and {} for LoRA; 65 billion take {} and {}".format(*of_small, *of_large)
    return lambda: remark


def _both_methods(shape: cost_model.Shape) -> list[tuple[int, int]]:
    """Return how many numbers are frozen and how many are trained: with all weights, and with LoRA of rank 8."""
    return [(0, shape.weights), (shape.weights, shape.lora_weights(8))]


@dataclass(frozen=True)
class _Counted:
    """SmolLM2 with LoRA of rank 8 in one step of AdamW: how many numbers it has, and their bytes, counted.

    Attributes:
        tensors: how many tensors are trained. AdamW keeps a counter of steps, one number of 4 bytes, for each.
    """

    frozen: int
    trained: int
    tensors: int
    bytes: dict[str, int]


@functools.cache
def _counted_on_smollm2() -> _Counted:
    from ...lm.model import load_model  # slow to import, and only this check needs it
    from ...lora import layers as lora  # as above
    from ...training.cost import training_bytes  # as above
    from ...training.data import task_experience  # as above
    from ...training.rows import collate, token_loss  # as above

    model, tokenizer = load_model(device="cpu")
    lora.inject(model, lora.LoRAConfig(rank=8))
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    batch = collate(task_experience(tokenizer, "past_tense", train=1, test=1).train)
    found = training_bytes(model, torch.optim.AdamW(trained), lambda: token_loss(model, batch))
    return _Counted(frozen, sum(p.numel() for p in trained), len(trained), found)


def _real_model(f: Learner) -> Rest:
    shape = cost_model.SMOLLM2_135M
    frozen, trained = shape.weights, shape.lora_weights(8)
    came, call = _paper(f, frozen, trained, 32, cost_model.H100.memory)

    def rest() -> str:
        real = _counted_on_smollm2()
        expected, counted = (
            f"{frozen:,} frozen numbers and {trained:,} trained",
            f"{real.frozen:,} and {real.trained:,}",
        )
        why = "the shape in `cost_model` does not describe the model that is loaded here."
        same = (real.frozen, real.trained) == (frozen, trained)
        require(same, "SmolLM2 with LoRA of rank 8", expected, counted, why)
        counters = 4 * real.tensors
        right = {**real.bytes, "optimiser": real.bytes["optimiser"] - counters}
        _require_parts(came, frozen, trained, 32, right, f"{call}, counted on SmolLM2:")
        return (
            f"counted {real.bytes['gradients']:,} bytes of gradients, as on paper, and {real.bytes['optimiser']:,} of "
            f"optimiser, {counters} more: a counter of 4 bytes for each of {real.tensors} tensors"
        )

    return rest


PAPER_CHECKS: dict[str, Test] = {
    "LLaMA with 7 billion, all weights, in 16 bits": _all_weights,
    "LoRA of rank 8 on the same": _with_lora,
    "how many GPUs of 80 GB": _how_many_gpus,
    "the real SmolLM2 with LoRA of rank 8, in 32 bits": _real_model,
}
