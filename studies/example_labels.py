"""What the examples in a prompt tell the model: their labels, or only their kind (Min et al. 2022, figure 1)?

python studies/example_labels.py
"""

from __future__ import annotations

import random

from runner import Study, main

SHOTS, QUERIES = 8, 100
TASKS = ("sentiment", "continents", "question_topic", "language_of_word")
SHOWN = ("nothing", "correct labels", "random labels", "correct labels, unrelated words")


def answered(task: str, shown: str, seed: int) -> dict[str, float]:
    """Return the share of queries whose likeliest label is the right one. The seed draws the eight examples, as many
    of each label, and what is put in their place: labels drawn evenly, or words that have nothing to do with the task.
    """
    from rapidadapt_lessons.lm import load_model, load_task
    from rapidadapt_lessons.prompting.answers import answered_right

    model, tokenizer = load_model()
    asked = load_task(task)
    episode = asked.episode(0 if shown == "nothing" else SHOTS, seed=seed, balanced=True)
    queries, support, draw = episode.query[:QUERIES], episode.support, random.Random(seed)
    if shown == "random labels":
        support = tuple(example._replace(y=draw.choice(asked.labels)) for example in support)
    elif shown == "correct labels, unrelated words":
        words = draw.sample([example.x for example in load_task("plurals").support_pool], SHOTS)
        support = tuple(example._replace(x=word) for example, word in zip(support, words))
    right = answered_right(model, tokenizer, asked, queries, support)
    return {"accuracy": sum(right) / len(right)}


STUDY = Study(
    name="example_labels",
    question="Do the labels of the examples in a prompt matter, or only that there are examples?",
    run=answered,
    settings=[{"task": task, "shown": shown} for task in TASKS for shown in SHOWN],
    seconds=6,
    tolerance={"accuracy": 2.5 / QUERIES},  # two queries may round the other way on another processor
    seeds=10,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
