"""The training loop: it learns, stops, keeps what is good, and a run that was killed ends as if it had not been."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_llama
from training_parts import ROWS, gpt2_with_lora, model_with_lora, same

from rapidadapt_lessons.errors import CheckpointMismatch, CourseError, TrainingDiverged
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.training.checkpoint import load_checkpoint, save_checkpoint
from rapidadapt_lessons.training.loop import TrainConfig, rows_of_step, train
from rapidadapt_lessons.training.rows import collate, perplexity, token_loss


def test_training_lowers_the_loss_and_tells_what_happened():
    model = model_with_lora()
    before = perplexity(model, ROWS)
    history = train(model, ROWS, TrainConfig(40, 5, lr=5e-2), progress=False)
    assert perplexity(model, ROWS) < 0.92 * before
    assert len(history.losses) == 40 and history.losses[-1] < history.losses[0]
    assert history.stopped == "all 40 updates done"
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_two_halves_accumulated_are_one_whole():
    """Also where the halves count unequal numbers of tokens."""
    assert len({len(row.ids) for row in ROWS}) > 1
    states = []
    for size, times in ((8, 1), (4, 2), (2, 4)):
        model = model_with_lora()
        history = train(model, ROWS, TrainConfig(3, size, times, lr=1e-2), progress=False)
        states.append((lora.adapter_state(model), history.losses))
    for state, losses in states[1:]:
        assert losses == pytest.approx(states[0][1], abs=1e-5)
        for name in state:
            torch.testing.assert_close(state[name], states[0][0][name], atol=1e-5, rtol=1e-3)


def test_the_first_update_is_adamws_with_a_cut_gradient():
    model, twin = model_with_lora(), model_with_lora()
    config = TrainConfig(1, 10, lr=1e-2, max_grad_norm=0.05)
    train(model, ROWS, config, progress=False)
    parameters = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    token_loss(twin, collate(rows_of_step(ROWS, config, 0))).backward()
    assert torch.nn.utils.clip_grad_norm_(parameters, 0.05) > 0.05, "nothing was cut"
    optimizer.step()
    for name, tensor in lora.adapter_state(model).items():
        torch.testing.assert_close(tensor, lora.adapter_state(twin)[name], atol=1e-6, rtol=1e-5)


def test_every_row_is_seen_once_an_epoch_in_another_order_each_time():
    config = TrainConfig(100, 2, seed=3)
    seen = [row for step in range(10) for row in rows_of_step(ROWS, config, step)]
    assert sorted(map(repr, seen[:10])) == sorted(map(repr, seen[10:])) == sorted(map(repr, ROWS))
    assert seen[:10] != seen[10:]
    assert rows_of_step(ROWS, config, 7) == seen[14:16]
    assert rows_of_step(ROWS, TrainConfig(1, 2, seed=4), 0) != seen[:2]


def test_the_rate_rises_and_stays():
    config = TrainConfig(10, lr=1.0, warmup=2)
    assert [config.rate(step) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert TrainConfig(10, lr=1.0).rate(9) == 1.0


def test_equal_seeds_give_equal_runs_with_dropout_and_the_readers_random_numbers_are_left_alone():
    runs = []
    for run, seed in enumerate((0, 0, 1)):
        model = model_with_lora(dropout=0.5)
        torch.manual_seed(run)
        before = torch.get_rng_state()
        train(model, ROWS, TrainConfig(4, 5, seed=seed), progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        runs.append(lora.adapter_state(model))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_an_early_stop_puts_the_best_weights_back():
    model, values, seen = model_with_lora(), iter([5.0, 3.0, 4.0, 4.0]), []

    def evaluate(m):
        assert not m.training
        seen.append(lora.adapter_state(m))
        return next(values)

    config = TrainConfig(100, 5, eval_every=2, patience=2)
    history = train(model, ROWS, config, evaluate=evaluate, progress=False)
    assert history.evaluations == {0: 5.0, 2: 3.0, 4: 4.0, 6: 4.0}
    assert (history.best_step, len(history.losses)) == (2, 6)
    assert "no better evaluation since update 2" in history.stopped
    assert same(lora.adapter_state(model), seen[1]) and not same(seen[1], seen[3])


def test_patience_can_wait_for_more_instead_of_less():
    values = iter([0.1, 0.9, 0.5, 0.5])
    config = TrainConfig(100, 5, eval_every=1, patience=2, maximize=True)
    history = train(model_with_lora(), ROWS, config, evaluate=lambda m: next(values), progress=False)
    assert history.best_step == 1


def test_a_diverging_run_stops_keeps_the_last_good_weights_and_says_why():
    """The second update finds weights that give no number: those before the first are put back."""
    model = model_with_lora()
    start = lora.adapter_state(model)
    layer = next(iter(lora.lora_layers(model).values()))
    # A layer that overflows as soon as its update is not zero.
    layer.register_forward_hook(lambda module, inputs, output: output / (module.lora_B.abs().max() == 0))
    told = r"loss became (nan|inf) at update 2 \(lr 0.01\).*\n.*lower lr"
    with pytest.raises(TrainingDiverged, match=told) as error:
        train(model, ROWS, TrainConfig(5, 5, lr=1e-2), progress=False)
    assert same(lora.adapter_state(model), start)
    assert len(error.value.history.losses) == 1 and math.isfinite(error.value.history.losses[0])


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = model_with_lora()
    train(model, ROWS, TrainConfig(2, 5), progress=False)
    start = lora.adapter_state(model)
    layer = next(iter(lora.lora_layers(model).values()))
    layer.lora_B.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingDiverged, match="gradient became nan at update 1"):
        train(model, ROWS, TrainConfig(2, 5), progress=False)
    assert same(lora.adapter_state(model), start)


# Killed and resumed.

KILLED = """
import os, signal, sys, torch
torch.set_num_threads({threads})  # as the test's: another number adds up in another order
sys.path.insert(0, {here!r})
from training_parts import ROWS, gpt2_with_lora
from rapidadapt_lessons.training import TrainConfig, train
model, updates = gpt2_with_lora(), []
def hook(module, inputs, output):
    updates.append(1)
    if len(updates) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)  # in the middle of a forward pass
