"""Every continual method on two streams of digits, or on three text tasks: ACC, BWT, and what it costs.

    python benchmarks/continual.py [SEEDS]          digits, about three minutes a seed
    python benchmarks/continual.py [SEEDS] --text   the language model with LoRA; about five minutes a seed

Prints means over seeds (3 by default) with their standard deviations. Strengths are chosen on validation data, by
each seed for itself on digits, by the first seed for all on text. Time is processor time of the fastest seed, all
in one run, as a multiple of plain fine-tuning's; choosing is not in it. Numbers are those stored besides the
model; peak is the most memory held while learning besides model and examples.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean, stdev

from torch import nn

from rapidadapt_lessons.continual.adapters import Averaged, PerTask
from rapidadapt_lessons.continual.digits import digit_network, permuted_digits, split_digits
from rapidadapt_lessons.continual.distillation import LwF
from rapidadapt_lessons.continual.ewc import EWC
from rapidadapt_lessons.continual.peak_memory import learning_bytes
from rapidadapt_lessons.continual.replay import Kept, Replay, ReservoirBuffer
from rapidadapt_lessons.continual.stream import Joint, Method, Stream, StreamResult, run_stream, validation_stream
from rapidadapt_lessons.training.loop import TrainConfig

DIGITS = TrainConfig(steps=40, batch_size=32, lr=5e-3)
TEXT = TrainConfig(steps=8, batch_size=8, lr=4e-3)
TASKS = ("sentiment", "continents", "language_of_word")

Maker = Callable[[float], Method]
Candidates = Sequence[tuple[Maker, Sequence[float]]]  # a method, and the settings to choose among; one: no choice


class JointAtTheEnd(Joint):
    """Joint training on the last experience alone, for a fraction of the cost; the matrix's rows before it stay low."""

    def learn(self, model: nn.Module, stream: Stream, index: int, config: TrainConfig) -> None:
        if index == len(stream.experiences) - 1:
            super().learn(model, stream, index, config)


class BalancedBuffer(ReservoirBuffer):
    """Equally many of each class, and a uniform sample inside each (Chrysakis and Moens 2020, algorithm 1).

    A full buffer makes room for a class that is still small by dropping one of the largest. A class that has been
    the largest goes on as a reservoir of its own.
    """

    def __init__(self, size: int, seed: int = 0):
        super().__init__(size, seed)
        self.seen_of: dict[int, int] = {}
        self.once_largest: set[int] = set()

    def add(self, item: Kept) -> None:
        label = item.example.label
        self.seen_of[label] = self.seen_of.get(label, 0) + 1
        if len(self.items) < self.size:
            self.items.append(item)
            return
        places: dict[int, list[int]] = {}
        for place, kept in enumerate(self.items):
            places.setdefault(kept.example.label, []).append(place)
        most = max(map(len, places.values()))
        self.once_largest |= {of for of, where in places.items() if len(where) == most}
        if label in self.once_largest:
            own = places.get(label, [])  # none where there are fewer places than classes, and it lost its last
            if (drawn := self.below(self.seen_of[label])) < len(own):
                self.items[own[drawn]] = item
            if own or drawn:
                return
        crowded = [place for where in places.values() if len(where) == most for place in where]
        self.items[crowded[self.below(len(crowded))]] = item


class BalancedReplay(Replay):
    name = "balanced replay"
    buffer_type = BalancedBuffer


