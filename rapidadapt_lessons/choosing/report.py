"""What came out of trying each way, kept in a folder: the adapter, and a report to read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CourseError
from ..lm.tasks import Task
from ..lora import layers as lora
from ..lora.files import save_adapter
from ..show.intervals import wilson
from .choose import Choice
from .methods import ADAPTER, State, Trial, fresh_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REPORT = "report.md"


def report_text(task: Task, trials: Sequence[Trial], choice: Choice) -> str:
    """Return the report in Markdown: what was tried, what it achieved and cost, and what to use.

    Raises:
        CourseError: there are no trials.
    """
    if not trials:
        raise CourseError("there are no trials to report.", "run methods.try_each_method first.")
    labels = ", ".join(map(_literal, task.labels))
    kind = f"choice between {labels}" if labels else "answers compared letter by letter"
    lines = [
        f"# {_literal(task.title)}",
        "",
        f"Source: {_literal(task.source)}. {len(task.support_pool)} examples to learn from, "
        f"{len(trials[0].right)} held-out queries ({kind}).",
        "",
        f"**{choice.reason}**",
        "",
        "| way | examples | right | 95% interval | seconds to prepare | s a query | MB beside weights | kB stored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for t in trials:
        low, high = wilson(sum(t.right), len(t.right))
        lines.append(
            f"| {t.method} | {t.examples} | {t.quality:.2f} | {low:.2f} to {high:.2f} | {t.prepare_seconds:.1f} "
            f"| {t.answer_seconds:.3f} | {t.memory_bytes / 1e6:.0f} | {t.stored_bytes / 1e3:,.1f} |"
        )
    lines += [
        "",
        "Intervals are Wilson's, over the queries; the draw of the examples is one. The way was chosen by these very "
        "queries, so its share is likely a little too good: other queries would tell. The adapter beside this report "
        "was trained on the largest number of examples, asked like this:",
        "",
        *(f"    {line}" for line in task.cue.splitlines()),
        "",
    ]
    return "\n".join(lines)


def _literal(text: str) -> str:
    """Return a reader's text so that Markdown, and HTML within it, shows it letter by letter."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", escape(" ".join(text.split()), quote=False))


def save_results(
    folder: str | Path, model: PreTrainedModel, task: Task, trials: Sequence[Trial], choice: Choice, adapter: State
) -> Path:
    """Write `adapter/`, which `peft` and `adapter_files.load_adapter` read, and the report. Return the folder.

    The model ends without an adapter.

    Raises:
        CourseError: the folder holds files that are not from here, or cannot be written.
    """
    folder = Path(folder)
    work = folder / f".{REPORT}"
    text = report_text(task, trials, choice)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / REPORT).is_file())):
        raise CourseError(f"{folder.name} exists and is not a folder of results.", "choose another name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work.write_text(text, encoding="utf-8")  # first: without room for it, nothing else is begun
        fresh_adapter(model, adapter)
        save_adapter(model, folder / "adapter", ADAPTER)
        os.replace(work, folder / REPORT)
    except OSError as error:
        raise CourseError(f"{folder.name} cannot be written ({error.strerror}).", "choose another folder.") from error
    finally:
        work.unlink(missing_ok=True)
        if lora.lora_layers(model):
            lora.remove(model)
    return folder
