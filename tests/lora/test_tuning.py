"""Tuning by hand: the history grows, the same settings give the same run, and the model is the base model again."""

from __future__ import annotations

import math
import re
from html import unescape

import pytest
import torch
from tiny_models import tiny_llama

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.tuning import ALPHA, LAYERS, Attempt, attempt, measured, tuning_view
from rapidadapt_lessons.show.widgets import render
from rapidadapt_lessons.training.rows import Row, exact_rows, perplexity

ROWS = [Row(tuple((7 * i + 3 * j) % 90 + 3 for j in range(6)), 4) for i in range(10)]
DATA = (ROWS, ROWS[:3], [Row(tuple(range(5, 25)))])


@pytest.fixture
def model():
    """A model that a test must leave as it was."""
    made = tiny_llama().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    yield made
    assert before.keys() == made.state_dict().keys() and not lora.lora_layers(made)
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in before.items())


def told(html: str) -> tuple[str, list[list[str]]]:
    """Return the picture's description and the cells of the table."""
    [alt] = re.findall(r'<img alt="([^"]*)"', html)
    cells = [re.findall(r"<td [^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]
    return unescape(alt), [row for row in cells if row]


def test_an_attempt_is_the_training_and_the_measures_of_the_lesson(model):
    """Against the same thing done step by step, without `attempt`."""
    from rapidadapt_lessons.training.loop import TrainConfig, train

    found = attempt(model, *DATA, 4, 1e-2, "attention", updates=3)
    lora.inject(model, lora.LoRAConfig(4, ALPHA, target_modules=LAYERS["attention"]))
    train(model, ROWS, TrainConfig(3, lr=1e-2), progress=False)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    loss, right, elsewhere = (
        math.log(perplexity(model, DATA[1])),
        exact_rows(model, DATA[1]),
        perplexity(model, DATA[2]),
    )
    lora.remove(model)
    assert found == Attempt(trained, pytest.approx(loss), sum(right), pytest.approx(elsewhere))
    assert found.loss != pytest.approx(measured(model, *DATA[1:]).loss, abs=1e-3), "nothing was trained"


def test_the_layers_are_all_linear_ones_cut_in_two():
    assert LAYERS["all linear"] == LAYERS["attention"] + LAYERS["feed-forward"] and len(set(LAYERS["all linear"])) == 7


def test_the_history_grows_and_tells_every_run(model):
    kept: dict = {}
    for number, (rank, lr, layers) in enumerate(
        [(2, 1e-3, "all linear"), (2, 1e-2, "all linear"), (8, 1e-3, "attention")]
    ):
        alt, table = told(tuning_view(model, *DATA, rank, lr, layers, kept=kept, updates=2))
        assert len(kept) == number + 2 and len(table) == number + 2  # the base model is in both
    for key, run in kept.items():
        assert f"({run.loss:.2f} at {run.elsewhere:.1f})" in alt
        assert [f"{key[0] if key else ''}", f"{run.trained:,}"] in [row[:4:3] for row in table]
    base = kept[None]
    assert f"base model ({base.loss:.2f} at {base.elsewhere:.1f})" in alt and table[-1][2] == "base model"
    assert "r 2, 1e-3 (" in alt and "r 8, 1e-3, attention (" in alt and alt.endswith(", the newest.")
    assert [row[1] for row in table[:-1]] == ["1e-3", "0.01", "1e-3"], "the newest on top"
    assert table[0][2] == "attention" and f"Loss {base.loss:.2f} → {kept[8, 1e-3, 'attention'].loss:.2f}" in alt


def test_the_same_settings_give_the_same_run_in_this_history_and_in_another(model):
    kept: dict = {}
    first = tuning_view(model, *DATA, 2, 1e-3, kept=kept, updates=2)
    run = kept[2, 1e-3, "all linear"]
    tuning_view(model, *DATA, 4, 1e-3, kept=kept, updates=2)
    alt, _ = told(tuning_view(model, *DATA, 2, 1e-3, kept=kept, updates=2))
    assert len(kept) == 3 and kept[2, 1e-3, "all linear"] is run and re.search(r"r 2, 1e-3 \([^)]*\), the newest", alt)
    assert tuning_view(model, *DATA, 2, 1e-3, kept={}, updates=2) == first


def test_a_rate_that_diverges_is_told_in_words_and_kept(model):
    kept: dict = {}
    alt, table = told(tuning_view(model, *DATA, 2, 1e36, kept=kept, updates=4))
    run = kept[2, 1e36, "all linear"]
    assert run.loss == run.elsewhere == math.inf and "at update" in run.stopped
    assert "Too high a rate: training diverged" in alt and "(inf at inf), the newest" in alt
    assert table[0][4] == run.stopped
    alt, _ = told(tuning_view(model, *DATA, 2, 1e-3, kept=kept, updates=2))
    assert "(inf at inf);" in alt, "the history keeps it"


def test_a_loss_that_rose_is_no_gain(model):
    kept = {None: Attempt(0, 0.5, 3, 20.0)}  # whatever is trained on comes out worse than this
    alt, _ = told(tuning_view(model, *DATA, 2, 1e-3, kept=kept, updates=1))
    assert "Too high a rate: nothing learned" in alt


def test_the_table_has_the_last_runs_only_and_the_picture_all(model):
    kept: dict = {None: Attempt(0, 5.0, 0, 20.0)}
    kept |= {(rank, 1e-3, "all linear"): Attempt(100 * rank, 1.0, 0, 20.0 + rank) for rank in range(1, 11)}
    alt, table = told(tuning_view(model, *DATA, 10, 1e-3, kept=kept))
    assert [row[0] for row in table] == ["10", "9", "8", "7", "6", "5", ""]
    assert all(f"r {rank}, 1e-3 (" in alt for rank in range(1, 11))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ((99, 1e-3, "all linear"), "rank 99"),
        ((2, -1.0, "all linear"), "lr is -1"),
        ((2, 1e-3, "nose"), "no layers 'nose'"),
    ],
)
def test_bad_settings_are_told_and_leave_no_run(model, settings, problem):
    kept: dict = {}
    with pytest.raises(CourseError, match=problem):
        tuning_view(model, *DATA, *settings, kept=kept)
    assert [*kept] == [None]
    html = render(
        lambda **values: tuning_view(model, *DATA, **values, kept=kept), **dict(zip(("rank", "lr", "layers"), settings))
    )
    assert html.startswith("<div role='alert'>")
