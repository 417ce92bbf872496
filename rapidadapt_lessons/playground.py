"""What the playgrounds at the ends of lessons 1, 2, 5 and 6 make of a reader's own text: values in, HTML out.

Each is a plain function around those of its lesson. Nothing outlives a call: the model ends as it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from . import choose, lora, own_data, ways
from .adapters_per_task import PerTask
from .calibration import content_free_prior
from .choose_views import quality_and_costs
from .continual import Method, Part, run_stream, swapped
from .continual_views import matrix_picture
from .errors import BadData, BadPrompt, CourseError
from .ewc import EWC
from .language_stream import language_stream
from .lora_views import lines
from .prompting import ARROW, NearestExamples, Prompt, build_prompt, templates_for
from .replay import Replay
from .rows import Row, exact_rows, perplexity
from .scoring import count_tokens
from .tasks import Example, Task
from .training import TrainConfig, train
from .views import CHAT, best_answers, next_token_view, require_whole, table, task_prompts, text_block

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_PAIRS = 32
MOST_PAIR_TOKENS = 100
MOST_PROMPT_TOKENS = 600  # of one prompt: it is read about ten times
NEAREST = 2
MOST_ROWS = 128  # of lesson 6, which tries every way on them
READ, PROMPTS, EVERY = "only read them", "try the prompts", "try every way"


def read_lines(text: str, most: int = MOST_PAIRS) -> list[Example]:
    """Return the pairs of a text: a line each, what the model reads, a comma, what it should answer.

    The last comma of a line is the one that counts. Empty lines are left out; runs of white space count as one space.

    Raises:
        BadData: a line lacks a side, there are more than `most`, or the text holds half a character.
    """
    require_whole(text)
    pairs, faulty = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        x, _, y = (" ".join(part.split()) for part in line.rpartition(","))
        if x and y:
            pairs.append(Example(x, y))
        elif line.strip():
            faulty.append(f"line {number} is {line.strip()[:40]!r}")
    if faulty:
        raise BadData(f"{'; '.join(faulty[:3])}.", 'write "what the model reads, what it should answer" in each line.')
    if len(pairs) > most:
        raise BadData(f"there are {len(pairs)} pairs; {most} is the most here.", "delete some.")
    return pairs


def prompt_playground(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
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

    Raises: BadData, BadPrompt for what cannot be made a prompt, or is too long a one.
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
        found = best_answers(model, tokenizer, task, [*prompts.values()])
        answers = {name: (repr(answer), f"{p:.2f}") for name, answer, p in zip(prompts, *found)}
    rows = [(name, f"{counts.get(name, counts['your template'])}", *cells) for name, cells in answers.items()]
    own = prompts["your template"]
    return (
        f"<p>Your prompt, {counts['your template']} tokens:</p>{text_block(own.text)}"
        + table(["form", "tokens", *head], rows)
        + next_token_view(model, tokenizer, own.text, 8)
    )


def own_task(template: str, pairs: Sequence[Example], labels: Sequence[str] = (), instruction: str = "") -> Task:
    """Return a task of the reader's own pairs, without queries. Raises BadPrompt for a faulty template, BadData for
    more labels than `own_data.MOST_LABELS`."""
    instruction = instruction.strip() or "Answer as in the examples."
    if len(labels) > own_data.MOST_LABELS:
        raise BadData(f"there are {len(labels)} labels; {own_data.MOST_LABELS} is the most here.", "delete some.")
    task = Task(
        name="yours",
        title="yours",
        instruction=instruction,
        cue=template.strip(),
        question=f"{instruction} {{x}}",
        source="typed",
        support_pool=tuple(pairs),
        query_set=(),
        labels=tuple(labels),
    )
    ways.template_of(task)  # raises where it is faulty
    return task


def _forms(tokenizer: PreTrainedTokenizerBase, task: Task, query: str, support: Sequence[Example]) -> dict[str, Prompt]:
    """Return the prompts to compare: the reader's own, with fewer or other examples, and in other formats."""
    own = ways.template_of(task)
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
    tables = dict(zip(prompts, ways.label_scores(model, tokenizer, [*prompts.values()], task.labels)))
    prior = content_free_prior(model, tokenizer, support, task.labels, ways.template_of(task))
    [own] = ways.label_scores(model, tokenizer, [prompts["your template"]], task.labels, prior)
    tables = {"your template": tables.pop("your template"), "your template, calibrated": own} | tables
    return {name: tuple(f"{p:.2f}" + " ✓" * (p == row.max()).item() for p in row) for name, row in tables.items()}


