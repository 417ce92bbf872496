"""Tuning by hand: one short training run at a time, judged by what it learned and by what it harmed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..errors import TrainingDiverged
from ..guards import require_one_of
from ..show.html import table
from ..show.trade_off import attempts, compact
from ..training.loop import TrainConfig, train
from ..training.rows import Row, exact_rows, perplexity
from . import layers as lora

ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
LAYERS = {"all linear": ATTENTION + FEED_FORWARD, "attention": ATTENTION, "feed-forward": FEED_FORWARD}
ALPHA = 16  # fixed, so that a higher rank is not a larger step as well
IN_TABLE = 6  # runs, the newest ones


@dataclass(frozen=True)
class Attempt:
    """What a run gained and harmed.

    `stopped` says why it ended before its time, or is empty. After that loss and perplexity are infinite.
    """

    trained: int  # numbers
    loss: float  # nats per token of the answers to new words
    right: int  # of the new words, by exact match
    elsewhere: float  # perplexity on other text
    stopped: str = ""


def attempt(
    model: nn.Module,
    rows: Sequence[Row],
    queries: Sequence[Row],
    elsewhere: Sequence[Row],
    rank: int,
    lr: float,
    layers: str,
    updates: int = 10,
) -> Attempt:
    """Train a fresh adapter on rows, 8 per update, measure it, and take it out again: the same each time.

    `layers` is a name from `LAYERS`. Raises as `lora.inject` and `TrainConfig`, and CourseError for unknown layers; the
    model is the base model again in any case.
    """
    require_one_of(LAYERS, "layers", layers)
    config = TrainConfig(updates, lr=lr)
    lora.inject(model, lora.LoRAConfig(rank, ALPHA, target_modules=LAYERS[layers]))
    try:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        train(model, rows, config, progress=False)
        return measured(model, queries, elsewhere, trained)
    except TrainingDiverged as error:
        return Attempt(trained, math.inf, 0, math.inf, error.history.stopped)
    finally:
        lora.remove(model)


def measured(model: nn.Module, queries: Sequence[Row], elsewhere: Sequence[Row], trained: int = 0) -> Attempt:
    """Return what the model as it is does on new words and elsewhere. Neither is changed."""
    loss = math.log(perplexity(model, queries))
    return Attempt(trained, loss, sum(exact_rows(model, queries)), perplexity(model, elsewhere))


def tuning_view(
    model: nn.Module,
    rows: Sequence[Row],
    queries: Sequence[Row],
    elsewhere: Sequence[Row],
    rank: int,
    lr: float,
    layers: str = "all linear",
    *,
    kept: dict,
    updates: int = 10,
) -> str:
    """Show a run among those before it: the loss on new words against the perplexity elsewhere, and a table.

    Runs are put into `kept`, an empty dictionary at first, which the caller passes every time; the same settings again
    give the run that is there. Raises as `attempt`.
    """
    if None not in kept:
        kept[None] = measured(model, queries, elsewhere)
    base, key = kept[None], (rank, lr, layers)
    kept[key] = kept.pop(key, None) or attempt(model, rows, queries, elsewhere, rank, lr, layers, updates)
    runs = {key: run for key, run in kept.items() if key}
    newest = kept[key]
    harm = f"perplexity elsewhere {_ppl(base)} → {_ppl(newest)}"
    if newest.stopped:
        title = "Too high a rate: training diverged"
    elif newest.loss > base.loss:
        title = f"Too high a rate: nothing learned, {harm}"
    else:
        title = f"Loss {base.loss:.2f} → {newest.loss:.2f}, {harm}"
    picture = attempts(
        {_name(*key): (run.elsewhere, run.loss) for key, run in runs.items()},
        (base.elsewhere, base.loss),
        title=title,
        xlabel="perplexity elsewhere (log scale)",
        ylabel="loss per token on new words (nats, log scale)",
        most=4 * base.elsewhere,
    )
    head = ("rank", "rate", "layers", "trained numbers", "loss", f"right of {len(queries)}", "perplexity elsewhere")
    lines = [(f"{rank}", compact(lr), layers, *_in_table(run)) for (rank, lr, layers), run in reversed(runs.items())]
    before = ("", "", "base model", *_in_table(base))
    return picture.html() + table(head, [*lines[:IN_TABLE], before])


def _name(rank: int, lr: float, layers: str) -> str:
    return f"r {rank}, {compact(lr)}" + ("" if layers == "all linear" else f", {layers}")


def _in_table(run: Attempt) -> tuple[str, ...]:
    found = (run.stopped, "", "") if run.stopped else (f"{run.loss:.2f}", f"{run.right}", _ppl(run))
    return (f"{run.trained:,}", *found)


def _ppl(run: Attempt) -> str:
    return f"{run.elsewhere:,.1f}" if run.elsewhere < 1e6 else "over a million"
