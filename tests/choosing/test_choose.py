"""The choice between methods: limits, ties, change, and the figures and the report that tell it."""

from __future__ import annotations

import re

import pytest
import torch
from tiny_models import tiny_llama

from rapidadapt_lessons.choosing import figures, methods, report
from rapidadapt_lessons.choosing.choose import Limits, choose
from rapidadapt_lessons.choosing.methods import CALIBRATED, CONTINUAL, FEW, LORA, META, ZERO, Trial
from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lm.tasks import Example, Task
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.files import load_adapter
from rapidadapt_lessons.show.intervals import wilson


def trial(method, examples, right, seconds=0.0, mb=1.0, kb=1.0, of=20) -> Trial:
    return Trial(
        method, examples, (True,) * right + (False,) * (of - right), seconds, 0.01, int(mb * 1e6), int(kb * 1e3)
    )


TRIALS = [
    trial(ZERO, 0, 8),
    trial(FEW, 4, 12),
    trial(FEW, 16, 14, mb=5),
    trial(CALIBRATED, 4, 15),
    trial(META, 4, 18, seconds=3, mb=40, kb=1800),
    trial(LORA, 4, 10, seconds=8, mb=40, kb=1800),
    trial(LORA, 16, 20, seconds=9, mb=80, kb=1800),
    trial(CONTINUAL, 16, 20, seconds=5, mb=80, kb=1801),
]
LOST = {ZERO: 0.0, FEW: 0.0, CALIBRATED: 0.0, META: 0.5, LORA: 0.4, CONTINUAL: 0.05}


@pytest.mark.parametrize(
    ("limits", "method", "examples"),
    [
        (Limits(0), ZERO, 0),
        (Limits(3), ZERO, 0),
        (Limits(4), META, 4),
        (Limits(4, prepare_seconds=2.9), CALIBRATED, 4),
        (Limits(4, memory_bytes=39e6), CALIBRATED, 4),
        (Limits(4, stored_bytes=1000), CALIBRATED, 4),
        (Limits(4, stored_bytes=999), None, None),
        (Limits(16), LORA, 16),
        (Limits(16, prepare_seconds=8.9), CONTINUAL, 16),
        (Limits(16, prepare_seconds=8.9, memory_bytes=50e6), META, 4),  # what LoRA did with 4 is no match
        (Limits(16, changing=True), CONTINUAL, 16),
        (Limits(16, prepare_seconds=1, changing=True), FEW, 16),
        (Limits(16, prepare_seconds=1, memory_bytes=4e6), CALIBRATED, 4),
    ],
)
def test_the_best_within_the_limits(limits, method, examples):
    choice = choose(TRIALS, limits, LOST)
    found = choice.trial and (choice.trial.method, choice.trial.examples)
    assert found == (method and (method, examples))
    assert set(choice.scores) | set(choice.excluded) == {t.method for t in TRIALS}
    assert not set(choice.scores) & set(choice.excluded)


def test_within_one_query_the_least_effort_wins():
    """19 of 20 by a prompt against 20 of 20 by LoRA: the prompt. 18 of 20: LoRA."""
    dear = trial(LORA, 4, 20, seconds=9)
    close = choose([dear, trial(FEW, 4, 19)], Limits(4))
    assert close.trial.method == FEW and "LoRA answered a query more at most, for more effort" in close.reason
    equal = choose([trial(LORA, 4, 19, seconds=9), trial(FEW, 4, 19)], Limits(4))
    assert equal.trial.method == FEW and "LoRA is within one query of the best too, for more effort" in equal.reason
    assert choose([dear, trial(FEW, 4, 19)], Limits(4), close=0.01).trial.method == LORA  # of few queries one is much
    assert choose([dear, trial(FEW, 4, 18)], Limits(4)).trial.method == LORA


def test_change_is_subtracted():
    choice = choose(TRIALS, Limits(16, changing=True), LOST)
    assert choice.scores[LORA] == pytest.approx(0.6) and choice.scores[META] == pytest.approx(0.4)
    assert "loses it 5% of them" in choice.reason
    assert choose(TRIALS, Limits(16), LOST).scores[LORA] == 1.0


def test_why_a_method_is_out():
    limits = Limits(2, prepare_seconds=1)
    assert choose(TRIALS, Limits(4, prepare_seconds=7)).excluded[LORA] == "takes 8 s to prepare"
    assert choose(TRIALS, limits).excluded[FEW] == "needs 4 examples"
    assert choose(TRIALS, Limits(16, prepare_seconds=1)).excluded[META] == "takes 3 s to prepare"
    assert choose(TRIALS, Limits(16, memory_bytes=2e6)).excluded[META] == "needs 40 MB beside the weights"
    assert choose(TRIALS, Limits(16, stored_bytes=2e3)).excluded[META] == "stores 1800 kB"
    nothing = choose(TRIALS, Limits(0, stored_bytes=0))
    assert nothing.trial is None and "allow more" in nothing.reason


