"""The model card of an adapted model: what it is for, what it was made from, how good it is, and where it ends."""

from __future__ import annotations

import re
import shlex

from .outcome import Outcome, versions


def model_card(outcome: Outcome) -> str:
    """Return the card, in Markdown."""
    how, task, plan, reading = outcome.how, outcome.task, outcome.plan, outcome.reading
    kind = f"choose between {', '.join(map(_plain, how.labels))}" if how.labels else "write an answer"
    adapter = ""
    if outcome.adapter_method:
        use = "." if how.adapter else "; the chosen method does not use them."
        adapter = f"- `adapter/`: LoRA's matrices ({outcome.adapter_method}), which `peft` loads{use}\n"
    limit = "It always answers with one of its labels, also where none fits."
    if not how.labels:
        limit = f"An answer is cut after {how.max_new_tokens} tokens, and counts as right only letter by letter."
    column = shlex.quote(" ".join(reading.x.split()))
    used = "\n".join(f"- {name} {version}" for name, version in versions().items())
    return f"""# {_plain(task.title)}

{how.model}, adapted to {kind} for a text, from {_plain(reading.file.name)} (column {_plain(reading.x)} to column \
{_plain(reading.y)}).

## Use

    python -m rapidadapt_lessons predict FOLDER queries.txt
    python -m rapidadapt_lessons predict FOLDER --csv FILE.csv --column {column} --out ANSWERS.csv

- `prompt.json`: how a query is asked, and what `predict` reads; `prompt.txt` is the same to read.
{adapter}- `report.html`: what was tried, what was chosen, and the mistakes. `results.json`: the same for programs.
- `plan.json`: what each method did; `adapt --plan plan.json` on the same data gives the same result.

**Intended for** texts like those of the file, and for answers like theirs. It was made to learn from and to try out.

## How good it is

{outcome.sentence()} (Wilson's interval.) The test queries were drawn at random from the file, and no choice has seen
them. The method was chosen among {", ".join(plan.candidates())} by {len(task.query_set)} other queries.

## Made from

- {len(reading.examples)} different pairs: {len(task.support_pool)} to learn from, {len(task.query_set)} to choose by, \
{len(outcome.test)} to test on.
- Seed {plan.seed}, method {plan.method}, budget {plan.budget:g} s.
- Base model: {how.model} (Hugging Face, Apache-2.0), 135 million parameters, mostly English.

{used}

## Limits

- The interval says what the size of the test split leaves open, for texts of the same kind. For other texts it says
  nothing.
- A probability is the model's own, and was not checked against how often it is right.
- {limit}
- The base model can be wrong, and can have prejudices, in ways that {len(reading.examples)} pairs neither show nor
  mend. Do not let it decide about people.
- The files here hold examples from your data: `prompt.json`, `prompt.txt`, `report.html` and `results.json` quote
  them, and an adapter may give some of what it learned away.
"""


def _plain(text: str) -> str:
    """Return a reader's text so that Markdown takes it as text, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", " ".join(text.split()))
