"""One update from all 40 words, or five from 8: does LoRA tolerate large batches? (Schulman et al. 2025).

python studies/lora_batch.py
"""

from __future__ import annotations

import math

from runner import Study, main

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WORDS, READ = 40, 240  # rows in one update, and in the whole run: as many as 30 updates of 8 in `lora_rate`
RATES = {"full fine-tuning": (3e-5, 1e-4, 3e-4), "LoRA, all linear": (3e-4, 1e-3, 3e-3)}


def tuned(method: str, lr: float, seed: int) -> dict[str, float]:
    """Train as `lora_rate` does, with LoRA of rank 8, but all words in each update: 6 updates in place of 30.

    The same seeds draw the same 40 superlatives. Losses are nats per token of the answers, after as many updates as
    are best for the validation loss: "updates". Validation takes 20 words, the test 30 others, the same for all seeds.
    """
    from rapidadapt_lessons.errors import TrainingDiverged
    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import exact_rows, perplexity, task_rows

    model, tokenizer = load_model()
    task = load_task("superlatives", query_size=50)
    rows = task_rows(tokenizer, task, task.episode(WORDS, seed=seed).support)
    queries = task_rows(tokenizer, task, task.query_set)
    test, validation = queries[:30], queries[30:]
    found = dict.fromkeys(METRICS, math.nan) | {"validation loss": math.inf}

    def judged(model) -> float:
        loss = math.log(perplexity(model, validation))
        if loss < found["validation loss"]:
            found["validation loss"], found["test loss"] = loss, math.log(perplexity(model, test))
        return loss

    if method == "LoRA, all linear":
        lora.inject(model, lora.LoRAConfig(8, 16, target_modules=ALL_LINEAR), seed=seed)
    else:
        model.requires_grad_(True)
    config = TrainConfig(READ // WORDS, batch_size=WORDS, lr=lr, warmup=1, eval_every=1, seed=seed)
    try:
        evaluations = train(model, rows, config, evaluate=judged, progress=False).evaluations
    except TrainingDiverged:
        return dict.fromkeys(METRICS, math.nan)
    updates = float(min(evaluations, key=evaluations.get))
    return found | {"updates": updates, "exact match": sum(exact_rows(model, test)) / len(test)}


METRICS = ("validation loss", "test loss", "updates", "exact match")

STUDY = Study(
    name="lora_batch",
    question="Does LoRA lose more than full fine-tuning when batches are large?",
    run=tuned,
    settings=[{"method": method, "lr": lr} for method, rates in RATES.items() for lr in rates],
    seconds=35,
    tolerance={"": 0.02, "exact match": 1.5 / 30, "updates": 1.0},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