def lora_playground(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    elsewhere: Sequence[Row],
    pairs: str,
    query: str,
    template: str = ARROW.pattern,
    rank: int = 8,
    lr: float = 2e-3,
    updates: int = 10,
) -> str:
    """Train a fresh adapter on the reader's pairs, ask a query before and after, and take the adapter out again.

    Args:
        elsewhere: rows of text that have nothing to do with the pairs, to see what else changes.
        pairs: as for `read_lines`.
        template: with {x} and, at the end, {y}.

    Raises: BadData, BadPrompt; as `lora.inject` and `training.train`.
    """
    task, rows = _rows(tokenizer, template, read_lines(pairs))
    require_whole(query)
    if not 0 < lr <= 1:
        raise CourseError(f"lr is {lr}.", "give a rate above 0, at most 1; 2e-3 is usual.")
    prompt = build_prompt(query, (), ways.template_of(task))
    _require_short(tokenizer, [prompt.text])

    def measured() -> tuple[str, str, str, str]:
        [answer], [p] = best_answers(model, tokenizer, task, [prompt])
        right = exact_rows(model, rows)
        return repr(answer), f"{p:.2f}", f"{sum(right)} of {len(right)}", f"{perplexity(model, elsewhere):.1f}"

    before = measured()
    lora.inject(model, lora.LoRAConfig(rank, 2 * rank))
    try:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        history = train(model, rows, TrainConfig(updates, min(8, len(rows)), lr=lr), progress=False)
        after = measured()
    finally:
        lora.remove(model)
    names = (f"answer to {prompt.text!r}", "its probability", "your pairs answered right", "perplexity elsewhere")
    title = f"{trained:,} trained numbers, {len(rows)} pairs"
    losses = {"loss": dict(enumerate(history.losses))}
    return (
        table(["", "before", "after"], zip(names, before, after))
        + lines(losses, title=title, xlabel="update", ylabel="loss (nats a token)").html()
        + "<p>Right on the pairs that it was trained on is memory; your query, if it is none of them, tells more. And "
        "what else has changed? The last line of the table is text that has nothing to do with your pairs: higher is "
        "worse. Try queries of other kinds, too. The adapter has been taken out again.</p>"
    )


def stream_playground(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    start: Mapping[str, Tensor],
    tasks: str,
    method: str = READ,
    updates: int = 12,
    kept: int = 4,
    strength: float = 1e5,
) -> str:
    """Learn the reader's own tasks one after another, and show how much of each is known after each.

    Measured on the pairs that were learned: what is remembered, not what carries over to others.

    Args:
        start: the trained parameters to start from; the model's own are put back at the end.
        tasks: two to four, with an empty line between them; each as for `read_lines`, and above its pairs, if you like,
            a line "# " with a template of its own, with {x} and {y}.
        method: one of `STREAM_METHODS`, or READ to see how the tasks are read.
        kept: examples that replay keeps.
        strength: of EWC's springs.

    Raises: BadData, BadPrompt; CourseError for an unknown method; as `continual.run_stream`.
    """
    if method not in (READ, *STREAM_METHODS):
        raise CourseError(f"there is no method {method!r}.", f"choose one of {', '.join(STREAM_METHODS)}.")
    stream = language_stream("yours", own_parts(tokenizer, tasks))
    if method == READ:
        read = ((part.name, str(len(part.train)), tokenizer.decode(part.train[0].ids).strip()) for part in stream.parts)
        return table(("", "pairs", "the first, as the model reads it"), read)
    way = STREAM_METHODS[method](kept, strength)
    with swapped(model, {name: value.clone() for name, value in start.items()}):
        result = run_stream(way, model, stream, TrainConfig(updates, batch_size=8, lr=2e-3))
    title = f"{method}: {updates} updates a task"
    told = f"ACC {result.acc:.2f}, BWT {result.bwt:.2f}, FWT {result.fwt:.2f}, forgetting {result.forgetting:.2f}."
    stored = f"Kept besides the model: {result.stored_examples} examples, {result.stored_numbers:,} numbers."
    before = ", ".join(f"{name} {score:.2f}" for name, score in zip(result.parts, result.before.tolist()))
    return f"{matrix_picture(result, title).html()}<p>{told} {stored} Before any training: {before}.</p>"


