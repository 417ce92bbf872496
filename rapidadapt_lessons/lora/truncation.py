"""What a model answers with only the largest directions of an update: what the rank slider of lesson 3 shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..guards import require_one_of
from ..lm.tasks import Example
from ..show.html import columns, table


def rank_view(answers: Mapping[int, Sequence[str]], queries: Sequence[Example], rank: int, most: int = 6) -> str:
    """Show, for one of the ranks, how many of the queries are right beside all other ranks, and the first answers.

    Args:
        answers: for each rank, the model's answers to the queries, in their order.
        most: how many answers to show; those come first that the ranks disagree on.

    Raises CourseError for a rank that has no answers.
    """
    require_one_of(list(answers), "rank", rank)
    tried = sorted(answers.items())
    right = {f"{r}": sum(said == query.y for said, query in zip(texts, queries)) for r, texts in tried}
    title = f"Rank {rank}: {right[f'{rank}']} of {len(queries)} right"
    xlabel = "directions kept of each matrix's update"
    telling = sorted(range(len(queries)), key=lambda i: -len({texts[i] for texts in answers.values()}))[:most]
    shown = [(queries[i].x, answers[rank][i], _verdict(answers[rank][i], queries[i].y)) for i in telling]
    chart = columns(right, len(queries), f"{rank}", title=title, xlabel=xlabel)
    return chart + table(("query", "the model's answer", "right?"), shown)


def _verdict(said: str, correct: str) -> str:
    return "yes" if said == correct else f"no: {correct}"
