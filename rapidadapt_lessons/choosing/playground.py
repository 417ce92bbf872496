"""The playground at the end of lesson 6: the reader's own lines, values in, HTML out."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadData, CourseError
from ..prompting import prompts
from ..prompting.own_text import EVERY, PROMPTS, READ
from ..prompting.prompts import build_prompt
from ..show.html import require_whole, text_block
from . import choose, methods, own_data
from .figures import quality_and_costs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MOST_ROWS = 128  # of lesson 6, which tries every way on them


def methods_playground(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    meta_start: methods.State | None,
    text: str,
    cue: str = own_data.CUE,
    what: str = READ,
) -> str:
    """Read the reader's own lines as the lesson reads a file, and try the prompts, or every way, on them.

    Args:
        text: a CSV with the names of its two columns in the first line.
        cue: how a pair is written for the model, with {x} and, at the end, {y}.
        what: READ, PROMPTS or EVERY.

    Raises: BadData, BadPrompt; as `methods.try_each_method`.
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
    sizes = sorted({min(size, methods.most_examples(task)) for size in (4, 16)})
    held_out = len(task.query_set)
    told += [f"{len(task.support_pool)} pairs to learn from, {held_out} held out: one query is {1 / held_out:.0%}."]
    html = "".join(f"<p>{escape(line)}</p>" for line in told)
    if what == READ:
        shown = build_prompt(task.query_set[0].x, task.support_pool[:2], prompts.template_of(task))
        return html + text_block(shown.text)
    if what == EVERY:
        trials, _ = methods.try_each_method(
            model, tokenizer, task, sizes=sizes, n_query=held_out, meta_start=meta_start, progress=False
        )
    else:
        support = task.episode(sizes[-1], balanced=bool(task.labels)).support
        kinds = [(0, False), *((k, c) for k in sizes for c in ((False, True) if task.labels else (False,)))]
        trials = [
            methods.prompt_trial(model, tokenizer, task, support[:k], task.query_set, calibrated=c) for k, c in kinds
        ]
    picture = quality_and_costs(trials, f"Your lines: {held_out} queries")
    reason = choose.choose(trials, choose.Limits(sizes[-1])).reason
    return f"{html}{picture.html()}<p><b>{escape(reason)}</b></p>"
