"""What the format of a prompt does: exact and lenient match of six formats, without and with examples (Sclar et al.
2024, figure 2).

python studies/prompt_formats.py

The system prompt is one of four wordings that were tried on words of the support pool. The model kept to none of them
without examples, and with examples none of them stood out.
"""

from __future__ import annotations

from functools import cache

from runner import Study, main

TASKS = ("plurals", "past_tense", "capitals")
FORMATS = ("arrow", "cue", "question and answer", "instruction, then arrow", "chat", "chat, system prompt")
SYSTEM = "Reply with the answer only."
MOST_TOKENS = 20  # enough for "The capital of the Central African Republic is Bangui."


@cache
def loaded():
    from rapidadapt_lessons.lm import load_model

    return load_model()


@cache
def answered(task: str, format: str, shots: int, seed: int) -> dict[str, float]:
    """Return the share of replies that are the answer and the share that contain it. The seed draws the examples."""
    from rapidadapt_lessons.lm import load_task
    from rapidadapt_lessons.prompting import lenient_match, task_prompts
    from rapidadapt_lessons.prompting.scoring import generate_answers

    if not shots and seed:
        return answered(task, format, 0, seed=0)  # nothing is drawn
    model, tokenizer = loaded()
    asked = load_task(task)
    episode = asked.episode(shots, seed=seed)
    template, system = ("chat", SYSTEM) if format == FORMATS[-1] else (format, None)
    prompts = task_prompts(tokenizer, asked, episode.query, episode.support, template, system)
    replies = generate_answers(model, tokenizer, prompts, max_new_tokens=MOST_TOKENS)
    pairs = [(reply, query.y) for reply, query in zip(replies, episode.query)]
    return {
        "exact match": sum(reply == y for reply, y in pairs) / len(pairs),
        "lenient match": sum(lenient_match(reply, y) for reply, y in pairs) / len(pairs),
    }


STUDY = Study(
    name="prompt_formats",
    question="How much does the format of a prompt decide, and how much of that is only the form of the answer?",
    run=answered,
    settings=[{"task": t, "format": f, "shots": shots} for t in TASKS for f in FORMATS for shots in (0, 4)],
    seconds=8,
    tolerance={"": 2.5 / 60},  # two replies may turn out otherwise on another processor
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