def compare(
    candidates: Candidates,
    fresh: Callable[[int], nn.Module],
    streams: Sequence[Stream],
    held_back: Sequence[Stream],
    config: TrainConfig,
    choose_once: bool,
) -> None:
    """Print a line for each method; one stream and one of held-back examples for each seed."""
    print(f"\n{streams[0].name}, {len(streams)} seeds")
    print(f"{'':24}{'ACC':>12}{'BWT':>13}{'time':>7}{'examples':>10}{'numbers':>9}{'peak MB':>9}  chosen")
    plain = 0.0
    for make, settings in candidates:
        chosen: list[float] = []
        runs: list[StreamResult] = []
        for seed, stream in enumerate(streams):

            def run(setting: float, over: Stream, make: Maker = make, seed: int = seed) -> StreamResult:
                return run_stream(make(setting), fresh(seed), over, replace(config, seed=seed))

            if len(settings) == 1 or (choose_once and chosen):
                chosen.append((chosen or list(settings))[0])
            else:
                chosen.append(max(settings, key=lambda setting: run(setting, held_back[seed]).acc))
            runs.append(run(chosen[-1], stream))
        seconds = min(sum(run.seconds) for run in runs)
        plain = plain or seconds
        cells = [f"{mean(v):.2f} ± {stdev(v):.2f}" for v in ([r.acc for r in runs], [r.bwt for r in runs])]
        peak = learning_bytes(make(chosen[0]), fresh(0), streams[0], config) / 1e6
        kept = f"{runs[0].stored_examples:>10}{runs[0].stored_numbers:>9}{peak:>9.2f}"
        choice = "" if len(settings) == 1 else "  " + " ".join(f"{setting:g}" for setting in chosen)
        print(
            f"{make(chosen[0]).name:24}{cells[0]:>12}{cells[1]:>13}{seconds / plain:>6.1f}x{kept}{choice}", flush=True
        )


def digits(seeds: int) -> None:
    candidates: Candidates = [
        (lambda _: Method(), [0]),
        (lambda _: Joint(), [0]),
        (lambda _: Replay(50), [0]),
        (lambda _: BalancedReplay(50), [0]),
        (EWC, [3, 30, 100, 300, 3000]),
        (lambda strength: EWC(strength, online=True), [3, 30, 100, 300, 3000]),
        (LwF, [0.1, 1, 10]),
        (lambda _: PerTask(), [0]),
        (lambda _: PerTask("centroid"), [0]),
        (lambda _: Averaged(), [0]),
    ]
    run_stream(Method(), digit_network(), permuted_digits(), DIGITS)  # warm up
    for make_stream in (permuted_digits, split_digits):
        streams = [make_stream(seed=seed) for seed in range(seeds)]
        compare(candidates, digit_network, streams, [validation_stream(s) for s in streams], DIGITS, choose_once=False)


def text(seeds: int) -> None:
    from rapidadapt_lessons.continual.language import language_stream
    from rapidadapt_lessons.continual.stream import set_trainable_state, trainable_state
    from rapidadapt_lessons.lm.model import load_model
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.data import task_experience

    model, tokenizer = load_model()
    starts = []  # an untrained adapter for each seed
    for seed in range(seeds):
        lora.remove(model)
        lora.inject(model, lora.LoRAConfig(rank=8), seed=seed)
        starts.append(trainable_state(model))

    def fresh(seed: int) -> nn.Module:
        set_trainable_state(model, starts[seed])
        return model

    def tasks(seed: int, train: int) -> Stream:
        options = {"pattern": "{x} -> {y}", "train": train, "test": 20, "seed": seed}
        return language_stream(
            "three text tasks, bare prompts", [task_experience(tokenizer, n, **options) for n in TASKS]
        )

    candidates: Candidates = [
        (lambda _: Method(), [0]),
        (lambda _: JointAtTheEnd(), [0]),
        (lambda _: Replay(24), [0]),
        (lambda strength: EWC(strength, examples=12), [3e3, 3e4, 3e5]),
        (LwF, [0.3, 1]),
        (lambda _: PerTask(), [0]),
        (lambda _: PerTask("centroid"), [0]),
        (lambda _: Averaged(), [0]),
    ]
    streams = [tasks(seed, 40) for seed in range(seeds)]
    held_back = [validation_stream(tasks(seed, 56), 2 / 7) for seed in range(seeds)]
    compare(candidates, fresh, streams, held_back, TEXT, choose_once=True)


if __name__ == "__main__":
    numbers = [argument for argument in sys.argv[1:] if argument != "--text"]
    (text if "--text" in sys.argv else digits)(max(2, int(numbers[0])) if numbers else 3)
