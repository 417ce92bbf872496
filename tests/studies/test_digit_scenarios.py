"""The study of three scenarios: equal budgets, the head that each scenario needs, and pairs learned to the end."""

from __future__ import annotations

import pytest
import torch
from claims import digits
from digit_scenarios import SCENARIOS, learned

from rapidadapt_lessons.continual.digits import DigitScenario
from rapidadapt_lessons.studies import load
from rapidadapt_lessons.training import loop


@pytest.fixture
def rows_seen(monkeypatch) -> list[tuple[int, int]]:
    """Two updates for each experience instead of 200, and for each training loss its rows and the network's outputs."""
    seen = []
    plain = DigitScenario.loss

    def watched(self, model, examples, reduction="mean"):
        if torch.is_grad_enabled():
            seen.append((len(examples), model[-1].out_features))
        return plain(self, model, examples, reduction)

    monkeypatch.setattr(DigitScenario, "loss", watched)
    short = loop.TrainConfig
    monkeypatch.setattr(loop, "TrainConfig", lambda steps, **given: short(steps // 100, **given))
    return seen


def test_the_network_that_is_measured_has_seen_as_many_rows_with_replay_as_with_joint_training_or_fewer(rows_seen):
    rows = {}
    for method in ("fine-tuning", "replay", "joint"):
        learned("class-incremental", method, 1e-3, 0.0, seed=0)
        half = [count for count, _ in rows_seen[: len(rows_seen) // 2]]  # the other half is validation's
        rows[method] = sum(half[-10:]) if method == "joint" else sum(half)  # its last network: 5 x 2 updates
        rows_seen.clear()
    assert rows == {"fine-tuning": 32_000 // 100, "replay": 28_800 // 100, "joint": 32_000 // 100}


@pytest.mark.parametrize(("scenario", "outputs"), [*zip(SCENARIOS, (10, 2, 10))])
def test_experiences_share_a_head_of_two_outputs_where_they_ask_the_same_question(rows_seen, scenario, outputs):
    learned(scenario, "fine-tuning", 1e-3, 0.0, seed=0)
    assert {found for _, found in rows_seen} == {outputs}


def test_validation_takes_no_test_image(monkeypatch):
    from rapidadapt_lessons.continual import stream as continual

    streams, plain = [], continual.run_stream

    def watched(method, model, stream, config):
        streams.append(stream)
        return plain(method, model, stream, config)

    monkeypatch.setattr(continual, "run_stream", watched)
    learned("class-incremental", "nearest class mean", 0.0, 0.0, seed=2)
    tested, validated = ({d.pixels for e in stream.experiences for d in (*e.train, *e.test)} for stream in streams)
    measured = {d.pixels for e in streams[0].experiences for d in e.test}
    assert measured <= tested and not measured & validated


@pytest.mark.parametrize("scenario", ("task", "class"))
def test_each_pair_was_learned_to_the_end_before_it_was_forgotten(scenario):
    plasticity = digits(load("digit_scenarios"), scenario, "plasticity").drop(columns="nearest class mean")
    assert plasticity.mean().min() > 0.95
