"""Which layers LoRA should go beside: attention or feed-forward, at equal numbers trained (Schulman et al. 2025).

python studies/lora_parts.py
"""

from __future__ import annotations

import math

from runner import Study, main

# Rank and layers: 80,640 and 82,368 numbers for each block, where rank 8 on all linear layers has 81,408.
PARTS = {
    "LoRA, attention": (21, ("q_proj", "k_proj", "v_proj", "o_proj")),
    "LoRA, feed-forward": (13, ("gate_proj", "up_proj", "down_proj")),
}
ALPHA, UPDATES = 16, 30
RATES = (3e-4, 1e-3, 3e-3)


def tuned(method: str, rank: int, lr: float, seed: int) -> dict[str, float]:
    """Train as `lora_rate` does, on the same words, so that its LoRA on all linear layers stands beside these.

    30 updates of 8 on 40 superlatives. The seed draws the words, the order of the rows and LoRA's A. Losses are nats
    per token of the answers, after as many updates as are best for the validation loss: "updates". Exact match, and
    the perplexity of a manual, are those of the end. Validation takes 20 words, the test 30 others.
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

    lora.inject(model, lora.LoRAConfig(rank, ALPHA, target_modules=PARTS[method][1]), seed=seed)
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

STUDY = Study(
    name="lora_parts",
    question="At equal numbers trained, should LoRA go beside attention or beside the feed-forward layers?",
    run=tuned,
    settings=[{"method": method, "rank": rank, "lr": lr} for method, (rank, _) in PARTS.items() for lr in RATES],
    seconds=50,
    tolerance={"": 0.02, "exact match": 1.5 / 30, "perplexity elsewhere": 1.0, "updates": 5.0},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
