"""A base in 4 bits: LoRA on it against LoRA on the base in 32 bits (Dettmers et al. 2023).

python studies/four_bits.py
"""

from __future__ import annotations

import math

from runner import Study, main

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def base_in(bits: int):
    """Return the model, its linear layers in 32 bits or in bitsandbytes' NF4, the tokenizer, and its bytes."""
    from rapidadapt_lessons.lm import load_model
    from rapidadapt_lessons.lora.quantise import bitsandbytes_layer, hide_library_notices, quantise_model

    hide_library_notices()
    model, tokenizer = load_model()
    if bits == 4:
        quantise_model(model, make=bitsandbytes_layer)
    states = [getattr(weight, "quant_state", None) for weight in model.parameters()]
    scales = sum(state.absmax.nbytes for state in states if state is not None)
    return model, tokenizer, scales + sum(weight.nbytes for weight in model.parameters())


def adapted(bits: int, seed: int) -> dict[str, float]:
    """Train LoRA, as in the study `lora_rate` at its best rate, on a base that is stored in 32 or in 4 bits.

    The seed draws the words, the order of the rows and LoRA's A. Losses are nats per token of the answers, after as
    many updates as are best for the validation loss. Exact match is that of the end.
    """
    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.data import domain_experience
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import exact_rows, perplexity, task_rows

    model, tokenizer, size = base_in(bits)
    task = load_task("superlatives", query_size=50)
    rows = task_rows(tokenizer, task, task.episode(40, seed=seed).support)
    queries = task_rows(tokenizer, task, task.query_set)
    test, validation = queries[:30], queries[30:]
    elsewhere = domain_experience(tokenizer, "python_reference", test=8, length=128).test

    def measured(when: str) -> dict[str, float]:
        right = sum(exact_rows(model, test)) / len(test)
        return {f"exact match {when}": right, f"perplexity elsewhere {when}": perplexity(model, elsewhere)}

    found = {"test loss before": math.log(perplexity(model, test)), **measured("before")}
    best = {"validation loss": math.inf}

    def judged(model) -> float:
        loss = math.log(perplexity(model, validation))
        if loss < best["validation loss"]:
            best.update({"validation loss": loss, "test loss after": math.log(perplexity(model, test))})
        return loss

    lora.inject(model, lora.LoRAConfig(8, 16, target_modules=ALL_LINEAR), seed=seed)
    config = TrainConfig(30, batch_size=8, lr=3e-4, warmup=3, eval_every=5, seed=seed)
    train(model, rows, config, evaluate=judged, progress=False)
    return found | best | measured("after") | {"megabytes of weights": size / 1e6}


STUDY = Study(
    name="four_bits",
    question="Does LoRA get as far on a base in 4 bits as on the same base in 32 bits?",
    run=adapted,
    settings=[{"bits": 32}, {"bits": 4}],
    seconds=60,
    tolerance={"": 0.02, "exact match before": 1.5 / 30, "exact match after": 1.5 / 30, "megabytes of weights": 0.1}
    | dict.fromkeys(("perplexity elsewhere before", "perplexity elsewhere after"), 0.5),
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
