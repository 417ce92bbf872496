"""The two-parameter landscapes: their exact points are exact, their laws hold, and bad values are refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.meta import landscape, maml
from rapidadapt_lessons.meta import landscape_figures as views
from rapidadapt_lessons.meta.landscape import START_METHODS
from rapidadapt_lessons.show.widgets import render

ZERO = torch.zeros(2, dtype=torch.float64)


@pytest.fixture(scope="module")
def lines() -> landscape.Family:
    return landscape.line_family()


def points_of(family, inner_lr=0.15, steps=3):
    return {name: landscape.resting_point(family, name, inner_lr, steps) for name in START_METHODS}


def test_lines_are_drawn_as_told():
    family = landscape.line_family(tasks=30, shots=7, spread=2.0, noise=0.0)
    batch, slope = family.batch, family.truth[:, 1]
    assert batch.support_x.shape == batch.query_y.shape == (30, 7, 1)
    assert 0.8 <= slope.min() and slope.max() <= 3.2
    assert (batch.support_x[..., 0].abs() <= landscape.PAPER / slope[:, None]).all()
    for part in ("support", "query"):
        assert torch.allclose(landscape.task_optima(family, part), family.truth)
    again, other = landscape.line_family(30, 7, 2.0, noise=0.0), landscape.line_family(30, 7, 2.0, seed=1, noise=0.0)
    assert torch.equal(again.batch.query_y, batch.query_y) and not torch.equal(other.batch.query_y, batch.query_y)


def test_waves_pass_through_their_truth():
    family = landscape.wave_family(spread=1.0)
    assert family.truth[:, 1].abs().max() <= 1
    for task in range(len(family.batch)):
        part = family.batch.tasks(task, task + 1)
        assert maml.meta_loss(family.module, {"theta": family.truth[task]}, part, inner_lr=0, steps=0) < 1e-28


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("method", START_METHODS)
def test_nothing_moves_at_a_resting_point(lines, method, steps):
    point = landscape.resting_point(lines, method, 0.1, steps)
    at = landscape.direction(lines, method, 0.1, steps)
    assert at(point).norm() < 1e-12 < at(ZERO).norm()


def test_resting_points_of_losses_are_minima(lines):
    """No neighbour in 16 directions is lower: before adapting for the average task, after it for MAML."""
    turn = torch.linspace(0, 2 * math.pi, 17, dtype=torch.float64)[:16]
    ring = torch.stack([turn.cos(), turn.sin()], -1)
    for method, steps in (("average task", 0), ("MAML", 3)):
        point = landscape.resting_point(lines, method, 0.15, 3)
        lowest = landscape.loss_at(lines, point, 0.15, steps)
        assert (landscape.loss_at(lines, point + 0.01 * ring, 0.15, steps) > lowest).all()


@pytest.mark.parametrize("steps", [1, 3])
def test_resting_points_are_the_weighted_means_that_the_lesson_derives(lines, steps):
    """With A = (I - alpha H_s)^n: average task H_q, first order H_q A, MAML A H_q A."""
    alpha, eye = 0.15, torch.eye(2, dtype=torch.float64)
    h_s, h_q = (landscape.hessians(lines, ZERO, part) for part in ("support", "query"))
    t_s, t_q = (landscape.task_optima(lines, part) for part in ("support", "query"))
    a = torch.linalg.matrix_power(eye - alpha * h_s, steps)
    aims = torch.linalg.solve(a, t_q[..., None] - (eye - a) @ t_s[..., None])[..., 0]  # the start that ends at t_q
    points = points_of(lines, alpha, steps)
    for method, weights, targets in (
        ("average task", h_q, t_q),
        ("first-order MAML", h_q @ a, aims),
        ("MAML", a @ h_q @ a, aims),
    ):
        assert torch.allclose(landscape.weighted_mean(weights, targets), points[method], atol=1e-9), method


def test_maml_gives_up_loss_before_adapting_for_loss_after(lines):
    points = points_of(lines)
    before = {name: landscape.loss_at(lines, p, 0.15, 0).item() for name, p in points.items()}
    after = {name: landscape.loss_at(lines, p, 0.15, 3).item() for name, p in points.items()}
    assert before["average task"] == min(before.values()) and before["MAML"] == max(before.values())
    assert after["MAML"] == min(after.values()) and after["average task"] == max(after.values())


def test_alike_tasks_need_no_choice():
    """The more alike the tasks, the closer the two points."""
    gaps = []
    for spread in (1.0, 1.5, 3.0):
        points = points_of(landscape.line_family(spread=spread))
        gaps.append((points["MAML"] - points["average task"]).norm().item())
    assert gaps == sorted(gaps) and gaps[0] < 0.1 * gaps[-1]


def test_loss_at_is_meta_loss(lines):
    grid = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = landscape.loss_at(lines, grid, 0.1, 2)
    for i in range(2):
        for j in range(3):
            one = maml.meta_loss(lines.module, {"theta": grid[i, j]}, lines.batch, inner_lr=0.1, steps=2)
            assert torch.allclose(found[i, j], one, rtol=1e-12)


def test_hessians_of_lines_by_hand(lines):
    x = lines.batch.support_x[..., 0]
    by_hand = 2 * torch.stack([torch.ones_like(x).mean(1), x.mean(1), x.mean(1), x.square().mean(1)], -1).view(-1, 2, 2)
    assert torch.allclose(landscape.hessians(lines, ZERO), by_hand, rtol=1e-12)


def test_a_step_multiplies_the_distance_along_an_eigenvector(lines):
    """By 1 - alpha lambda, for each task's support and both of its eigenvectors; beyond alpha lambda = 2 it grows."""
    theta, optima = torch.tensor([-1.0, 2.0], dtype=torch.float64), landscape.task_optima(lines)
    for alpha in (0.15, 0.4):
        values, vectors = torch.linalg.eigh(landscape.hessians(lines, theta))
        x, y = lines.batch.support_x, lines.batch.support_y
        adapted = [maml.inner_loop(lines.module, {"theta": theta}, *one, inner_lr=alpha)["theta"] for one in zip(x, y)]
        before, after = (
            torch.einsum("tij,ti->tj", vectors, place - optima) for place in (theta, torch.stack(adapted).detach())
        )
        assert torch.allclose(after, (1 - alpha * values) * before, rtol=1e-9)
    assert (after.abs() > before.abs())[alpha * values > 2].all() and (alpha * values > 2).any()