STREAM_METHODS = {
    Method.name: lambda kept, strength: Method(),
    "replay": lambda kept, strength: Replay(kept),
    "EWC": lambda kept, strength: EWC(strength, examples=12),
    "adapter each": lambda kept, strength: PerTask("told"),
}


def own_parts(tokenizer: PreTrainedTokenizerBase, tasks: str) -> list[Part]:
    """Return the reader's tasks as parts of a stream, each measured on what it trains. See `stream_playground`."""
    blocks: list[list[str]] = [[]]
    for line in tasks.split("\n"):
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    blocks = [block for block in blocks if block]
    if not 2 <= len(blocks) <= 4:
        raise BadData(f"there are {len(blocks)} tasks; 2 to 4 can be learned here.", "put an empty line between tasks.")
    parts = []
    for number, block in enumerate(blocks, start=1):
        template = block.pop(0).lstrip("# ") if block[0].startswith("#") else ARROW.pattern
        try:
            _, rows = _rows(tokenizer, template, read_lines("\n".join(block)))
        except (BadData, BadPrompt) as error:
            raise BadData(f"task {number}: {error.problem}", error.remedy) from error
        parts.append(Part(f"task {number}", tuple(rows), tuple(rows)))
    return parts


def ways_playground(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    meta_start: ways.State | None,
    text: str,
    cue: str = own_data.CUE,
    what: str = READ,
) -> str:
    """Read the reader's own lines as the lesson reads a file, and try the prompts, or every way, on them.

    Args:
        text: a CSV with the names of its two columns in the first line.
        cue: how a pair is written for the model, with {x} and, at the end, {y}.
        what: READ, PROMPTS or EVERY.

    Raises: BadData, BadPrompt; as `ways.try_each_way`.
    """
    if what not in (READ, PROMPTS, EVERY):
        raise CourseError(f"{what!r} cannot be done here.", f"choose one of {READ}, {PROMPTS}, {EVERY}.")
    require_whole(text + cue)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "your lines"
        path.write_bytes(text.encode())
        task, told = own_data.read_pairs(path, tokenizer, cue=cue.strip()), own_data.read_data(path).told()
    if (count := len(task.support_pool) + len(task.query_set)) > MOST_ROWS:
        raise BadData(f"there are {count} pairs; {MOST_ROWS} is the most here.", "read a file, as in section 6.7.")
    sizes = sorted({min(size, ways.most_examples(task)) for size in (4, 16)})
    held_out = len(task.query_set)
    told += [f"{len(task.support_pool)} pairs to learn from, {held_out} held out: one query is {1 / held_out:.0%}."]
    html = "".join(f"<p>{escape(line)}</p>" for line in told)
    if what == READ:
        return html + text_block(build_prompt(task.query_set[0].x, task.support_pool[:2], ways.template_of(task)).text)
    if what == EVERY:
        trials, _ = ways.try_each_way(
            model, tokenizer, task, sizes=sizes, n_query=held_out, meta_start=meta_start, progress=False
        )
    else:
        support = task.episode(sizes[-1], balanced=bool(task.labels)).support
        kinds = [(0, False), *((k, c) for k in sizes for c in ((False, True) if task.labels else (False,)))]
        trials = [
            ways.prompt_trial(model, tokenizer, task, support[:k], task.query_set, calibrated=c) for k, c in kinds
        ]
    picture = quality_and_costs(trials, f"Your lines: {held_out} queries")
    reason = choose.choose(trials, choose.Limits(sizes[-1])).reason
    return f"{html}{picture.html()}<p><b>{escape(reason)}</b></p>"


def _rows(tokenizer: PreTrainedTokenizerBase, template: str, pairs: Sequence[Example]) -> tuple[Task, list[Row]]:
    """Return the pairs as a task, and as rows to train on, none of them too long."""
    if not pairs:
        raise BadData("there are no pairs to learn from.", 'write at least one: "cat, cats".')
    task = own_task(template, pairs)
    _require_short(tokenizer, [ways.template_of(task).shot(*pair) for pair in pairs])
    return task, ways.task_rows(tokenizer, task, pairs)


def _require_short(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    for text in texts:
        if (tokens := count_tokens(tokenizer, text)) > MOST_PAIR_TOKENS:
            raise BadData(f"{text[:40]!r} has {tokens} tokens; {MOST_PAIR_TOKENS} is the most here.", "shorten it.")
