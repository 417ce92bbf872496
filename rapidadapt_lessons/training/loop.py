"""A short training loop: progress bar, evaluation, early stop, gradient accumulation, checkpoint and resume.

Which rows a step sees, and what dropout drops in it, follow from the seed and the step's number alone, so a run that
was killed and resumed ends with the same weights as one that was not (tested).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CourseError, TrainingDiverged
from ..guards import require_at_least, require_some
from ..lm import memory
from .checkpoint import load_checkpoint, save_checkpoint
from .rows import Row, at_once, batches, collate, token_loss
from .team import Team


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Raises CourseError for a value that makes no sense."""

    steps: int  # updates of the weights
    batch_size: int = 8  # rows in one forward pass
    accumulate: int = 1  # forward passes behind an update: 2 gives the gradient of twice the batch, in one's memory
    lr: float = 1e-3  # learning rate of AdamW (Loshchilov and Hutter 2019), after warm-up
    warmup: int = 0  # updates over which the rate rises to lr, linearly
    max_grad_norm: float = 1.0  # a gradient longer than this is cut to it
    eval_every: int = 0  # updates between two evaluations; 0 for none
    patience: int | None = None  # stop after so many evaluations without a better one, and keep the best weights
    maximize: bool = False  # whether a higher evaluation is better (accuracy) or a lower one (perplexity)
    checkpoint_every: int = 10  # updates between two checkpoints, where `train` is given a file for them
    seed: int = 0  # of the order of the rows, and of dropout

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every"):
            require_at_least(1, name, getattr(self, name))
        for name in ("warmup", "eval_every"):
            require_at_least(0, name, getattr(self, name))
        if not self.max_grad_norm > 0:  # it may be infinite
            raise CourseError(f"max_grad_norm is {self.max_grad_norm}.", "give a length above 0; 1 is usual.")
        if not 0 < self.lr <= 1e37:  # AdamW's first step is ten times that, and must still be a 32-bit number
            raise CourseError(f"lr is {self.lr}.", "give a positive number; 1e-3 suits LoRA, 1e-5 a whole model.")
        if self.patience is not None:
            require_at_least(1, "patience", self.patience, "give 1 or more, or None.")
            if self.eval_every < 1:
                raise CourseError(f"patience is {self.patience} with no evaluation.", "set eval_every too.")

    def rate(self, step: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        return self.lr * (step + 1) / self.warmup if step < self.warmup else self.lr


@dataclass
class History:
    """What happened."""

    losses: list[float] = field(default_factory=list)  # per token that counts (nats), before each update
    evaluations: dict[int, float] = field(default_factory=dict)  # updates done -> what `evaluate` returned then
    stopped: str = ""  # why training ended
    best_step: int | None = None  # with patience, the updates behind the weights that the model ended with


def train(
    model: nn.Module,
    rows: Sequence[Row],
    config: TrainConfig,
    *,
    evaluate: Callable[[nn.Module], float] | None = None,
    loss: Callable[[nn.Module, Sequence[Any]], Tensor] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    team: Team | None = None,
) -> History:
    """Train the parameters that require gradients, in place.

    Args:
        rows: what to train on; with a `loss` of your own they can be of any kind.
        evaluate: called with the model in evaluation mode, before the first update and after every `eval_every`-th. It
            must not change the model.
        loss: the mean over some of the rows of a loss of each, a scalar; None for -log P of the tokens that count.
            Parts of an update count by their rows; a mean over their tokens would make it a mean of means.
        checkpoint: a file. Where it holds a run of the same parameters, rows and config, that run goes on.
        team: the processes that share each update's rows (see `scaling`); None for this one alone. All call `train`
            alike and end with the same weights; with dropout, these depend on their number.

    Raises:
        TrainingDiverged: the loss or its gradient became NaN or infinite. The last weights with a finite
            loss are back in the model; `error.history` says how far it got.
        CheckpointMismatch: the file is damaged, or of another run.
        CourseError: there are no rows, or there is nothing to train.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    require_some(rows, "rows to train on")
    if not trained:
        raise CourseError("no parameter of this model requires a gradient.", "inject LoRA first, or unfreeze some.")
    if config.eval_every and evaluate is None:
        raise CourseError(f"eval_every is {config.eval_every} and there is no `evaluate`.", "give one, or set it to 0.")
    run = _Run(model, trained, rows, config, evaluate, loss, team or Team())
    run.team.broadcast(list(trained.values()))
    if checkpoint and (state := run.team.broadcast_object(lambda: load_checkpoint(checkpoint, run.identity))):
        run.load(state)
    was_training = model.training
    try:
        _loop(run, checkpoint if run.team.is_main else None, progress and run.team.is_main)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
        memory.give_back()
    return run.history


def rows_of_step(rows: Sequence[Row], config: TrainConfig, step: int) -> list[Row]:
    """Return the rows that an update sees: every row once, in a random order, then again in another."""
    size = config.batch_size * config.accumulate
    orders: dict[int, list[int]] = {}
    chosen = []
    for place in range(step * size, (step + 1) * size):
        epoch, index = divmod(place, len(rows))
        if epoch not in orders:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
            orders[epoch] = torch.randperm(len(rows), generator=generator).tolist()
        chosen.append(rows[orders[epoch][index]])
    return chosen


class _Run:
    """A run in progress: all that a checkpoint has to hold."""

    def __init__(self, model, trained, rows, config: TrainConfig, evaluate, loss, team: Team):
        self.model, self.trained, self.rows, self.config, self._evaluate = model, trained, rows, config, evaluate
        self._loss, self.team = loss, team
        self.device = next(iter(trained.values())).device
        self.optimizer = torch.optim.AdamW(trained.values(), lr=config.lr, weight_decay=0.0)
        self.history = History()
        self.done = 0
        self.best: dict[str, Tensor] | None = None
        self.good: dict[str, Tensor] | None = None  # the weights behind the last finite loss

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What tells this run from another. It does not change while the run goes on."""
        shapes = {name: tuple(p.shape) for name, p in self.trained.items()}
        what = {"config": asdict(self.config), "number of rows": len(self.rows), "shapes": shapes}
        if all(isinstance(row, Row) for row in self.rows):
            what["rows, as a digest"] = _digest(repr([(row.ids, row.first) for row in self.rows]).encode())
        # A few numbers of each frozen tensor tell one base from another of the same shape.
        frozen = (p.detach().flatten()[:8].float().cpu() for p in self.model.parameters() if not p.requires_grad)
        return what | {"weights of the base, as a digest": _digest(b"".join(p.numpy().tobytes() for p in frozen))}

    def state(self) -> dict[str, Any]:
        found = {"done": self.done, "best": self.best, "history": asdict(self.history)}
        return found | {"weights": self.weights(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.done, self.best, self.history = state["done"], state["best"], History(**state["history"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.put(state["weights"])

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.trained.items()}

    @torch.no_grad()
    def put(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(weights[name])

    def update(self) -> float:
        """Do one update and return the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        self.model.train()
        total = 0.0
        with _dropout_seed(self.config.seed * 1_000_003 + self.done + 999_983 * self.team.rank, self.device):
            for loss in self.losses(rows_of_step(self.rows, self.config, self.done)):
                loss.backward()
                total += loss.item()
        total = self.team.all_reduce_gradients(list(self.trained.values()), total)
        self.require_finite(torch.tensor(total), "loss")  # not before: all must learn of it, and stop together
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.config.max_grad_norm)
        self.require_finite(norm, "gradient")
        self.good = self.weights()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.done)
        self.optimizer.step()
        return total

    def losses(self, chosen: Sequence[Any]) -> Iterator[Tensor]:
        """Yield the loss of each forward pass of this process, weighted so that all add up to the mean of all rows."""
        pieces = list(batches(self.team.share(chosen), self.rows_at_once()))
        if self._loss is not None:
            yield from (self._loss(self.model, piece) * (len(piece) / len(chosen)) for piece in pieces)
            return
        counted = sum(row.counted for row in chosen)  # of all processes' rows, which each can see
        yield from (token_loss(self.model, collate(piece, self.device), "sum") / counted for piece in pieces)

    def rows_at_once(self) -> int:
        """Return the rows of a forward pass: batch_size, or fewer where memory is short, which add up to the same loss.

        Not with a loss of the caller's, whose memory is unknown, nor with dropout, which would drop other numbers.
        """
        drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.model.modules())
        if self._loss is not None or drops:
            return self.config.batch_size
        return at_once(self.model, self.rows, self.config.batch_size, training=True)

    def require_finite(self, value: Tensor, what: str) -> None:
        if torch.isfinite(value):
            return
        if self.good is not None and what == "loss":
            self.put(self.good)
        self.history.stopped = f"the {what} became {value.item()} at update {self.done + 1}"
        error = TrainingDiverged(
            f"{self.history.stopped} (lr {self.config.lr:g}); the model has the last good weights.",
            "lower lr, use warmup, or check the rows and the model's dtype; then train again from here.",
        )
        error.history = self.history
        raise error

    def evaluate(self) -> None:
        self.model.eval()
        value = self.team.broadcast_object(lambda: float(self._evaluate(self.model)))
        past = self.history.evaluations
        better = (max if self.config.maximize else min)([value, *past.values()]) == value and value not in past.values()
        if better and self.config.patience is not None:
            self.best, self.history.best_step = self.weights(), self.done
        past[self.done] = value

    def out_of_patience(self) -> bool:
        best, patience = self.history.best_step, self.config.patience
        return best is not None and sum(done > best for done in self.history.evaluations) >= patience


def _loop(run: _Run, checkpoint: str | Path | None, progress: bool) -> None:
    from tqdm.auto import tqdm

    config, history = run.config, run.history
    if run.done == 0 and config.eval_every:
        run.evaluate()
    with tqdm(total=config.steps, initial=run.done, desc="training", disable=not progress, leave=False) as bar:
        while not history.stopped:
            history.losses.append(run.update())
            run.done += 1
            bar.update()
            bar.set_postfix(loss=f"{history.losses[-1]:.3f}", refresh=False)
            if config.eval_every and run.done % config.eval_every == 0:
                run.evaluate()
            if run.out_of_patience():
                history.stopped = f"no better evaluation since update {history.best_step}"
            elif run.done == config.steps:
                history.stopped = f"all {config.steps} updates done"
            if history.stopped and run.best is not None:
                run.put(run.best)
            if checkpoint and (history.stopped or run.done % config.checkpoint_every == 0):
                save_checkpoint(checkpoint, run.identity, run.state())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


@contextmanager
def _dropout_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed dropout inside the block, and leave the reader's own random numbers alone."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Not torch.manual_seed: that formats a stack trace for each absent kind of device, at every step.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