@pytest.mark.parametrize("alpha", [0.1, 0.4])
def test_the_hessian_term_multiplies_the_gradient_by_what_the_step_leaves(lines, alpha):
    """Along each eigenvector of a support's Hessian: MAML's component is (1 - alpha lambda) times the first order's.

    Above alpha lambda = 1 the sign turns.
    """
    theta = torch.tensor([0.0, 1.5], dtype=torch.float64)
    for task, hessian in enumerate(landscape.hessians(lines, theta)):
        values, vectors = torch.linalg.eigh(hessian)
        alone = landscape.Family(lines.module, lines.batch.tasks(task, task + 1), lines.truth)
        full, first = (
            vectors.T @ landscape.direction(alone, name, alpha, 1)(theta) for name in ("MAML", "first-order MAML")
        )
        assert torch.allclose(full, (1 - alpha * values) * first, rtol=1e-9)


def swapped(family: landscape.Family) -> landscape.Family:
    """Return the same tasks with support and query in each other's place."""
    batch = family.batch
    return replace(family, batch=maml.TaskBatch(batch.query_x, batch.query_y, batch.support_x, batch.support_y))


def task_gradients(family: landscape.Family, theta: torch.Tensor) -> torch.Tensor:
    """Return the gradient of each task's query at theta, [tasks, 2], without adapting."""
    alone = (replace(family, batch=family.batch.tasks(i, i + 1)) for i in range(len(family.batch)))
    return torch.stack([landscape.direction(one, "average task", 0.1, 1)(theta) for one in alone])


