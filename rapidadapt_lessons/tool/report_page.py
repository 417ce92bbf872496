"""The report of `adapt` as one page: tables and figures in a single HTML file that asks nobody for anything.

Everything that comes from the reader's file or from the model is escaped, and the page forbids itself scripts and
whatever lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..choosing.methods import METHODS, Trial
from ..show.intervals import wilson
from ..show.plots import COLOURS
from .outcome import Outcome, versions

MOST_MISTAKES = 30
_COLOUR = {method: COLOURS[i] for i, method in enumerate(METHODS)}

_STYLE = """
:root { --ink: #1c2330; --soft: #5b6575; --line: #dfe3ea; --paper: #ffffff; --back: #f5f6f9; --mark: #eaf2fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf0; --soft: #a4adbb; --line: #38404d; --paper: #1d222b; --back: #14181f; --mark: #22303f; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .8rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.4rem;
  margin-top: 1.1rem; }
.soft { color: var(--soft); } p { margin: .4rem 0; } .small { font-size: .88rem; }
.big { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem 1rem; }
.big b { font-size: 2.6rem; line-height: 1.1; font-weight: 650; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); } td.n, th.n { text-align: right; }
tr.chosen td { background: var(--mark); font-weight: 600; }
td:first-child { white-space: nowrap; }
td.text, td.text:first-child { overflow-wrap: anywhere; white-space: pre-wrap; }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem; margin: .5rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .88rem; max-height: 22rem; overflow-y: auto; }
svg { width: 100%; min-width: 540px; height: auto; display: block; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .soft { fill: var(--soft); } svg .axis { stroke: var(--line); } svg .ink { stroke: var(--ink); }
"""


def page(outcome: Outcome) -> str:
    """Return the whole page."""
    title = escape(f"{outcome.task.title}: adapted by {outcome.how.method}")
    parts = [
        _result(outcome),
        _section("Accuracy by method", _accuracy(outcome) + _table(outcome)),
        _curves(outcome.trials),
        _section("Mistakes on the test split", _mistakes(outcome)),
        _section("How a query is asked", _prompt(outcome)),
        _section("Data and run", _run(outcome)),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<style>{_STYLE}</style></head>\n<body><main>\n<h1>{escape(outcome.task.title)}</h1>\n"
        f'<p class="soft">From {escape(outcome.reading.file.name)}: what was tried and chosen, and how good it is.</p>'
        f"\n{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>\n" if body else ""


def _result(outcome: Outcome) -> str:
    low, high = outcome.interval
    n = len(outcome.test)
    few = (
        f'<p class="soft small">With {n} test queries one query is {1 / n:.0%}: a difference of a query or two may '
        "be chance.</p>"
        if n < 50
        else ""
    )
    return _section(
        "Result",
        f'<p class="big"><b>{outcome.right / n:.0%}</b><span>{escape(outcome.how.method)}: {outcome.right} of {n} test '
        f"queries right, 95% interval {low:.0%} to {high:.0%}</span></p>\n"
        f"<p>{escape(outcome.choice.reason)} (Of the validation split, by which the choice was made; the test split "
        f"was seen by no choice, and is asked once.)</p>{few}",
    )


def _accuracy(outcome: Outcome) -> str:
    """Draw each way's accuracy with its interval, and below the line the chosen one's on the test split."""
    rows = [(t.method, sum(t.right), len(t.right), _COLOUR[t.method]) for t in outcome.trials]
    rows.append((f"test: {outcome.how.method}", outcome.right, len(outcome.test), _COLOUR[outcome.how.method]))
    left, right, top, step = 210, 720, 26, 32
    width, height = 800, top + step * len(rows) + 30
    x = lambda share: left + share * (right - left)  # noqa: E731
    marks, told = [], []
    for share in (0, 0.25, 0.5, 0.75, 1):
        marks.append(f'<line class="axis" x1="{x(share):.0f}" x2="{x(share):.0f}" y1="{top - 12}" y2="{height - 34}"/>')
        marks.append(f'<text class="soft" x="{x(share):.0f}" y="{height - 14}" text-anchor="middle">{share:.0%}</text>')
    for i, (name, hits, of, colour) in enumerate(rows):
        low, high = wilson(hits, of)
        y = top + step * i + (6 if i == len(rows) - 1 else 0)
        if i == len(rows) - 1:
            marks.append(f'<line class="axis" x1="10" x2="{width - 10}" y1="{y - 17}" y2="{y - 17}"/>')
        shape = (
            f'<rect x="{x(hits / of) - 6:.1f}" y="{y - 6}" width="12" height="12" fill="{colour}"/>'
            if i == len(rows) - 1
            else f'<circle cx="{x(hits / of):.1f}" cy="{y}" r="6" fill="{colour}"/>'
        )
        marks.append(
            f'<text x="{left - 14}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3" '
            f'stroke-linecap="round"/>{shape}<text x="{right + 14}" y="{y + 4}">{hits / of:.0%}</text>'
        )
        told.append(f"{name} {hits / of:.0%}, interval {low:.0%} to {high:.0%}")
    alt = escape("Accuracy on the validation split, and of the chosen way on the test split. " + "; ".join(told), True)
    note = (
        '<p class="soft small">Circles: share of the validation queries answered right. Square: the chosen way on the '
        "test queries. Lines: 95% intervals (Wilson).</p>"
    )
    return _figure(width, height, alt, marks) + note


def _table(outcome: Outcome) -> str:
    head = ("way", "examples", "updates", "validation", "95% interval", "s to prepare", "ms a query", "MB*", "kB kept")
    rows = [f"<tr>{''.join(f'<th{_n(i)}>{escape(name)}</th>' for i, name in enumerate(head))}</tr>"]
    for t in outcome.trials:
        low, high = wilson(sum(t.right), len(t.right))
        steps = str(len(t.history.losses)) if t.history else ""
        cells = [
            t.method, str(t.examples), steps, f"{sum(t.right)} of {len(t.right)}", f"{low:.0%} to {high:.0%}",
            f"{t.prepare_seconds:.1f}", f"{t.answer_seconds * 1e3:.0f}", f"{t.memory_bytes / 1e6:.0f}",
            f"{t.stored_bytes / 1e3:,.1f}",
        ]  # fmt: skip
        chosen = ' class="chosen"' if t.method == outcome.how.method else ""
        rows.append(f"<tr{chosen}>{''.join(f'<td{_n(i)}>{escape(cell)}</td>' for i, cell in enumerate(cells))}</tr>")
    notes = [f"{method}: {why}" for method, why in (outcome.plan.left_out | outcome.failed).items()]
    left_out = f'<p class="soft small">Not tried, or broken off: {escape("; ".join(notes))}.</p>' if notes else ""
    resumed = " The run was interrupted and went on: seconds are those of its last part." if outcome.resumed else ""
    return (
        f'<div class="scroll"><table>{"".join(rows)}</table></div>'
        '<p class="soft small">* Memory beside the weights of the model: the keys and values of a prompt, or all that '
        f"a training step needs. Seconds are this machine's; a training's count its evaluations.{resumed}</p>"
        f"{left_out}"
    )


def _n(i: int) -> str:
    return ' class="n"' if i else ""


def _curves(trials: Sequence[Trial]) -> str:
    """Draw, for each trained way, the loss and the validation accuracy along the updates."""
    trained = [t for t in trials if t.history and t.history.losses]
    if not trained:
        return ""
    # What was chosen by is the last point: the evaluation at the very end, if there was one, is the same.
    accuracy = {t.method: [*({**t.history.evaluations, len(t.history.losses): t.quality}).items()] for t in trained}
    loss = {t.method: list(enumerate(t.history.losses)) for t in trained}
    top, most = max(max(t.history.losses) for t in trained), max(len(t.history.losses) for t in trained)
    both = _lines("share of validation queries right", accuracy, most, 1.0, "{:.0%}")
    both += _lines("training loss (nats a token)", loss, most, top, "{:.1f}")
    keys = " &nbsp; ".join(
        f'<span style="color:{_COLOUR[t.method]}" aria-hidden="true">&#9632;</span> {escape(t.method)}' for t in trained
    )
    return _section("Learning curve", f'<p class="small">{keys}</p>{both}')


def _lines(label: str, series: dict[str, list[tuple[int, float]]], most: int, top: float, form: str) -> str:
    left, right, head, foot, width, height = 60, 770, 30, 170, 800, 210
    x = lambda step: left + step / most * (right - left)  # noqa: E731
    y = lambda value: foot - value / (top or 1) * (foot - head)  # noqa: E731
    marks = [f'<text class="soft" x="{left}" y="16">{escape(label)}</text>']
    for value in (0.0, top / 2, top):
        marks.append(
            f'<line class="axis" x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/><text class="soft" '
            f'x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{form.format(value)}</text>'
        )
    for step in sorted({0, most // 2, most}):
        marks.append(f'<text class="soft" x="{x(step):.1f}" y="{foot + 20}" text-anchor="middle">{step}</text>')
    marks.append(f'<text class="soft" x="{right}" y="{foot + 36}" text-anchor="end">updates</text>')
    told = []
    for method, points in series.items():
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{_COLOUR[method]}" stroke-width="2.5"/>')
        if len(points) <= 12:
            dots = ((x(step), y(value)) for step, value in points)
            marks += [f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{_COLOUR[method]}"/>' for cx, cy in dots]
        told.append(f"{method} from {form.format(points[0][1])} to {form.format(points[-1][1])}")
    alt = escape(f"Line chart: {label} by updates. {'; '.join(told)}.", True)
    return _figure(width, height, alt, marks)


def _figure(width: int, height: int, alt: str, marks: Sequence[str]) -> str:
    shapes = "".join(marks)
    svg = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{alt}">{shapes}</svg>'
    return f'<div class="scroll">{svg}</div>'


def _mistakes(outcome: Outcome) -> str:
    wrong = outcome.mistakes
    if not wrong:
        return f"<p>None: all {len(outcome.test)} test queries were answered right.</p>"
    rows = ['<tr><th>input</th><th>right answer</th><th>answered</th><th class="n">probability</th></tr>']
    for example, answer in wrong[:MOST_MISTAKES]:
        cells = "".join(f'<td class="text">{escape(text)}</td>' for text in (example.x, example.y, answer.text))
        rows.append(f'<tr>{cells}<td class="n">{answer.probability:.2f}</td></tr>')
    more = f"<p>And {len(wrong) - MOST_MISTAKES} more, in results.json.</p>" if len(wrong) > MOST_MISTAKES else ""
    return (
        f'<p class="small">{len(wrong)} of {len(outcome.test)}, the surest first.</p>'
        f'<div class="scroll"><table>{"".join(rows)}</table></div>{more}'
    )


def _prompt(outcome: Outcome) -> str:
    how = outcome.how
    kind = (
        f"The answer is the likeliest of {len(how.labels)} labels"
        + (", after what the prompt alone suggests was divided out." if how.prior else ".")
        if how.labels
        else f"The answer is written out, up to {how.max_new_tokens} tokens, and must match letter by letter."
    )
    adapter = f" The adapter in adapter/ was trained as {outcome.adapter_way}" if outcome.adapter_method else ""
    if adapter:
        adapter += " and is used." if how.adapter else "; the chosen way does not use it."
    return f"<p>{escape(kind + adapter)}</p><pre>{escape(how.prompt('{input}').text)}</pre>"


def _run(outcome: Outcome) -> str:
    told = "".join(f"<li>{escape(line)}</li>" for line in outcome.reading.told())
    task, plan = outcome.task, outcome.plan
    split = (
        f"Split at random (seed {plan.seed}): {len(task.support_pool)} pairs to learn from, {len(task.query_set)} to "
        f"choose by, {len(outcome.test)} to report on."
    )
    planned = "; ".join(p.told() for p in plan.methods)
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    return (
        f'<ul class="small">{told}<li>{escape(split)}</li>'
        f"<li>Plan for {plan.budget:g} s, method {escape(plan.method)}: {escape(planned)}.</li>"
        f"<li>Took {outcome.seconds:.0f} s. {escape(outcome.how.model)}; {escape(used)}.</li></ul>"
    )
