"""Free greedy replies, masked ones and the likeliest label: is an answer off the list a wrong answer?

python studies/constrained_decoding.py
"""

from __future__ import annotations

import random
from functools import cache

from runner import Study, main

QUERIES, CAPITALS = 50, 20
TASKS = ("continents", "question_topic", "language_of_word", "sentiment", "capitals")
PROMPTS = ("no example", "two examples", "chat")


@cache
def loaded():
    from rapidadapt_lessons.lm import load_model

    return load_model()


def answered(task: str, prompt: str, seed: int) -> dict[str, float]:
    """Return the shares of replies that are on the list, and of right ones: free, masked, and the likeliest.

    The list is the task's labels, each of one token; for capitals those of the queries, of several tokens. The seed
    draws the queries, from all of the task's examples, and the two examples, which show two labels at most. The chat
    asks the task's question, which names the labels of most tasks, but says nothing of the form of the answer.
    """
    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.prompting import CHAT, scoring, task_prompts
    from rapidadapt_lessons.prompting.constrained import constrained_answers

    model, tokenizer = loaded()
    asked = load_task(task)
    count = QUERIES if asked.labels else CAPITALS
    support, queries = _drawn([*asked.query_set, *asked.support_pool], count, seed)
    options = asked.labels or tuple(query.y for query in queries)
    shown = support if prompt == "two examples" else ()
    prompts = task_prompts(tokenizer, asked, queries, shown, CHAT if prompt == CHAT else "cue")
    best = scoring.label_logprobs(model, tokenizer, prompts, options).argmax(-1).tolist()
    replies = {
        "free": scoring.generate_answers(model, tokenizer, prompts, max_new_tokens=8),
        "masked": constrained_answers(model, tokenizer, prompts, options),
        "likeliest": [options[i] for i in best],
    }
    found = {}
    for how, given in replies.items():
        found[f"valid, {how}"] = sum(reply in options for reply in given) / count
        found[f"right, {how}"] = sum(reply == query.y for reply, query in zip(given, queries)) / count
    same = sum(a == b for a, b in zip(replies["masked"], replies["likeliest"])) / count
    return found | {"masked is likeliest": same}


def _drawn(examples: list, count: int, seed: int) -> tuple[list, list]:
    """Return two examples, and `count` queries."""
    drawn = random.Random(seed).sample(examples, 2 + count)
    return drawn[:2], drawn[2:]


STUDY = Study(
    name="constrained_decoding",
    question="Does a mask over the tokens, which leaves only the labels, make more answers right?",
    run=answered,
    settings=[{"task": task, "prompt": prompt} for task in TASKS for prompt in PROMPTS],
    seconds=10,
    tolerance={"": 2.5 / CAPITALS},  # two queries may round the other way on another processor
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