WAVES = landscape.wave_family(spread=1.5)
PLACE = torch.tensor([0.8, 0.4], dtype=torch.float64)


def test_what_the_expansion_leaves_out_shrinks_as_alpha_squared():
    """J = L_q - alpha g_q . g_s + O(alpha^2), on waves, whose loss is no bowl: a tenth of alpha, a hundredth of it."""
    aligned = (task_gradients(WAVES, PLACE) * task_gradients(swapped(WAVES), PLACE)).sum(-1).mean()
    left_out = [
        landscape.loss_at(WAVES, PLACE, rate, 1) - (landscape.loss_at(WAVES, PLACE, rate, 0) - rate * aligned)
        for rate in (0.1, 0.01, 0.001)
    ]
    assert left_out[0] / left_out[1] == pytest.approx(100, rel=0.1)
    assert left_out[1] / left_out[2] == pytest.approx(100, rel=0.01)
    without = [landscape.loss_at(WAVES, PLACE, rate, 1) - landscape.loss_at(WAVES, PLACE, 0, 0) for rate in (0.1, 0.01)]
    assert without[0] / without[1] == pytest.approx(10, rel=0.2)  # so the test would see a wrong inner product


def test_first_order_keeps_half_of_the_pull_to_alignment():
    """Where support and query may change places, to first order in alpha (Nichol et al. 2018, section 5.1).

    MAML's pull is the gradient of -alpha g_q . g_s. Reptile's, of two steps on one part each, is the same as the first
    order's beside twice the gradient of the loss.
    """
    both, alpha = (WAVES, swapped(WAVES)), 1e-5
    at = {
        name: sum(landscape.direction(f, name, alpha, 1)(PLACE) for f in both) / 2
        for name in ("MAML", "first-order MAML")
    }
    plain = sum(task_gradients(family, PLACE).mean(0) for family in both) / 2
    pull = {name: (direction - plain) / alpha for name, direction in at.items()}
    nudge = 1e-5 * torch.eye(2, dtype=torch.float64)
    aligned = lambda theta: (task_gradients(WAVES, theta) * task_gradients(swapped(WAVES), theta)).sum(-1).mean()  # noqa: E731
    true = -torch.stack([(aligned(PLACE + e) - aligned(PLACE - e)) / 2e-5 for e in nudge])
    assert torch.allclose(pull["MAML"], true, rtol=1e-3)
    assert torch.allclose(pull["first-order MAML"], true / 2, rtol=1e-3)
    params = WAVES.params(PLACE)
    how = {"inner_lr": alpha, "steps": 2, "batch_size": WAVES.batch.support_x.shape[1]}
    moved = sum(maml.reptile_gradient(f.module, params, f.batch, **how).params["theta"] for f in both) / 2
    assert torch.allclose((moved / alpha - 2 * plain) / alpha, true / 2, rtol=1e-3)


def test_imaml_needs_no_path():
    """Adapt to the bottom of L + strength/2 |phi - theta|^2: then (I + H / strength)^-1 g, whatever path led there.

    For lines that bottom is exact, so autograd through its formula says the same.
    """
    lines, strength = landscape.line_family(tasks=1), 2.0
    h_s, h_q = (landscape.hessians(lines, ZERO, part)[0] for part in ("support", "query"))
    t_s, t_q = (landscape.task_optima(lines, part)[0] for part in ("support", "query"))
    eye, theta = torch.eye(2, dtype=torch.float64), torch.tensor([-1.0, 2.0], dtype=torch.float64, requires_grad=True)
    adapted = torch.linalg.solve(h_s + strength * eye, h_s @ t_s + strength * theta)
    (true,) = torch.autograd.grad(0.5 * (adapted - t_q) @ h_q @ (adapted - t_q), theta)
    g = (h_q @ (adapted - t_q)).detach()
    assert torch.allclose(torch.linalg.solve(eye + h_s / strength, g), true, rtol=1e-12)


