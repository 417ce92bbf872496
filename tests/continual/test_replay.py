"""Buffers: uniform where they say uniform, balanced where they say balanced, and never above their size."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

from rapidadapt_lessons.continual.digits import Digit, digit_network, permuted_digits, split_digits
from rapidadapt_lessons.continual.replay import Kept, Replay, ReservoirBuffer
from rapidadapt_lessons.continual.stream import run_stream
from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.training.loop import TrainConfig

# The benchmark's own, which it compares with the plain reservoir.
BalancedBuffer = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "continual.py"))[
    "BalancedBuffer"
]
BUFFERS = [ReservoirBuffer, BalancedBuffer]
P_LEAST = 1e-3  # seeds are fixed, so a test either always passes or always fails


def item(place: int, label: int = 0) -> Kept:
    return Kept(0, place, Digit((float(place),), label))


def inclusions(make, size: int, groups: list[int], repeats: int) -> Counter:
    """Count over many seeds which places of a stream ended in the buffer."""
    found: Counter = Counter()
    for seed in range(repeats):
        buffer = make(size, seed)
        for place, group in enumerate(groups):
            buffer.add(item(place, group))
        found.update(kept.place for kept in buffer.items)
    return found


def p_uniform(counts: list[int]) -> float:
    """Return the p-value of Pearson's chi-square test for equal probabilities.

    Draws without replacement vary less than independent ones, so for a right buffer p is rather high.
    """
    return float(chisquare(counts).pvalue)


class LateIsLikely(ReservoirBuffer):
    """The usual mistake: the chance of a place does not fall as more is seen."""

    def add(self, item):
        self.seen += 1
        if len(self.items) < self.size:
            self.items.append(item)
        else:
            self.items[self.below(self.size)] = item


class OffByOne(ReservoirBuffer):
    """A quieter mistake: drawing below seen - 1 keeps late items a little too often."""

    def below(self, bound):
        return super().below(bound - 1)


def test_a_reservoir_keeps_every_item_with_the_same_probability():
    counts = inclusions(ReservoirBuffer, 5, [0] * 20, 2000)
    assert sum(counts.values()) == 2000 * 5
    assert p_uniform([counts[place] for place in range(20)]) > P_LEAST


@pytest.mark.parametrize("biased", [LateIsLikely, OffByOne])
def test_the_same_check_catches_a_biased_reservoir(biased):
    counts = inclusions(biased, 5, [0] * 20, 2000)
    assert p_uniform([counts[place] for place in range(20)]) < P_LEAST


def test_a_balanced_buffer_keeps_as_many_of_a_rare_group():
    buffer = BalancedBuffer(12)
    for place in range(1000):
        buffer.add(item(place, 0 if place % 50 else 1 + place % 3))
    sizes = Counter(kept.example.label for kept in buffer.items)
    assert len(buffer) == 12 and sizes == {0: 3, 1: 3, 2: 3, 3: 3}
    plain = ReservoirBuffer(12)
    for place in range(1000):
        plain.add(item(place, 0 if place % 50 else 1 + place % 3))
    assert Counter(kept.example.label for kept in plain.items)[0] >= 10, (
        "a uniform sample is mostly of the common group"
    )


def test_a_balanced_buffer_makes_room_for_groups_that_come_late():
    """Experiences come one after another, not mixed."""
    buffer = BalancedBuffer(10)
    for group, count in enumerate([300, 20, 500, 40, 100]):
        for place in range(count):
            buffer.add(item(1000 * group + place, group))
    assert Counter(kept.example.label for kept in buffer.items) == dict.fromkeys(range(5), 2)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_balanced_buffer_with_fewer_places_than_groups_stays_full_and_shuts_no_group_out(size):
    held = Counter()
    for seed in range(300):
        buffer = BalancedBuffer(size, seed)
        for place in range(60):
            buffer.add(item(place, place % 6))
        assert len(buffer) == size
        held.update(kept.example.label for kept in buffer.items)
    assert len(held) == 6 and max(held.values()) < 2 * min(held.values())


def test_inside_each_group_a_balanced_buffer_is_a_uniform_sample():
    groups = [0] * 16 + [1] * 12 + [2] * 8
    counts = inclusions(BalancedBuffer, 6, groups, 3000)
    for group in range(3):
        places = [place for place, of in enumerate(groups) if of == group]
        assert p_uniform([counts[place] for place in places]) > P_LEAST, f"group {group}"


class NewestOfItsGroup(BalancedBuffer):
    """A biased variant: a full group always takes the newcomer in."""

    def below(self, bound):
        own = self.seen_of[self.items and max(self.seen_of)]
        return super().below(min(bound, 2)) if bound == own else super().below(bound)


def test_the_same_check_catches_a_biased_balanced_buffer():
    groups = [0] * 16 + [1] * 12 + [2] * 8
    counts = inclusions(NewestOfItsGroup, 6, groups, 3000)
    places = [place for place, of in enumerate(groups) if of == 2]
    assert p_uniform([counts[place] for place in places]) < P_LEAST


@pytest.mark.parametrize("make", BUFFERS)
def test_a_buffer_never_holds_more_than_its_size_and_all_of_a_short_stream(make):
    buffer = make(7)
    for place in range(500):
        buffer.add(item(place, place % 3))
        assert len(buffer) == min(place + 1, 7)
    short = make(7)
    for place in range(4):
        short.add(item(place))
    assert sorted(kept.place for kept in short.items) == [0, 1, 2, 3]


@pytest.mark.parametrize("make", [*BUFFERS, Replay])
@pytest.mark.parametrize("size", [0, -3])
def test_a_buffer_of_size_zero_is_refused(make, size):
    with pytest.raises(CourseError, match=f"the size of the replay buffer is {size}"):
        make(size)


@pytest.mark.parametrize("make", BUFFERS)
def test_a_sample_has_different_examples_and_an_empty_buffer_says_so(make):
    buffer = make(7)
    with pytest.raises(CourseError, match="no examples in the replay buffer"):
        buffer.sample(1)
    for place in range(50):
        buffer.add(item(place))
    drawn = buffer.sample(7)
    assert len(set(drawn)) == 7 and drawn != buffer.sample(7)
    assert len(buffer.sample(100)) == 7


def test_samples_are_uniform_over_the_buffer():
    buffer = ReservoirBuffer(8)
    for place in range(8):
        buffer.add(item(place))
    counts = Counter(example for _ in range(2000) for example in buffer.sample(2))
    assert p_uniform(list(counts.values())) > P_LEAST and len(counts) == 8


def test_a_saved_buffer_goes_on_as_if_nothing_had_happened():
    stream = split_digits()
    method = Replay(20)
    run_stream(method, digit_network(), stream, TrainConfig(steps=1))
    other = Replay(20)
    other.load(method.state(), stream)
    assert other.buffer.items == method.buffer.items
    for buffer in (method.buffer, other.buffer):
        for place in range(200):
            buffer.add(item(place, 3))
    assert other.buffer.items == method.buffer.items and other.buffer.sample(9) == method.buffer.sample(9)


def test_the_saved_state_holds_no_example():
    method = Replay(20)
    run_stream(method, digit_network(), split_digits(), TrainConfig(steps=1))
    assert "pixels" not in repr(method.state()) and len(method.state()["kept"]) == 20
    assert all(isinstance(number, int) for kept in method.state()["kept"] for number in kept)


def test_replay_is_of_earlier_parts_only_and_weighs_as_much_as_the_new():
    stream, batches = permuted_digits(3), []
    own = {id(digit): index for index, experience in enumerate(stream.experiences) for digit in experience.train}

    class Spy(type(stream.scenario)):
        def loss(self, model, examples, reduction="mean"):
            loss = super().loss(model, examples, reduction)
            batches.append((examples, loss))
            return loss

    object.__setattr__(stream, "scenario", Spy())
    run_stream(Replay(200), digit_network(), stream, TrainConfig(steps=4, batch_size=16))
    origins = [{own[id(digit)] for digit in examples} for examples, _ in batches]
    assert origins[:4] == [{0}] * 4, "nothing to replay yet"
    assert origins[4:12:2] == [{1}] * 4 and origins[5:12:2] == [{0}] * 4
    assert origins[12::2] == [{2}] * 4 and all(drawn <= {0, 1} for drawn in origins[13::2])
    assert all(len(examples) == 16 for examples, _ in batches)


def test_the_loss_of_a_step_is_the_mean_over_new_and_old(monkeypatch):
    from rapidadapt_lessons.continual import replay

    stream, found = permuted_digits(2), []

    def spy(model, scenario, examples, config, loss=None):
        buffer_before = method.buffer.generator.get_state()
        new = list(examples[:8])
        if len(method.buffer):
            found_loss = loss(model, new)
            method.buffer.generator.set_state(buffer_before)
            old = method.buffer.sample(8)
            found.append((found_loss, scenario.loss(model, [*new, *old])))
        return []

    monkeypatch.setattr(replay, "fit", spy)
    method = Replay(30)
    run_stream(method, digit_network(), stream, TrainConfig(steps=1))
    [(found_loss, true)] = found
    assert torch.allclose(found_loss, true)
