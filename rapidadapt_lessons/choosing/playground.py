"""The playground at the end of lesson 10: the reader's own lines, values in, HTML out."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path

from ..errors import BadData
from ..guards import require_one_of
from ..lm.types import Model, Tokenizer
from ..meta.meta_lora import State
from ..prompting.own_text import EVERY, PROMPTS, READ
from ..prompting.prompts import build_prompt, template_of
from ..show.html import require_whole, text_block
from .choose import Limits, choose
from .figures import quality_and_costs
from .methods import CALIBRATED, FEW, METHODS, ZERO, try_each_method
from .own_data import CUE, read_data, read_pairs

MOST_TYPED_PAIRS = 128


def methods_playground(
    model: Model, tokenizer: Tokenizer, meta_start: State | None,
    text: str, cue: str = CUE, what: str = READ,
) -> str:  # fmt: skip
    """Read a CSV of the reader's own as the lesson reads a file; try the prompts, or every method, on it (READ,
    PROMPTS or EVERY). Raises BadData and BadPrompt as `own_data.read_pairs`, and as `methods.try_each_method`.
    """
    require_one_of((READ, PROMPTS, EVERY), "choice", what)
    require_whole(text + cue)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "your lines"
        path.write_bytes(text.encode())
        task, lines = read_pairs(path, tokenizer, cue=cue.strip()), read_data(path).summary()
    learned, held_out = len(task.support_pool), len(task.query_set)
    if (count := learned + held_out) > MOST_TYPED_PAIRS:
        raise BadData(
            f"there are {count} pairs; {MOST_TYPED_PAIRS} is the most here.", "read a file, as in section 10.7."
        )
    lines.append(f"{learned} pairs to learn from, {held_out} held out: one query is {1 / held_out:.0%}.")
    html = "".join(f"<p>{escape(line)}</p>" for line in lines)
    if what == READ:
        return html + text_block(build_prompt(task.query_set[0].x, task.support_pool[:2], template_of(task)).text)
    tried = METHODS if what == EVERY else (ZERO, FEW, CALIBRATED)
    trials, _ = try_each_method(
        model, tokenizer, task, sizes=(4, 16), n_query=held_out, meta_start=meta_start, methods=tried, progress=False
    )
    picture = quality_and_costs(trials, f"Your lines: {held_out} queries")
    reason = choose(trials, Limits(max(t.examples for t in trials))).reason
    return f"{html}{picture.html()}<p><b>{escape(reason)}</b></p>"
