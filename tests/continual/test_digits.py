"""Streams of digits: the right classes in the right experience, and no image on both sides."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rapidadapt_lessons.continual.digits import (
    SCENARIOS,
    DigitScenario,
    digit_network,
    permutation,
    permute,
    permuted_digits,
    split_digits,
)
from rapidadapt_lessons.errors import CourseError


@pytest.mark.parametrize("stream", [*map(split_digits, SCENARIOS), permuted_digits(3)], ids=lambda s: s.name)
def test_no_image_is_both_learned_and_tested(stream):
    for experience in stream.experiences:
        train, test = {digit.pixels for digit in experience.train}, {digit.pixels for digit in experience.test}
        assert train and test and not train & test


def test_split_digits_have_two_classes_each_and_all_images_once():
    stream = split_digits()
    classes = [
        [stream.scenario.classes(side) for side in (experience.train, experience.test)]
        for experience in stream.experiences
    ]
    assert classes == [[{i, i + 1}] * 2 for i in range(0, 10, 2)]
    assert sum(len(experience.train) + len(experience.test) for experience in stream.experiences) == 1797


def test_every_experience_of_permuted_digits_has_all_classes_and_an_order_of_its_own():
    stream = permuted_digits(3)
    assert all(stream.scenario.classes(experience.test) == frozenset(range(10)) for experience in stream.experiences)
    first = [experience.train[0] for experience in stream.experiences]
    assert len({digit.pixels for digit in first}) == 3
    assert len({tuple(sorted(digit.pixels)) for digit in first}) == 1 and len({digit.label for digit in first}) == 1
    assert stream.experiences[0].train[0] in split_digits().experiences[0].train, "the first order is the usual one"


def test_the_first_few_examples_are_of_all_classes():
    stream = permuted_digits(1)
    assert stream.scenario.classes(stream.experiences[0].train[:60]) == frozenset(range(10))


def test_seeds_change_the_split_and_the_orders():
    first, again, other = (split_digits(seed=seed).fingerprint() for seed in (0, 0, 1))
    assert first == again != other
    assert permutation(1, 0) == permutation(1, 0) != permutation(1, 1)
    assert sorted(permutation(2)) == list(range(64)) == list(permutation(0))


def test_permute_takes_pixel_i_from_place_order_i():
    digit = split_digits().experiences[0].train[0]
    [moved] = permute([digit], [*range(1, 64), 0])
    assert moved.pixels == (*digit.pixels[1:], digit.pixels[0]) and moved.label == digit.label


def test_task_incremental_digits_are_chosen_among_two():
    scenario, model = DigitScenario(), digit_network()
    with torch.no_grad():
        model[2].bias[7] = 100.0  # would win every time
    two, ten = (split_digits(f"{kind}-incremental").experiences[0].test for kind in ("task", "class"))
    assert scenario.score(model, ten) == 0 and scenario.score(model, two) > 0.3
    out = scenario.logits(model, two)[:, :2]
    labels = torch.tensor([digit.label for digit in two])
    assert torch.allclose(scenario.loss(model, two), F.cross_entropy(out, labels))
    mixed = scenario.loss(model, [two[0], ten[1]], "sum")
    assert torch.allclose(mixed, scenario.loss(model, [two[0]]) + scenario.loss(model, [ten[1]]))


def test_domain_incremental_digits_are_asked_for_their_parity_in_every_experience():
    for ten, two in zip(split_digits().experiences, split_digits("domain-incremental").experiences):
        assert ten.name == two.name
        for classes, parity in ((ten.train, two.train), (ten.test, two.test)):
            assert [digit.pixels for digit in classes] == [digit.pixels for digit in parity]
            assert [{0: 0, 1: 1}[digit.label % 2] for digit in classes] == [digit.label for digit in parity]
            assert {digit.among for digit in parity} == {()}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_shuffled_pairs_are_an_even_and_an_odd_digit_drawn_by_the_seed(scenario):
    first, again, other = ([*split_digits(scenario, seed, shuffled=True).names] for seed in (3, 3, 4))
    assert first == again != other and split_digits(scenario, 3).names[0] == "0, 1"
    pairs = [tuple(map(int, name.split(", "))) for name in first]
    assert sorted(digit for pair in pairs for digit in pair) == list(range(10))
    assert all((even % 2, odd % 2) == (0, 1) for even, odd in pairs)


def test_shuffled_pairs_keep_each_image_on_its_side_of_the_split():
    plain, shuffled = (
        {digit for experience in split_digits(seed=3, shuffled=order).experiences for digit in experience.test}
        for order in (False, True)
    )
    assert plain == shuffled


def test_an_unknown_scenario_is_refused():
    with pytest.raises(CourseError, match="no scenario 'class'") as caught:
        split_digits("class")
    assert "class-incremental" in caught.value.remedy


def test_the_network_has_as_many_outputs_as_asked_for():
    assert digit_network(classes=2)(torch.zeros(3, 64)).shape == (3, 2)


def test_pixels_reach_the_network_as_they_are():
    scenario, digits = DigitScenario(), split_digits().experiences[0].test[:3]
    assert scenario.features(None, digits).tolist() == [list(digit.pixels) for digit in digits]
    assert all(0 <= pixel <= 1 for digit in digits for pixel in digit.pixels)


def test_a_network_leaves_the_readers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    network = digit_network(5)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(network[0].weight, digit_network(5)[0].weight)
    assert not torch.equal(network[0].weight, digit_network(6)[0].weight)


def test_no_experiences_are_refused():
    with pytest.raises(CourseError, match="the number of experiences is 0"):
        permuted_digits(0)