@pytest.mark.parametrize("name", ["examples", "prepare_seconds", "memory_bytes", "stored_bytes"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_limits_below_zero(name, value):
    with pytest.raises(CourseError, match=re.escape(f"{name} is {value}")):
        Limits(**({"examples": 0} | {name: value}))


def test_a_choice_needs_trials_and_what_a_change_costs():
    with pytest.raises(CourseError, match="no trials"):
        choose([], Limits(4))
    with pytest.raises(CourseError, match="LoRA would lose"):
        choose(TRIALS, Limits(16, changing=True), {k: v for k, v in LOST.items() if k != LORA})


# Figures


@pytest.mark.parametrize(
    ("right", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (48, 48, 0.9259, 1)]
)
def test_wilsons_interval(right, of, low, high):
    """Against scipy.stats.binomtest(...).proportion_ci(method="wilson")."""
    assert wilson(right, of) == pytest.approx((low, high), abs=5e-5)
    from scipy.stats import binomtest

    reference = binomtest(right, of).proportion_ci(method="wilson")
    assert wilson(right, of) == pytest.approx((reference.low, reference.high), abs=1e-6)


@pytest.mark.parametrize(("right", "of"), [(1, 0), (-1, 4), (5, 4)])
def test_a_share_that_is_none(right, of):
    with pytest.raises(CourseError, match=f"{right} right answers of {of}"):
        wilson(right, of)


def test_the_figure_tells_quality_and_costs_but_no_seconds():
    picture = figures.quality_and_costs(TRIALS, "T")
    assert "LoRA: 0.50 at 4, 1.00 at 16" in picture.alt and "LoRA, 16 examples: 80 MB, 1,800 kB" in picture.alt
    faster = [Trial(**{**t.__dict__, "prepare_seconds": 7.77, "answer_seconds": 3.0}) for t in TRIALS]
    assert figures.quality_and_costs(faster, "T").alt == picture.alt
    assert picture.png()[:4] == b"\x89PNG"
    with pytest.raises(CourseError, match="no trials"):
        figures.quality_and_costs([], "T")


def test_the_chart_shows_the_choice_in_every_cell():
    picture = figures.decision_chart(TRIALS, (0, 4, 60))
    written = [text.get_text() for text in picture.figure.axes[0].texts]
    expected = [choose(TRIALS, Limits(k, prepare_seconds=s)).trial for s in (0, 4, 60) for k in (0, 4, 16)]
    assert written == [f"{t.method}\n{t.quality:.2f}" for t in expected]
    assert "With no time to prepare: zero-shot at 0 examples, calibrated few-shot at 4 examples" in picture.alt
    assert "with any time: zero-shot at 0 examples, meta-learned LoRA at 4 examples, LoRA at 16" in picture.alt
    moving = figures.decision_chart(TRIALS, (60,), lost=LOST)
    assert "with any time: zero-shot at 0 examples, calibrated few-shot at 4 examples, continual" in moving.alt


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((16, 60, 200, 4000, False), "LoRA with 16 examples answers 100%"),
        ((16, 60, 200, 4000, True), "Continual updating with 16 examples"),
        ((4, 1, 200, 4000, False), "Calibrated few-shot with 4 examples answers 75%"),
        ((0, 0, 0, 0, False), "allow more of something"),
    ],
)
def test_the_widget_at_several_values(values, expected):
    shown = figures.choice_view(TRIALS, LOST, *values)
    assert expected in shown and shown.count("<tr>") == 7
    assert shown.count("&#10003;") == (0 if "allow more" in expected else 1)


# The report


PAIRS = tuple(Example(f"word {i}", ("yes", "no")[i % 2]) for i in range(8))
TASK = Task("mine", "my pairs", "", "In: {x}\nOut: {y}", "{x}", "mine.csv", PAIRS[:4], PAIRS[4:], ("yes", "no"))


def test_the_report_holds_every_trial_and_the_choice():
    choice = choose(TRIALS, Limits(16))
    text = report.report_text(TASK, TRIALS, choice)
    assert f"**{choice.reason}**" in text and "mine.csv" in text and "choice between yes, no" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(TRIALS) and all(line.count("|") == 9 for line in rows)
    assert "| LoRA | 16 | 1.00 | 0.84 to 1.00 | 9.0 | 0.010 | 80 | 1,800.0 |" in rows
    with pytest.raises(CourseError, match="no trials"):
        report.report_text(TASK, [], choice)


@pytest.fixture
def model():
    return tiny_llama().requires_grad_(False)


def test_the_saved_adapter_is_the_one_given(model, tmp_path):
    lora.inject(model, methods.ADAPTER)
    with torch.no_grad():
        for layer in lora.lora_layers(model).values():
            layer.lora_B.fill_(0.1)
    state = lora.adapter_state(model)
    output = model(torch.tensor([[3, 4, 5]])).logits
    lora.remove(model)
    for _ in range(2):  # a second time over the first
        folder = report.save_results(tmp_path / "out", model, TASK, TRIALS, choose(TRIALS, Limits(16)), state)
    assert not lora.lora_layers(model)
    names = sorted(p.name for p in folder.rglob("*") if p.is_file())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "report.md"]
    load_adapter(model, folder / "adapter")
    assert torch.equal(model(torch.tensor([[3, 4, 5]])).logits, output)


def test_an_older_report_stays_where_the_adapter_cannot_be_written(model, tmp_path, monkeypatch):
    lora.inject(model, methods.ADAPTER)
    state = lora.adapter_state(model)
    folder = report.save_results(tmp_path / "out", model, TASK, TRIALS, choose(TRIALS, Limits(16)), state)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "save_adapter", full)
    with pytest.raises(CourseError, match="out cannot be written .No space left"):
        report.save_results(folder, model, TASK, TRIALS[:2], choose(TRIALS[:2], Limits(4)), state)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not lora.lora_layers(model)


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_what_is_not_ours_is_left_alone(model, tmp_path, kind):
    there = tmp_path / "thesis"
    if kind == "full folder":
        there.mkdir()
    (there / "text.txt" if kind == "full folder" else there).write_text("precious")
    lora.inject(model, methods.ADAPTER)
    state = lora.adapter_state(model)
    lora.remove(model)
    with pytest.raises(CourseError, match="not a folder of results"):
        report.save_results(there, model, TASK, TRIALS, choose(TRIALS, Limits(16)), state)
    assert (there / "text.txt" if kind == "full folder" else there).read_text() == "precious"