def test_a_few_steps_are_a_prior_around_the_start():
    """n steps end where a Gaussian prior's most probable parameters are: its precision s h / (1 - s) along each
    eigenvector of curvature h, with s = (1 - alpha h)^n (Grant et al. 2018).
    """
    lines, alpha, steps = landscape.line_family(tasks=1), 0.1, 3
    theta, hessian, best = (
        torch.tensor([-1.0, 2.0]).double(),
        landscape.hessians(lines, ZERO)[0],
        landscape.task_optima(lines)[0],
    )
    values, vectors = torch.linalg.eigh(hessian)
    s = (1 - alpha * values) ** steps
    precision = vectors @ torch.diag(s * values / (1 - s)) @ vectors.T
    probable = torch.linalg.solve(hessian + precision, hessian @ best + precision @ theta)
    x, y = lines.batch.support_x[0], lines.batch.support_y[0]
    adapted = maml.inner_loop(lines.module, {"theta": theta}, x, y, inner_lr=alpha, steps=steps)["theta"]
    assert torch.allclose(probable, adapted, rtol=1e-9)


def test_descend_reaches_a_lines_resting_point(lines):
    path = landscape.descend(lines, "MAML", (0.0, 0.0), 0.15, 1, rate=0.5, updates=400)
    assert path.shape == (401, 2)
    assert torch.allclose(path[-1], landscape.resting_point(lines, "MAML", 0.15, 1), atol=1e-6)


def test_angles():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for degrees in (0.0, 1e-7, 30.0, 90.0, 179.0, 180.0):
        turn = math.radians(degrees)
        b = 5 * torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)
        assert landscape.angle(a, b) == pytest.approx(degrees, abs=1e-10)
    for bad in (torch.zeros(2), torch.tensor([math.nan, 1.0])):
        with pytest.raises(CourseError, match="no angle"):
            landscape.angle(a, bad)


@pytest.mark.parametrize("method", START_METHODS)
def test_weights_are_how_hard_a_method_pulls_towards_a_task(method):
    """For one task without noise, direction = weight * (theta - truth) along each curvature direction."""
    family = landscape.line_family(tasks=1, noise=0.0, seed=3)
    batch = family.batch
    batch = maml.TaskBatch(batch.support_x, batch.support_y, batch.support_x, batch.support_y)
    family = landscape.Family(family.module, batch, family.truth)
    values, vectors = torch.linalg.eigh(landscape.hessians(family, ZERO)[0])
    theta = family.truth[0] + vectors.sum(1)  # one unit away in both directions
    pull = vectors.T @ landscape.direction(family, method, 0.1, 2)(theta)
    assert torch.allclose(pull, landscape.weight(method, values, 0.1, 2), rtol=1e-9)


@pytest.mark.parametrize("values", [(0.15, 1, 3.0), (0.02, 5, 1.0), (0.25, 2, 2.0)])
def test_views_tell_what_they_draw(values):
    picture = views.line_landscape_view(*values)
    points = points_of(landscape.line_family(spread=values[2]), *values[:2])
    for name, point in points.items():
        assert f"{name} ({point[0]:.2f}, {point[1]:.2f})" in picture.alt
        after = landscape.loss_at(landscape.line_family(spread=values[2]), point, *values[:2]).item()
        assert f"{name} {after:.2f}" in picture.alt.partition("inner step")[2]
    for shown in (picture, views.weights_view(*values)):
        assert shown.png().startswith(b"\x89PNG")
        for axes in shown.figure.axes:
            assert axes.get_xlabel() and axes.get_ylabel()


