"""Sinusoid regression: the family, several seeds trained at once, and the figures."""

from __future__ import annotations

import math

import pytest
import torch

from rapidadapt_lessons.errors import CourseError, TrainingDiverged
from rapidadapt_lessons.meta import maml, sinusoids
from rapidadapt_lessons.meta import sinusoid_figures as views
from rapidadapt_lessons.meta.sinusoids import ANIL, FOMAML, HEAD, MAML, PRETRAINED, REPTILE, MetaMethod, Waves
from rapidadapt_lessons.show.plots import Picture

METHODS = (MAML, FOMAML, ANIL, REPTILE, PRETRAINED)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The family


def test_tasks_are_uniform_over_the_published_ranges():
    waves = sinusoids.draw_waves(20_000, generator())
    for values, (low, high) in ((waves.amplitude, (0.1, 5.0)), (waves.phase, (0.0, math.pi))):
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03)
        assert values.std() == pytest.approx((high - low) / 12**0.5, abs=0.03)
    assert abs(torch.corrcoef(torch.stack([waves.amplitude, waves.phase]))[0, 1]) < 0.03


def test_points_lie_on_their_own_curve_and_support_is_not_query():
    waves = sinusoids.draw_waves(30, generator(1))
    batch = waves.batch(10, 15, generator(2))
    assert batch.support_x.shape == batch.support_y.shape == (30, 10, 1)
    assert batch.query_x.shape == batch.query_y.shape == (30, 15, 1)
    for x, y in ((batch.support_x, batch.support_y), (batch.query_x, batch.query_y)):
        assert -5 <= x.min() < -4.8 and 4.8 < x.max() <= 5
        for i in range(30):
            expected = [waves.amplitude[i].item() * math.sin(v - waves.phase[i].item()) for v in x[i, :, 0].tolist()]
            assert torch.allclose(y[i, :, 0], torch.tensor(expected), atol=1e-5)
    assert not torch.isin(batch.support_x, batch.query_x).any()


def test_the_mean_of_the_tasks_is_the_cosine_in_the_formula():
    x = torch.linspace(-5, 5, 41)[:, None]
    average = sinusoids.draw_waves(40_000, generator(3))(x).mean(0)
    assert torch.allclose(average, sinusoids.mean_wave(x), atol=0.06)
    assert sinusoids.mean_wave(torch.zeros(1)).item() == pytest.approx(-2.55 * 2 / math.pi)


@pytest.mark.parametrize("other", [torch.sin, torch.cos, torch.ones_like, torch.square], ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", [-0.2, 0.2])
def test_no_function_of_x_beats_the_mean_of_the_tasks(other, size):
    """What one function of x gets wrong is least at the tasks' mean: any change of it adds the change's square."""
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)[:, None]
    y = sinusoids.draw_waves(40_000, generator(3))(x)
    error = lambda guess: (y - guess).square().mean()  # noqa: E731
    change = size * other(x)
    assert error(sinusoids.mean_wave(x) + change) > error(sinusoids.mean_wave(x))
    added = error(y.mean(0) + change) - error(y.mean(0))
    assert added.item() == pytest.approx(change.square().mean().item(), rel=1e-3)


