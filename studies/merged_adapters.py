"""Two adapters trained apart, added up: does the sum do both tasks? (task arithmetic, Ilharco et al. 2023).

python studies/merged_adapters.py
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

from runner import Study, main

TASKS = ("past_tense", "superlatives", "plurals")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA = 8, 16
QUERIES, UPDATES, RATE = 48, 25, 3e-4  # of the rates of `lora_rate`, the best on validation


@lru_cache(1)
def loaded():
    from rapidadapt_lessons.lm import load_model

    return load_model()


@lru_cache(len(TASKS))
def trained(name: str, seed: int) -> tuple[dict, list]:
    """Return an adapter trained on 40 words of a task, and rows of 48 other words. The model is the base again."""
    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.loop import TrainConfig, train
    from rapidadapt_lessons.training.rows import task_rows

    model, tokenizer = loaded()
    task = load_task(name)
    episode = task.episode(40, seed=seed, n_query=QUERIES)
    rows, asked = (task_rows(tokenizer, task, pairs) for pairs in (episode.support, episode.query))
    lora.inject(
        model, lora.LoRAConfig(RANK, ALPHA, target_modules=ALL_LINEAR), seed=len(TASKS) * seed + TASKS.index(name)
    )
    train(model, rows, TrainConfig(UPDATES, batch_size=8, lr=RATE, warmup=3, seed=seed), progress=False)
    adapter = lora.adapter_state(model)
    lora.remove(model)
    return adapter, asked


def added(task: str, other: str, seed: int) -> dict[str, float]:
    """Return a task's exact match with its own adapter, another task's, and both added up, weighted by 0.5 or by 1.

    The adapters start from the same base. The seed draws the words, the order of the rows, and A for each adapter.
    """
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.rows import exact_rows

    (own, asked), (others, _), (model, _) = trained(task, seed), trained(other, seed), loaded()
    found = {"base": sum(exact_rows(model, asked)) / QUERIES}
    weights = {"own adapter": (1, 0), "other adapter": (0, 1), "sum at 0.5": (0.5, 0.5), "sum at 1": (1, 1)}
    for name, pair in weights.items():
        # Of twice the rank, at the same lora_alpha / rank.
        lora.inject(model, lora.LoRAConfig(2 * RANK, 2 * ALPHA, target_modules=ALL_LINEAR))
        lora.set_adapter_state(model, lora.combine([own, others], pair))
        found[name] = sum(exact_rows(model, asked)) / QUERIES
        lora.remove(model)
    return found


STUDY = Study(
    name="merged_adapters",
    question="Does the sum of two adapters do both tasks?",
    run=added,
    settings=[{"task": task, "other": other} for task, other in permutations(TASKS, 2)],
    seconds=20,
    tolerance={"": 2.5 / QUERIES},  # two queries may round the other way elsewhere
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