@pytest.mark.parametrize("view", [views.line_landscape_view, views.weights_view])
@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"spread": 0.5}, {"spread": math.nan}, {"inner_lr": -1.0}, {"inner_lr": math.nan}]
)
def test_views_answer_bad_values_with_a_message(view, values):
    given = {"inner_lr": 0.15, "steps": 1, "spread": 3.0} | values
    with pytest.raises(CourseError):
        view(**given)
    assert "role='alert'" in render(view, **given)


def test_figures_of_the_lesson_tell_their_numbers(lines):
    steep = int(lines.truth[:, 1].argmax())
    told = views.tasks_picture(lines, [steep]).alt
    assert f"slope {lines.truth[steep, 1]:.1f}" in told
    theta = torch.tensor([0.0, 1.5], dtype=torch.float64)
    told = views.shrink_picture(lines, theta, 0.15).alt
    curvatures = torch.linalg.eigvalsh(landscape.hessians(lines, theta))
    assert f"{curvatures.max():.2f}" in told and f"{1 - 0.15 * curvatures.max():.2f}" in told
    assert "all on the line" in told


def test_a_landscape_tells_its_title(lines):
    points = {"MAML": torch.tensor([0.1, 1.0]).double()}
    shown = views.landscape_picture(lines, 0.15, 1, points, ((-1, 1), (0, 3)), title="The answer")
    assert shown.figure.get_suptitle() == "The answer" and shown.alt.startswith("The answer. Two contour maps")


def test_a_point_off_the_map_is_named_in_the_legend(lines):
    points = {"average task": torch.tensor([0.0, 1.0]), "MAML": torch.tensor([0.1, -3.0])}
    shown = views.landscape_picture(lines, 0.15, 1, {k: p.double() for k, p in points.items()}, ((-1, 1), (0, 3)))
    labels = [text.get_text() for text in shown.figure.legends[0].get_texts()]
    assert shown.figure.get_suptitle() == "" and shown.alt.startswith("Two contour maps")
    assert "average task" in labels and "MAML, off the map at (0.10, -3.00)" in labels


@pytest.mark.parametrize(("inner_lr", "marked"), [(0.25, True), (0.05, False)])
def test_the_curvature_that_one_step_solves_is_marked_where_it_is_on_the_axis(lines, inner_lr, marked):
    (axes,) = views.weights_picture(lines, inner_lr, 1).figure.axes
    places = [text.get_position()[0] for text in axes.texts if text.get_text() == "1/α"]
    assert places == ([1 / inner_lr] if marked else [])


def test_labels_keep_apart_and_in_order():
    placed = views._apart({"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.99}, 0.1)
    heights = [placed[name] for name in ("c", "d", "a", "b")]
    assert all(high - low > 0.099 for low, high in zip(heights, heights[1:]))
    assert heights[0] == 0.0 and sum(heights[1:]) == pytest.approx(2.99)


def test_a_wrong_factor_would_be_told(lines, monkeypatch):
    """The dots are measured: first-order gradients in MAML's place leave the line, and the text says so."""
    real = maml.meta_gradient
    monkeypatch.setattr(maml, "meta_gradient", lambda *a, **k: real(*a, **k | {"second_order": False}))
    theta = torch.tensor([0.0, 1.5], dtype=torch.float64)
    assert "off the line" in views.shrink_picture(lines, theta, 0.15).alt


@pytest.mark.parametrize(
    "work",
    [
        lambda: landscape.line_family(tasks=0),
        lambda: landscape.wave_family(shots=0),
        lambda: landscape.wave_family(spread=4.0),
        lambda: landscape.direction(landscape.line_family(), "SGD", 0.1, 1),
        lambda: landscape.resting_point(landscape.wave_family(), "MAML", 0.1, 1),
        lambda: landscape.resting_point(landscape.line_family(), "MAML", 1e300, 3),
        lambda: landscape.weight("SGD", ZERO, 0.1, 1),
    ],
)
def test_bad_values_are_refused(work):
    with pytest.raises(CourseError):
        work()
