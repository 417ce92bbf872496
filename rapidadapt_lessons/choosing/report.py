"""What came out of trying each method, kept in a folder: the adapter, and a report to read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..errors import CourseError
from ..files import whole_file
from ..guards import require_some
from ..lm.tasks import Task
from ..lm.types import Model
from ..lora import layers as lora
from ..lora.files import save_adapter
from ..meta.meta_lora import State
from ..show.intervals import wilson
from .choose import Choice
from .methods import ADAPTER, Trial, fresh_adapter

REPORT = "report.md"


def table_row(trial: Trial) -> dict[str, str]:
    """Return what a table of trials says of one, by the column's heading."""
    low, high = wilson(sum(trial.right), len(trial.right))
    return {
        "method": trial.method,
        "examples": str(trial.examples),
        "right": f"{trial.quality:.2f}",
        "95% interval": f"{low:.2f} to {high:.2f}",
        "seconds to prepare": f"{trial.prepare_seconds:.1f}",
        "s per query": f"{trial.answer_seconds:.3f}",
        "MB beside weights": f"{trial.memory_bytes / 1e6:.0f}",
        "kB stored": f"{trial.stored_bytes / 1e3:,.1f}",
    }


def report_text(task: Task, trials: Sequence[Trial], choice: Choice) -> str:
    """Return what was tried, achieved and chosen, in Markdown. Raises CourseError where there are no trials."""
    require_some(trials, "trials to report", "run methods.try_each_method first.")
    labels = ", ".join(map(_literal, task.labels))
    kind = f"choice between {labels}" if labels else "answers compared letter by letter"
    rows = [table_row(trial) for trial in trials]
    lines = [
        f"# {_literal(task.title)}",
        "",
        f"Source: {_literal(task.source)}. {len(task.support_pool)} examples to learn from, "
        f"{len(trials[0].right)} held-out queries ({kind}).",
        "",
        f"**{choice.reason}**",
        "",
        f"| {' | '.join(rows[0])} |",
        "|---" * len(rows[0]) + "|",
        *(f"| {' | '.join(row.values())} |" for row in rows),
        "",
        "Intervals are Wilson's, over the queries; the draw of the examples is one. The method was chosen by these "
        "very queries, so its share is likely a little too good. The adapter beside this report was trained on the "
        "largest number of examples, asked like this:",
        "",
        *(f"    {line}" for line in task.cue.splitlines()),
        "",
    ]
    return "\n".join(lines)


def _literal(text: str) -> str:
    """Return a reader's text so that Markdown, and HTML within it, shows it letter by letter."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", escape(" ".join(text.split()), quote=False))


def save_results(
    folder: str | Path, model: Model, task: Task, trials: Sequence[Trial], choice: Choice, adapter: State
) -> Path:
    """Write `adapter/`, which `peft` and `lora.load_adapter` read, and the report. Return the folder.

    The model ends without an adapter. Raises CourseError where the folder holds files that are not from here, or
    cannot be written.
    """
    folder = Path(folder)
    text = report_text(task, trials, choice)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / REPORT).is_file())):
        raise CourseError(f"{folder.name} exists and is not a folder of results.", "choose another name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / REPORT) as file:  # gets its name last, when the adapter is there
            file.write(text.encode())
            file.flush()  # without room for it, nothing else is begun
            fresh_adapter(model, adapter)
            save_adapter(model, folder / "adapter", ADAPTER)
    except OSError as error:
        raise CourseError(f"{folder.name} cannot be written ({error.strerror}).", "choose another folder.") from error
    finally:
        lora.remove(model)
    return folder
