"""Past tenses from examples in the prompt, or from an adapter trained on 40 of them: the same verbs are asked.

python studies/adapter_or_prompt.py
"""

from __future__ import annotations

import math

from runner import Study, main

QUERIES, UPDATES = 48, 15


def answered(method: str, examples: int, lr: float, seed: int) -> dict[str, float]:
    """Return the share of 48 verbs answered exactly. The seed draws the examples, the order of the rows and LoRA's A.

    LoRA is the lesson's: rank 8 on q_proj and v_proj, 15 updates of 8. Which rate is best is told by the loss on 31
    verbs for validation, in nats per token. A prompt has nothing to be tuned.
    """
    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.prompting import build_prompts, exact_matches
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import exact_rows, perplexity, task_rows

    model, tokenizer = load_model()
    task = load_task("past_tense")
    episode = task.episode(examples, seed=seed)
    queries = episode.query[:QUERIES]
    if method == "prompt":
        right = exact_matches(model, tokenizer, build_prompts(queries, episode.support), [query.y for query in queries])
        return {"exact match": sum(right) / QUERIES}
    rows, asked = (task_rows(tokenizer, task, pairs) for pairs in (episode.support, episode.query))
    lora.inject(model, lora.LoRAConfig(rank=8, lora_alpha=16, target_modules=("q_proj", "v_proj")), seed=seed)
    train(model, rows, TrainConfig(UPDATES, batch_size=8, lr=lr, seed=seed), progress=False)
    return {
        "exact match": sum(exact_rows(model, asked[:QUERIES])) / QUERIES,
        "validation loss": math.log(perplexity(model, asked[QUERIES:])),
    }


STUDY = Study(
    name="adapter_or_prompt",
    question="Does an adapter, asked with no example, know what examples in the prompt tell?",
    run=answered,
    settings=[
        *({"method": "prompt", "examples": n, "lr": 0.0} for n in (8, 40)),
        *({"method": "LoRA", "examples": 40, "lr": lr} for lr in (3e-4, 1e-3, 3e-3)),
    ],
    seconds=15,
    tolerance={"": 2.5 / QUERIES, "validation loss": 0.1},  # two queries may round the other way elsewhere
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
