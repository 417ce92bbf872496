"""The playground at the end of lesson 2: a prompt of the reader's own, values in, HTML out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import BadPrompt
from ..lm.tasks import Example, Task
from ..lm.types import Model, Tokenizer
from ..show.html import require_whole, table, text_block
from .answers import best_answers, label_scores
from .calibration import content_free_prior
from .own_text import own_task, read_lines
from .prompts import CHAT, NearestExamples, Prompt, build_prompt, task_prompts, template_of, templates_for
from .scoring import count_tokens
from .views import next_token_view

MOST_PROMPT_TOKENS = 600  # of one prompt: it is read about ten times
NEAREST = 2


def prompt_playground(
    model: Model,
    tokenizer: Tokenizer,
    template: str,
    examples: str,
    query: str,
    labels: str = "",
    instruction: str = "",
) -> str:
    """Show a prompt of the reader's own, what the model answers to it, and to the same in other forms.

    Args:
        template: with {x} and, at the end, {y}.
        examples: as for `read_lines`; none is zero-shot.
        labels: the answers to choose among, with commas between them; empty where the answer is to be written.
        instruction: a sentence for the forms that have one.

    Raises BadData or BadPrompt for what makes no prompt, or one too long.
    """
    support = read_lines(examples)
    require_whole(template + query + labels + instruction)
    task = own_task(template, support, [label.strip() for label in labels.split(",") if label.strip()], instruction)
    prompts = _forms(tokenizer, task, query, support)
    counts = {name: count_tokens(tokenizer, prompt.text) for name, prompt in prompts.items()}
    name = max(counts, key=counts.__getitem__)
    if counts[name] > MOST_PROMPT_TOKENS:
        raise BadPrompt(
            f"{name!r} makes a prompt of {counts[name]} tokens; {MOST_PROMPT_TOKENS} is the most here.",
            "use fewer or shorter examples, or a shorter query.",
        )
    if task.labels:
        head, answers = list(task.labels), _among_labels(model, tokenizer, task, prompts, support)
    else:
        head = ["the model's answer", "its probability"]
        found = zip(prompts, best_answers(model, tokenizer, [*prompts.values()]))
        answers = {name: (repr(text), f"{p:.2f}") for name, (text, p) in found}
    rows = [(name, f"{counts.get(name, counts['your template'])}", *cells) for name, cells in answers.items()]
    own = prompts["your template"]
    return (
        f"<p>Your prompt, {counts['your template']} tokens:</p>{text_block(own.text)}"
        + table(["form", "tokens", *head], rows)
        + next_token_view(model, tokenizer, own.text, 8)
    )


def _forms(tokenizer: Tokenizer, task: Task, query: str, support: Sequence[Example]) -> dict[str, Prompt]:
    """Return the prompts to compare: the reader's own, with fewer or other examples, and in other formats."""
    own = template_of(task)
    prompts = {"your template": build_prompt(query, support, own)}
    if support:
        prompts["without the examples"] = build_prompt(query, (), own)
    if len(support) > 1:
        prompts["examples the other way round"] = build_prompt(query, support[::-1], own)
    if len(support) > NEAREST:
        try:
            near = NearestExamples(support, "char").select(query, NEAREST)
            prompts[f"the {NEAREST} nearest examples alone"] = build_prompt(query, near, own)
        except BadPrompt:
            pass  # no letters to be near in
    for name in [*(name for name in templates_for(task) if name != "cue"), CHAT]:
        prompts[f"as {name}"] = task_prompts(tokenizer, task, [Example(query, "")], support, name)[0]
    once = {prompt.text: name for name, prompt in reversed(prompts.items())}
    return {name: prompts[name] for name in prompts if once[prompts[name].text] == name}


def _among_labels(model, tokenizer, task: Task, prompts: Mapping[str, Prompt], support) -> dict[str, tuple[str, ...]]:
    """Return each label's probability among the labels, for each prompt, and for the first one calibrated too."""
    tables = dict(zip(prompts, label_scores(model, tokenizer, [*prompts.values()], task.labels)))
    prior = content_free_prior(model, tokenizer, support, task.labels, template_of(task))
    [own] = label_scores(model, tokenizer, [prompts["your template"]], task.labels, prior)
    tables = {"your template": tables.pop("your template"), "your template, calibrated": own} | tables
    return {name: tuple(f"{p:.2f}" + " ✓" * (p == row.max()).item() for p in row) for name, row in tables.items()}
