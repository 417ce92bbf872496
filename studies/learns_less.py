"""Learning and forgetting on running text: LoRA against full fine-tuning at three rates each (Biderman et al. 2024).

python studies/learns_less.py
"""

from __future__ import annotations

import math
from functools import cache

from runner import Study, main

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
UPDATES, EVERY = 30, 10
RATES = {"full fine-tuning": (3e-5, 1e-4, 3e-4), "LoRA, all linear": (3e-4, 1e-3, 3e-3)}


@cache
def rows_of(domain: str, train: int, test: int):
    """Return a domain's rows of 64 tokens, to train on and held out: the same for all seeds."""
    from rapidadapt_lessons.lm import load_model
    from rapidadapt_lessons.training.data import domain_experience

    return domain_experience(load_model()[1], domain, train=train, test=test, length=64)


def measured(model) -> dict[str, float]:
    """Return the loss on held-out licences, and the perplexities of Python's manual and of dialogue."""
    from rapidadapt_lessons.training.rows import perplexity

    return {
        "test loss": math.log(perplexity(model, rows_of("licences", 120, 20).test[8:])),
        "manual": perplexity(model, rows_of("python_reference", 1, 6).test),
        "dialogue": perplexity(model, rows_of("dialogue", 1, 6).test),
    }


def trained(method: str, lr: float, seed: int) -> dict[str, float]:
    """Train on licences for 30 updates of 2 rows. The seed draws which 60 of 120 rows, their order, and LoRA's A.

    Losses are nats per token. Of two domains tried, licences is the one whose perplexity falls most.
    """
    from rapidadapt_lessons.lm import load_model
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import perplexity

    model, _ = load_model()
    if method == "LoRA, all linear":
        lora.inject(model, lora.LoRAConfig(8, 16, target_modules=ALL_LINEAR), seed=seed)
    else:
        model.requires_grad_(True)
    licences, path = rows_of("licences", 120, 20), []

    def judged(model) -> float:
        path.append(measured(model))
        return path[-1]["test loss"]

    config = TrainConfig(UPDATES, batch_size=2, lr=lr, warmup=3, eval_every=EVERY, seed=seed)
    train(model, licences.train, config, evaluate=judged, progress=False)
    found = {f"{name} after {EVERY * i}": value for i, at in enumerate(path) for name, value in at.items()}
    return found | {"validation loss": math.log(perplexity(model, licences.test[:8]))}


PERPLEXITIES = [f"{name} after {n}" for name in ("manual", "dialogue") for n in range(0, UPDATES + 1, EVERY)]

STUDY = Study(
    name="learns_less",
    question="Does LoRA learn less of a domain than full fine-tuning, and forget less of others?",
    run=trained,
    settings=[{"method": method, "lr": lr} for method, rates in RATES.items() for lr in rates],
    seconds=80,
    tolerance={"": 0.02} | dict.fromkeys(PERPLEXITIES, 0.5),
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
