"""How many examples a prompt needs: exact match against shots, on tasks with one cue each (Brown et al. 2020).

python studies/few_shot.py
"""

from __future__ import annotations

from functools import cache

from runner import Study, main

QUERIES = 48
TASKS = ("plurals", "past_tense", "superlatives", "number_words", "capitals", "country_fr")
SHOTS = (0, 1, 2, 4, 8, 16)


@cache
def loaded():
    from rapidadapt_lessons.lm import load_model

    return load_model()


def answered(task: str, shots: int, seed: int) -> dict[str, float]:
    """Return the share of queries answered exactly. The seed draws the examples; the queries are always the same."""
    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.prompting import build_prompts, exact_matches

    model, tokenizer = loaded()
    episode = load_task(task).episode(shots, seed=seed, n_query=QUERIES)
    prompts = build_prompts(episode.query, episode.support)
    right = exact_matches(model, tokenizer, prompts, [query.y for query in episode.query])
    return {"exact match": sum(right) / QUERIES}


STUDY = Study(
    name="few_shot",
    question="How many examples in a prompt are enough?",
    run=answered,
    settings=[{"task": task, "shots": shots} for task in TASKS for shots in SHOTS],
    seconds=8,
    tolerance={"exact match": 1.5 / QUERIES},  # one query may round the other way on another processor
    quick=True,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