model.lm_head.register_forward_hook(hook)
train(model, ROWS, TrainConfig(12, 2, 2, checkpoint_every=3, seed=5, warmup=2), checkpoint={file!r}, progress=False)
"""


@pytest.mark.parametrize("at", [2, 17])
def test_a_run_killed_in_the_middle_of_an_update_resumes_to_the_same_weights_bit_for_bit(tmp_path, at):
    """Two forward passes an update: the 2nd is in update 1, before any checkpoint; the 17th in update 9, after two."""
    file = tmp_path / "run.pt"
    code = KILLED.format(threads=torch.get_num_threads(), here=str(Path(__file__).parents[1]), at=at, file=str(file))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, timeout=250)
    assert done.returncode == -signal.SIGKILL
    assert file.exists() == (at > 6)
    assert [path.name for path in tmp_path.iterdir()] == (["run.pt"] if at > 6 else [])
    config = TrainConfig(12, 2, 2, checkpoint_every=3, seed=5, warmup=2)
    resumed, straight = gpt2_with_lora(), gpt2_with_lora()
    passes = []
    torch.manual_seed(99)  # what the reader drew before must not matter
    resumed.lm_head.register_forward_hook(lambda *_: passes.append(1))
    history = train(resumed, ROWS, config, checkpoint=file, progress=False)
    assert len(passes) == 2 * (12 - (6 if at > 6 else 0)), "it did not go on from the checkpoint"
    expected = train(straight, ROWS, config, progress=False)
    assert same(lora.adapter_state(resumed), lora.adapter_state(straight))
    assert history.losses == expected.losses and len(history.losses) == 12


def test_a_finished_run_is_not_run_again(tmp_path):
    config, file = TrainConfig(3, 5), tmp_path / "run.pt"
    first, again = model_with_lora(), model_with_lora()
    train(first, ROWS, config, checkpoint=file, progress=False)
    again.lm_head.register_forward_hook(lambda *_: pytest.fail("it ran"))
    assert train(again, ROWS, config, checkpoint=file, progress=False).stopped == "all 3 updates done"
    assert same(lora.adapter_state(first), lora.adapter_state(again))


@pytest.mark.parametrize(
    ("config", "rows", "rank", "told"),
    [
        (TrainConfig(3, 5, lr=1e-4), ROWS, 4, "config"),
        (TrainConfig(3, 5), ROWS[:6], 4, "number of rows is 10, this run's is 6"),
        (TrainConfig(3, 5), [*ROWS[:-1], ROWS[0]], 4, "rows, as a digest"),
        (TrainConfig(3, 5), ROWS, 2, "shapes"),
    ],
)
def test_another_runs_checkpoint_is_refused_and_left_as_it_is(tmp_path, config, rows, rank, told):
    file = tmp_path / "run.pt"
    train(model_with_lora(), ROWS, TrainConfig(3, 5), checkpoint=file, progress=False)
    before = file.read_bytes()
    model = lora.inject(tiny_llama(), LoRAConfig(rank))
    with pytest.raises(CheckpointMismatch, match=f"run.pt belongs to another run: its {told}"):
        train(model, rows, config, checkpoint=file, progress=False)
    assert file.read_bytes() == before


def test_a_checkpoint_of_another_base_is_refused(tmp_path):
    train(model_with_lora(), ROWS, TrainConfig(3, 5), checkpoint=tmp_path / "run.pt", progress=False)
    other = model_with_lora()
    with torch.no_grad():
        other.model.embed_tokens.weight += 0.5
    with pytest.raises(CheckpointMismatch, match="weights of the base"):
        train(other, ROWS, TrainConfig(3, 5), checkpoint=tmp_path / "run.pt", progress=False)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    save_checkpoint(file, {"a": 1}, {"x": torch.ones(3)})
    assert load_checkpoint(file, {"a": 1})["x"].tolist() == [1, 1, 1]
    for damage in (file.read_bytes()[:-50], b"", b"not a checkpoint"):
        file.write_bytes(damage)
        with pytest.raises(CheckpointMismatch, match=r"run.pt is no checkpoint, or damaged[^$]*delete run.pt"):
            load_checkpoint(file, {"a": 1})
    assert load_checkpoint(tmp_path / "none.pt", {}) is None


# Bad input.


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1, "batch_size": 0}, "batch_size is 0"),
        ({"steps": 1, "accumulate": -1}, "accumulate is -1"),
        ({"steps": 1, "lr": 0.0}, "lr is 0.0"),
        ({"steps": 1, "lr": float("nan")}, "lr is nan"),
        ({"steps": 1, "lr": 1e38}, r"lr is 1e\+38"),
        ({"steps": 1, "patience": 2}, "patience is 2 with no evaluation"),
        ({"steps": 1, "patience": 0, "eval_every": 1}, "patience is 0"),
        ({"steps": 1, "eval_every": -1}, "eval_every is -1"),
        ({"steps": 1, "warmup": -5}, "warmup is -5"),
        ({"steps": 1, "max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"steps": 1, "max_grad_norm": -1.0}, "max_grad_norm is -1.0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(values, told):
    with pytest.raises(CourseError, match=told):
        TrainConfig(**values)


def test_nothing_to_train_on_or_with_is_told():
    with pytest.raises(CourseError, match="no rows"):
        train(model_with_lora(), [], TrainConfig(1))
    with pytest.raises(CourseError, match="no parameter"):
        train(tiny_llama().requires_grad_(False), ROWS, TrainConfig(1))
    with pytest.raises(CourseError, match="eval_every is 2 and there is no"):
        train(model_with_lora(), ROWS, TrainConfig(1, eval_every=2))


def test_the_progress_bar_shows_the_loss(capsys):
    train(model_with_lora(), ROWS, TrainConfig(2, 5), progress=True)
    assert "training" in capsys.readouterr().err
    train(model_with_lora(), ROWS, TrainConfig(2, 5), progress=False)
    assert capsys.readouterr().err == ""
