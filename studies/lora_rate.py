"""Learning rate and rank: full fine-tuning against LoRA on all linear layers and on q and v (Schulman et al. 2025).

python studies/lora_rate.py
"""

from __future__ import annotations

import math

from runner import Study, main

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS = {"LoRA, all linear": ALL_LINEAR, "LoRA, q and v": ("q_proj", "v_proj")}
ALPHA, UPDATES = 16, 30
RATES = {
    "full fine-tuning": (3e-6, 1e-5, 3e-5, 1e-4),
    "LoRA, all linear": (1e-4, 3e-4, 1e-3, 3e-3),
    "LoRA, q and v": (3e-4, 1e-3, 3e-3, 1e-2),
}


def tuned(method: str, rank: int, lr: float, seed: int) -> dict[str, float]:
    """Train on 40 superlatives for 30 updates of 8. The seed draws the words, the order of the rows and LoRA's A.

    Losses are nats per token of the answers, after as many updates as are best for the validation loss: "updates".
    Exact match, and the perplexity of a manual, are those of the end. Validation takes 20 words, the test 30 others,
    the same for all seeds.
    """
    from rapidadapt_lessons.errors import TrainingDiverged
    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.data import domain_experience
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import exact_rows, perplexity, task_rows

    model, tokenizer = load_model()
    task = load_task("superlatives", query_size=50)
    rows = task_rows(tokenizer, task, task.episode(40, seed=seed).support)
    queries = task_rows(tokenizer, task, task.query_set)
    test, validation = queries[:30], queries[30:]

    found = dict.fromkeys(METRICS, math.nan) | {"validation loss": math.inf}

    def judged(model) -> float:
        loss = math.log(perplexity(model, validation))
        if loss < found["validation loss"]:
            found["validation loss"], found["test loss"] = loss, math.log(perplexity(model, test))
        return loss

    if method in TARGETS:
        lora.inject(model, lora.LoRAConfig(rank, ALPHA, target_modules=TARGETS[method]), seed=seed)
    else:
        model.requires_grad_(True)
    config = TrainConfig(UPDATES, batch_size=8, lr=lr, warmup=3, eval_every=5, seed=seed)
    try:
        evaluations = train(model, rows, config, evaluate=judged, progress=False).evaluations
    except TrainingDiverged:
        return dict.fromkeys(METRICS, math.nan)
    elsewhere = domain_experience(tokenizer, "python_reference", test=8, length=128).test
    return found | {
        "updates": float(min(evaluations, key=evaluations.get)),
        "exact match": sum(exact_rows(model, test)) / len(test),
        "perplexity elsewhere": perplexity(model, elsewhere),
    }


METRICS = ("validation loss", "test loss", "updates", "exact match", "perplexity elsewhere")
RANKS = (("LoRA, all linear", rank, lr) for rank in (1, 64) for lr in (3e-4, 1e-3))
SWEEP = ((method, 8 if method in TARGETS else 0, lr) for method, rates in RATES.items() for lr in rates)

STUDY = Study(
    name="lora_rate",
    question="Where is LoRA's best learning rate, compared with full fine-tuning's, and does the rank matter?",
    run=tuned,
    settings=[dict(zip(("method", "rank", "lr"), values)) for values in (*SWEEP, *RANKS)],
    seconds=35,
    tolerance={"": 0.02, "exact match": 1.5 / 30, "perplexity elsewhere": 1.0, "updates": 5.0},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
