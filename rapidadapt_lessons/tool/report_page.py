"""The report of `adapt` as one HTML file, which forbids itself scripts and whatever lies elsewhere.

Everything that comes from the reader's file or from the model is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..choosing.methods import Trial
from ..choosing.report import table_row
from ..show.html import table, text_block
from ..show.intervals import wilson
from ..show.looks import COLOURS
from ..show.plots import SHARES, Picture, canvas, lines
from .outcome import Outcome, versions

MOST_MISTAKES = 30

_STYLE = """
:root { --ink: #1c2330; --soft: #5b6575; --line: #dfe3ea; --paper: #ffffff; --back: #f5f6f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf0; --soft: #a4adbb; --line: #38404d; --paper: #1d222b; --back: #14181f; }
}
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .8rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.4rem;
  margin-top: 1.1rem; overflow-x: auto; }
.soft { color: var(--soft); font-size: .88rem; } p { margin: .4rem 0; } .big { font-size: 2.6rem; line-height: 1.1; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { overflow-wrap: normal; }
pre { max-height: 22rem; overflow-y: auto; overflow-wrap: anywhere; }
"""


def page(outcome: Outcome) -> str:
    """Return the whole page."""
    title = escape(f"{outcome.task.title}: adapted by {outcome.how.method}")
    sections = {
        "Result": _result(outcome),
        "Accuracy by method": accuracy_picture(outcome).html() + _trials(outcome),
        "Learning curve": "".join(picture.html() for picture in learning_pictures(outcome.trials)),
        "Mistakes on the test split": _mistakes(outcome),
        "How a query is asked": _prompt(outcome),
        "Data and run": _run(outcome),
    }
    body = "".join(f"<section><h2>{name}</h2>\n{part}\n</section>\n" for name, part in sections.items() if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<style>{_STYLE}</style></head>\n<body><main>\n<h1>{escape(outcome.task.title)}</h1>\n"
        f'<p class="soft">From {escape(outcome.reading.file.name)}: what was tried and chosen, and how good it is.</p>'
        f"\n{body}</main></body></html>\n"
    )


def _result(outcome: Outcome) -> str:
    low, high = outcome.interval
    n = len(outcome.test)
    few = f" With {n} test queries one query is {1 / n:.0%}: a difference of a query or two may be chance."
    return (
        f'<p><b class="big">{outcome.right / n:.0%}</b> {escape(outcome.how.method)}: {outcome.right} of {n} test '
        f"queries right, 95% interval {low:.0%} to {high:.0%}</p>\n<p>{escape(outcome.choice.reason)} (On the "
        f"validation split. The test split was used once, after the choice.)</p>"
        f'<p class="soft">{few if n < 50 else ""}</p>'
    )


def accuracy_picture(outcome: Outcome) -> Picture:
    """Draw each method's accuracy on the validation split, and below it that of the chosen one on the test split."""
    chosen = outcome.how.method
    rows = [(t.method, sum(t.right), len(t.right), COLOURS[t.method == chosen]) for t in outcome.trials]
    rows.append((f"test: {chosen}", outcome.right, len(outcome.test), COLOURS[1]))
    figure, axes = canvas(8, 1.1 + 0.35 * len(rows))
    described = []
    for y, (name, right, of, colour) in enumerate(rows):
        share, (low, high) = right / of, wilson(right, of)
        axes.errorbar(share, y, xerr=[[share - low], [high - share]], color=colour, marker="o", capsize=3, lw=2)
        axes.text(1.04, y, f"{share:.0%}", va="center")
        described.append(f"{name} {share:.0%}, interval {low:.0%} to {high:.0%}")
    axes.axhline(len(rows) - 1.5, color="#BFBFBF", lw=1)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set(xlim=SHARES, xlabel="share of queries right, with its 95% interval (Wilson)")
    axes.set_title(f"{chosen} was chosen by the validation split", loc="left")
    return Picture(figure, f"Accuracy on the validation split, and on the test split. {'; '.join(described)}.")


def learning_pictures(trials: Sequence[Trial]) -> list[Picture]:
    """Draw validation accuracy and training loss by updates, for the methods that train: two pictures, or none."""
    losses = {t.method: dict(enumerate(t.history.losses)) for t in trials if t.history and t.history.losses}
    if not losses:
        return []
    # A method is judged by its last point: the evaluation at the very end, if there was one, is the same.
    accuracy = {
        t.method: t.history.evaluations | {len(losses[t.method]): t.quality} for t in trials if t.method in losses
    }
    ends = "; ".join(f"{method} from {found[0]:.2f} to {found[len(found) - 1]:.2f}" for method, found in losses.items())
    right = lines(
        accuracy, title="Accuracy while training", xlabel="updates", ylabel="share of validation queries right"
    )
    right.figure.axes[0].set_ylim(*SHARES)
    loss = lines(
        losses, title="Loss while training", xlabel="updates", ylabel="loss per token (nats)", points=False,
        alt=f"Line chart. Training loss by updates: {ends}.",
    )  # fmt: skip
    return [right, loss]


def _trials(outcome: Outcome) -> str:
    rows = [table_row(trial) for trial in outcome.trials]
    for row in rows:
        row["method"] += " (chosen)" * (row["method"] == outcome.how.method)
    notes = [f"{method}: {why}" for method, why in (outcome.plan.left_out | outcome.failed).items()]
    left_out = f" Not tried, or broken off: {escape('; '.join(notes))}." if notes else ""
    return (
        f"{table(list(rows[0]), [list(row.values()) for row in rows])}"
        f'<p class="soft">Right: the share of {len(outcome.task.query_set)} validation queries. Memory: what is needed '
        "beside the weights of the model, for the keys and values of a prompt or for a training step. Seconds are this "
        f"machine's; those of a training include its evaluations.{left_out}</p>"
    )


def _mistakes(outcome: Outcome) -> str:
    wrong = outcome.mistakes
    if not wrong:
        return f"<p>None: all {len(outcome.test)} test queries were answered right.</p>"
    head = ("input", "right answer", "answered", "probability")
    rows = [(e.x, e.y, answer.text, f"{answer.probability:.2f}") for e, answer in wrong[:MOST_MISTAKES]]
    more = f"<p>And {len(wrong) - MOST_MISTAKES} more, in results.json.</p>" if len(wrong) > MOST_MISTAKES else ""
    return f'<p class="soft">{len(wrong)} of {len(outcome.test)}, the surest first.</p>{table(head, rows)}{more}'


def _prompt(outcome: Outcome) -> str:
    how = outcome.how
    if how.labels:
        kind = f"The answer is the likeliest of {len(how.labels)} labels"
        kind += ", after what the prompt alone suggests was divided out." if how.prior else "."
    else:
        kind = f"The answer is written out, up to {how.max_new_tokens} tokens, and must match letter by letter."
    if outcome.adapter_method:
        kind += f" The adapter in adapter/ was trained as {outcome.adapter_method}"
        kind += " and is used." if how.adapter else "; the chosen method does not use it."
    return f"<p>{escape(kind)}</p>{text_block(how.prompt('{input}').text)}"


def _run(outcome: Outcome) -> str:
    task, plan = outcome.task, outcome.plan
    items = [
        *outcome.reading.summary(),
        f"Split at random (seed {plan.seed}): {len(task.support_pool)} pairs to learn from, {len(task.query_set)} to "
        f"choose by, {len(outcome.test)} to report on.",
        f"Plan for {plan.budget:g} s, method {plan.method}: {'; '.join(p.sentence() for p in plan.methods)}.",
        f"Took {outcome.seconds:.0f} s. {outcome.how.model}; "
        f"{', '.join(f'{name} {version}' for name, version in versions().items())}.",
    ]
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