def test_same_seed_same_tasks_and_global_randomness_untouched():
    before = torch.get_rng_state()
    first, again = (sinusoids.draw_waves(3, generator(4)).batch(2, 2, generator(5)) for _ in range(2))
    assert torch.equal(first.query_y, again.query_y)
    for a, b in zip(sinusoids.network(6).parameters(), sinusoids.network(6).parameters()):
        assert torch.equal(a, b)
    assert not torch.equal(sinusoids.network(6)[0].weight, sinusoids.network(7)[0].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_network_is_finn_et_als():
    shapes = {name: tuple(p.shape) for name, p in sinusoids.network().named_parameters()}
    assert list(shapes.values()) == [(40, 1), (40,), (40, 40), (40,), (1, 40), (1,)]
    assert tuple(shapes)[-2:] == HEAD


# Training several seeds at once


def one_seed_by_hand(method, seed, seeds, iterations, tasks):
    """The same training for one seed alone, by the package's functions for a single initialisation."""
    net, draws = sinusoids.network(), generator(0)
    params = {name: p.detach().requires_grad_() for name, p in sinusoids.network(seed).named_parameters()}
    optimizer = torch.optim.Adam(params.values(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    place, losses = list(seeds).index(seed), []
    for _ in range(iterations):
        batch = sinusoids.draw_waves(len(seeds) * tasks, draws).batch(10, 10, draws)
        batch = batch.tasks(place * tasks, (place + 1) * tasks)
        options = {"inner_lr": method.inner_lr, "steps": method.steps, "adaptable": method.adaptable}
        if method.reptile:
            found = maml.reptile_gradient(net, params, batch, batch_size=10, **options)
            for name, p in params.items():
                p.grad = found.params[name]
            optimizer.step()
            losses.append(found.loss)
        else:
            options["second_order"] = method.second_order
            losses.append(maml.meta_step(net, params, batch, optimizer, **options))
        schedule.step()
    return params, torch.stack(losses)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_seeds_trained_together_are_seeds_trained_alone(method):
    seeds = (4, 9)
    params, losses = sinusoids.train_starts(method, seeds, 3, tasks=4)
    assert losses.shape == (3, 2)
    for place, seed in enumerate(seeds):
        alone, alone_losses = one_seed_by_hand(method, seed, seeds, 3, 4)
        for name, p in alone.items():
            assert torch.allclose(params[name][place], p, atol=2e-5), (seed, name)
        assert torch.allclose(losses[:, place], alone_losses, rtol=1e-4)


def test_methods_train_towards_different_places():
    ends = [sinusoids.train_starts(method, (0,), 2, tasks=3)[0]["2.weight"] for method in METHODS]
    for i, a in enumerate(ends):
        for b in ends[:i]:
            assert (a - b).abs().max() > 1e-5


def test_pretraining_is_the_plain_loss_on_all_tasks():
    """No inner step: the gradient is that of the mean squared error over all tasks' query points in one pot."""
    net, draws = sinusoids.network(0), generator(0)
    batch = sinusoids.draw_waves(4, draws).batch(10, 10, draws)
    plain = torch.nn.functional.mse_loss(net(batch.query_x.reshape(-1, 1)), batch.query_y.reshape(-1, 1))
    _, losses = sinusoids.train_starts(PRETRAINED, (0,), 1, tasks=4)
    assert losses[0, 0].item() == pytest.approx(plain.item(), rel=1e-5)


def test_a_few_hundred_iterations_of_maml_beat_pretraining_at_adapting():
    held_out = sinusoids.draw_waves(100, generator(9)).batch(10, 50, generator(10))
    after = {}
    for method in (MAML, PRETRAINED):
        params, _ = sinusoids.train_starts(method, (0, 1), 250)
        after[method.name] = sinusoids.curve(method, params, held_out, steps=1)[:, :, 1].mean(1)
    assert (after["MAML"] < after["pretrained"] - 0.3).all()


def test_training_that_diverges_is_stopped_with_a_word():
    with pytest.raises(TrainingDiverged, match="MAML: the loss became .*(nan|inf)"):
        sinusoids.train_starts(MetaMethod("MAML", inner_lr=1e20), (0,), 20, tasks=2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sinusoids.train_starts(MAML, (), 3),
        lambda: sinusoids.train_starts(MAML, (0,), 0),
        lambda: sinusoids.train_starts(MAML, (0,), 1, tasks=0),
        lambda: sinusoids.draw_waves(1, generator()).batch(0, 1, generator()),
        lambda: sinusoids.draw_waves(0, generator()),
        lambda: sinusoids.draw_waves(1, generator()).batch(1, 0, generator()),
        lambda: sinusoids.best_inner_lr(MAML, {}, None, (), 1),
    ],
)
def test_nothing_to_draw_or_train_is_refused(call):
    with pytest.raises(CourseError):
        call()


# Adapting


def test_curve_is_a_loop_of_plain_gradient_steps():
    params = sinusoids.stack([sinusoids.network(seed) for seed in (1, 2)])
    batch = sinusoids.draw_waves(3, generator(11)).batch(5, 7, generator(12))
    found = sinusoids.curve(MAML, params, batch, steps=2)
    assert found.shape == (2, 3, 3)
    for seed in (0, 1):
        for task in range(3):
            net = sinusoids.network()
            net.load_state_dict(sinusoids.select(params, seed))
            descent = torch.optim.SGD(net.parameters(), lr=MAML.inner_lr)
            for step in range(3):
                error = torch.nn.functional.mse_loss(net(batch.query_x[task]), batch.query_y[task])
                assert found[seed, task, step].item() == pytest.approx(error.item(), rel=1e-4)
                descent.zero_grad()
                torch.nn.functional.mse_loss(net(batch.support_x[task]), batch.support_y[task]).backward()
                descent.step()


def test_anil_leaves_the_body_alone_when_it_adapts():
    start = dict(sinusoids.network(3).named_parameters())
    [_, after] = views._adapted(ANIL, start, torch.ones(2, 1), torch.ones(2, 1), 1)
    changed = {name for name in start if not torch.equal(start[name], after[name])}
    assert changed == set(HEAD)


def test_the_best_rate_is_the_one_with_the_lowest_error_and_never_one_that_diverges():
    params = sinusoids.stack([sinusoids.network(0)])
    batch = sinusoids.draw_waves(20, generator(13)).batch(10, 20, generator(14))
    rates = (50.0, 1e-6, 0.01)
    errors = {rate: sinusoids.curve(MAML, params, batch, inner_lr=rate)[:, :, 10].mean() for rate in rates}
    assert not torch.isfinite(errors[50.0])
    assert sinusoids.best_inner_lr(MAML, params, batch, rates, 10) == 0.01 and errors[0.01] < errors[1e-6]


def test_the_best_rate_depends_on_the_number_of_steps():
    params = sinusoids.stack([sinusoids.network(0)])
    batch = sinusoids.draw_waves(20, generator(13)).batch(3, 20, generator(14))
    rates = (0.003, 0.01, 0.03, 0.1)
    found = [sinusoids.best_inner_lr(MAML, params, batch, rates, steps) for steps in (1, 30)]
    curves = torch.stack([sinusoids.curve(MAML, params, batch, inner_lr=r, steps=30).mean((0, 1)) for r in rates])
    assert found == [rates[int(curves[:, steps].nan_to_num(math.inf).argmin())] for steps in (1, 30)]
    assert found[0] != found[1]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_detached_inner_graph_changes_the_gradient_and_not_the_loss(steps):
    net = sinusoids.network(0).double()
    params = dict(net.named_parameters())
    drawn = sinusoids.draw_waves(10, generator(1)).batch(10, 10, generator(2))
    batch = maml.TaskBatch(*(part.double() for part in drawn.parts))
    options = {"inner_lr": 0.01, "steps": steps}
    right, detached = (
        maml.meta_gradient(net, params, batch, second_order=second_order, **options) for second_order in (True, False)
    )
    assert torch.allclose(right.loss, detached.loss, rtol=1e-12)
    a, b = (torch.cat([g.flatten() for g in found.params.values()]) for found in (right, detached))
    assert torch.cosine_similarity(a, b, dim=0) < 0.999


# The figures


@pytest.fixture(scope="module")
def starts():
    params, _ = sinusoids.train_starts(MAML, (0,), 100)
    pretrained, _ = sinusoids.train_starts(PRETRAINED, (0,), 100)
    return {"MAML": (MAML, sinusoids.select(params, 0)), "pretrained": (PRETRAINED, sinusoids.select(pretrained, 0))}


def test_the_fits_are_described_and_each_panel_names_its_error(starts):
    waves = sinusoids.draw_waves(3, generator(15))
    two = {name: starts[name] for name in ("MAML", "pretrained")}
    picture = views.fits_picture(two, waves, "Title", steps=2)
    assert isinstance(picture, Picture) and picture.png().startswith(b"\x89PNG")
    assert "Rows: MAML, pretrained" in picture.alt and "after 2 steps" in picture.alt and "0." not in picture.alt
    support = waves.batch(10, 1, generator(0))
    for axes, (name, (method, params)) in zip(picture.figure.axes[::3], two.items()):
        fast = maml.inner_loop(
            sinusoids.network(), params, support.support_x[0], support.support_y[0], inner_lr=method.inner_lr, steps=2
        )
        error = maml.mse(views.outputs(fast, views.GRID), waves(views.GRID)[0]).item()
        assert axes.get_title("left") == f"{name}: error {error:.2f}" and axes.get_xlabel() == "x"


def test_the_fits_say_so_when_the_steps_diverge(starts):
    wild = {"wild": (MetaMethod("wild", inner_lr=1e3), starts["MAML"][1])}
    with pytest.raises(TrainingDiverged, match="wild leaves the finite numbers at step"):
        views.fits_picture(wild, Waves(torch.tensor([5.0]), torch.tensor([1.0])), "Title", steps=50)


def test_errors_are_drawn_on_a_logarithmic_axis_with_the_live_run_as_a_ring():
    results = {"MAML": {1: [0.1, 1.0, 10.0], 10: [0.01, 0.01, 0.01]}, "pretrained": {1: [2.0] * 3, 10: [1.0] * 3}}
    picture = views.errors_picture(results, title="Title", live={"MAML": (1, 0.456)})
    [axes] = picture.figure.axes
    assert list(axes.lines[0].get_ydata()) == pytest.approx([0.0, -2.0])
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["0.01", "0.02", "0.05"]
    assert "MAML: 1.00 at 1, 0.01 at 10; pretrained: 2.00 at 1" in picture.alt
    assert "your runs, MAML" in picture.alt and "0.46" not in picture.alt
    with pytest.raises(CourseError):
        views.errors_picture({}, title="Title")


def test_training_and_times_say_what_they_show_and_no_numbers():
    falling, level = [3.0] * 25 + [2.0] * 25, [3.0] * 50
    picture = views.training_picture(falling, "It falls")
    assert picture.alt.endswith("It falls.") and list(picture.figure.axes[0].lines[0].get_ydata()) == [3.0, 2.0]
    assert "does not fall" in views.training_picture(level, "It falls").alt
    assert views.times_picture({"loop": 25.0, "vmap": 5.0}, "Faster").alt.endswith("loop, vmap. Faster.")
    assert "busy" in views.times_picture({"loop": 5.0, "vmap": 5.0}, "Faster").alt
    assert "busy" not in views.times_picture({"second": 3.0, "first": 2.0}, "Dearer", factor=1).alt
    for nothing in (lambda: views.training_picture([], "It falls"), lambda: views.times_picture({}, "Faster")):
        with pytest.raises(CourseError):
            nothing()


def test_the_mean_picture_checks_what_it_says():
    waves = sinusoids.draw_waves(3, generator(16))
    untrained = dict(sinusoids.network(0).named_parameters())
    assert "does not follow" in views.mean_picture(untrained, waves).alt
    learned, _ = sinusoids.train_starts(PRETRAINED, (0,), 400)
    picture = views.mean_picture(sinusoids.select(learned, 0), waves)
    assert "network follows" in picture.alt and "learns their mean" in picture.figure.axes[0].get_title("left")


def test_reptile_and_fomaml_differ_from_maml_only_as_they_should():
    assert FOMAML == MetaMethod("FOMAML", second_order=False) and not MAML.reptile and REPTILE.reptile
    assert ANIL.adaptable == HEAD and PRETRAINED.steps == 0 and MAML.second_order
