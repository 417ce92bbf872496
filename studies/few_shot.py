"""How many examples a prompt needs: exact match against shots, on tasks with one cue each (Brown et al. 2020).

python studies/few_shot.py
"""

from __future__ import annotations

from functools import cache

from runner import Study, main

TASKS = ("plurals", "past_tense", "superlatives", "number_words", "capitals", "country_fr")
SHOTS = (0, 1, 2, 4, 8, 16)


@cache
def loaded():
    from rapidadapt_lessons.lm import load_model

    return load_model()


@cache
def answered(task: str, shots: int, seed: int) -> dict[str, float]:
    """Return the share of queries that the prompt answers exactly, and the share that school grammar spells right.

    The seed draws the examples; the queries are always the same: all that the task has, 49 to 90.
    """
    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.prompting import build_prompts, exact_matches, spelling_rule

    if not shots and seed:
        return answered(task, 0, seed=0)  # nothing is drawn
    model, tokenizer = loaded()
    episode = load_task(task).episode(shots, seed=seed)
    prompts = build_prompts(episode.query, episode.support)
    right = exact_matches(model, tokenizer, prompts, [query.y for query in episode.query])
    by_rule = [spelling_rule(task, query.x) == query.y for query in episode.query]
    return {"exact match": sum(right) / len(right), "rule": sum(by_rule) / len(right)}


STUDY = Study(
    name="few_shot",
    question="How many examples in a prompt are enough?",
    run=answered,
    settings=[{"task": task, "shots": shots} for task in TASKS for shots in SHOTS],
    seconds=11,
    tolerance={"exact match": 1.5 / 49},  # one or two queries may round the other way on another processor
    quick=True,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
