"""The playground at the end of lesson 8: the reader's own tasks one after another, values in, HTML out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import Tensor

from ..errors import BadData, BadPrompt
from ..guards import require_one_of
from ..lm.types import Model, Tokenizer
from ..prompting.own_text import READ, read_lines
from ..prompting.prompts import ARROW
from ..show.html import table
from ..training.data import Experience
from ..training.loop import TrainConfig
from ..training.rows import pair_rows
from .adapters import PerTask
from .ewc import EWC
from .figures import matrix_picture
from .language import language_stream
from .replay import Replay
from .stream import Method, run_stream, swapped


def stream_playground(
    model: Model,
    tokenizer: Tokenizer,
    start: Mapping[str, Tensor],
    tasks: str,
    method: str = READ,
    updates: int = 12,
    kept: int = 4,
    strength: float = 1e5,
) -> str:
    """Learn the reader's own tasks one after another, and show how well each one's own pairs are known after each.

    Args:
        start: the trained parameters to start from; the model's own are put back at the end.
        tasks: two to four, with an empty line between them. Each is as for `read_lines`; a line above its pairs that
            begins with "# " is a template of its own, with {x} and {y}.
        method: one of `STREAM_METHODS`, or READ to see how the tasks are read.

    Raises BadData, BadPrompt; CourseError for an unknown method; as `run_stream`.
    """
    require_one_of((READ, *STREAM_METHODS), "method", method)
    stream = language_stream("yours", own_experiences(tokenizer, tasks))
    if method == READ:
        read = [(e.name, str(len(e.train)), tokenizer.decode(e.train[0].ids).strip()) for e in stream.experiences]
        return table(("", "pairs", "the first, as the model reads it"), read)
    with swapped(model, {name: value.clone() for name, value in start.items()}):
        config = TrainConfig(updates, batch_size=8, lr=2e-3)
        result = run_stream(STREAM_METHODS[method](kept, strength), model, stream, config)
    title = f"{method}: {updates} updates a task"
    scores = f"ACC {result.acc:.2f}, BWT {result.bwt:.2f}, FWT {result.fwt:.2f}, forgetting {result.forgetting:.2f}."
    stored = f"Kept besides the model: {result.stored_examples} examples, {result.stored_numbers:,} numbers."
    before = ", ".join(f"{name} {score:.2f}" for name, score in zip(result.experiences, result.before.tolist()))
    return f"{matrix_picture(result, title).html()}<p>{scores} {stored} Before any training: {before}.</p>"


STREAM_METHODS = {
    Method.name: lambda kept, strength: Method(),
    "replay": lambda kept, strength: Replay(kept),
    "EWC": lambda kept, strength: EWC(strength, examples=12),
    "adapter each": lambda kept, strength: PerTask("oracle"),
}


def own_experiences(tokenizer: Tokenizer, tasks: str) -> list[Experience]:
    """Return the tasks of `stream_playground` as experiences, each measured on what it trains."""
    groups = itertools.groupby(tasks.split("\n"), lambda line: bool(line.strip()))
    blocks = [list(block) for filled, block in groups if filled]
    if not 2 <= len(blocks) <= 4:
        raise BadData(f"there are {len(blocks)} tasks; 2 to 4 can be learned here.", "put an empty line between tasks.")
    experiences = []
    for number, block in enumerate(blocks, start=1):
        template = block.pop(0).lstrip("# ") if block[0].startswith("#") else ARROW.pattern
        try:
            _, rows = pair_rows(tokenizer, template, read_lines("\n".join(block)))
        except (BadData, BadPrompt) as error:
            raise BadData(f"task {number}: {error.problem}", error.remedy) from error
        experiences.append(Experience(f"task {number}", tuple(rows), tuple(rows)))
    return experiences
