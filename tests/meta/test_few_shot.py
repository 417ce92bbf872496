"""Few-shot classifiers: each against a value worked by hand, and against what it must not look at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.meta import few_shot, few_shot_figures, maml, maml_guards
from rapidadapt_lessons.meta.few_shot import Patches, PatchNet
from rapidadapt_lessons.meta.glyphs import SIZE, Glyphs, episodes, load_glyphs
from rapidadapt_lessons.meta.task_batch import TaskBatch


@pytest.fixture(scope="module")
def hebrew() -> Glyphs:
    return load_glyphs(["HEBREW"])


def draw(glyphs: Glyphs, tasks: int = 4, shots: int = 1, seed: int = 0) -> TaskBatch:
    return episodes(glyphs, 5, shots, tasks=tasks, generator=torch.Generator().manual_seed(seed), n_query=3)


@pytest.mark.parametrize("kernel, stride, side", [(3, 1, 4), (3, 2, 7), (6, 4, 28), (3, 2, 8)])
def test_patches_are_a_convolution(kernel, stride, side):
    torch.manual_seed(0)
    layer = Patches(2, 5, kernel, stride)
    x = torch.randn(3, side, side, 2)
    weight = layer.linear.weight.view(5, kernel, kernel, 2).permute(0, 3, 1, 2)
    before, out = (kernel - 1) // 2, -(-side // stride)
    after = max(0, (out - 1) * stride + kernel - before - side)
    padded = F.pad(x.permute(0, 3, 1, 2), (before, after, before, after))
    expected = F.conv2d(padded, weight, layer.linear.bias, stride)[..., :out, :out].permute(0, 2, 3, 1)
    assert torch.allclose(layer(x), layer.norm(expected).relu(), atol=1e-5)


def test_the_net_has_the_shapes_it_says_and_starts_with_all_classes_alike():
    net = PatchNet(7, width=16)
    x = torch.rand(2, 1, SIZE, SIZE)
    assert net.features(x).shape == (2, few_shot.FEATURES)
    assert torch.equal(net(x), torch.zeros(2, 7))
    maml_guards.check_module(net)


def test_the_seed_of_a_net_is_its_own():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = PatchNet(5, width=16), PatchNet(5, width=16), PatchNet(5, width=16, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.rand(1, 1, SIZE, SIZE)
    assert torch.equal(a.features(x), b.features(x)) and not torch.equal(a.features(x), c.features(x))


def test_nearest_neighbour_by_hand():
    support = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]])
    query = torch.tensor([[[1.0, 1.0], [9.0, 1.0], [6.0, 1.0], [1.0, 4.0]]])
    batch = TaskBatch(support, torch.tensor([[2, 0, 1]]), query, torch.tensor([[2, 0, 0, 1]]))
    assert few_shot.nearest_neighbour(batch).tolist() == [0.75]  # the last one lies nearer to (0, 0)


def test_nearest_class_mean_by_hand():
    support = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [5.0, 0.0]]])  # class 1's mean is 2, class 0's is 5
    batch = TaskBatch(support, torch.tensor([[1, 1, 0]]), torch.tensor([[[3.9, 0.0]]]), torch.tensor([[0]]))
    assert few_shot.nearest_class_mean(batch).tolist() == [1] and few_shot.nearest_neighbour(batch).tolist() == [0]


def test_prototypes_are_the_means_of_their_classes():
    features = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]])
    assert few_shot.prototypes(features, torch.tensor([[1, 1, 0]]), 2).tolist() == [[[0.0, 5.0], [2.0, 0.0]]]
    with pytest.raises(CourseError, match="no support"):
        few_shot.prototypes(features, torch.tensor([[1, 1, 1]]), 2)


def test_proto_logits_by_hand():
    batch = TaskBatch(
        torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]]), torch.tensor([[1, 1, 0]]),
        torch.tensor([[[2.0, 1.0], [0.0, 1.0]]]), torch.tensor([[1, 0]]),
    )  # fmt: skip
    assert few_shot.proto_logits(nn.Identity(), batch).tolist() == [[[-20.0, -1.0], [-16.0, -5.0]]]
    assert few_shot.proto_accuracy(nn.Identity(), batch).tolist() == [0.5]


def test_a_drawing_is_read_as_the_letter_it_repeats(hebrew):
    letters = hebrew.images[[0, 3, 5, 9, 12], 0].float() / 255
    net = PatchNet(5, width=16)
    found = few_shot.read_drawing(net, letters, letters[3])
    assert found.shape == (5,) and found.sum() == pytest.approx(1, abs=1e-5) and found.argmax() == 3
    assert torch.equal(few_shot.read_drawing(net, letters[:, None], letters[3, None]), found)
    batch = TaskBatch(letters[None, :, None], torch.arange(5)[None], letters[None, [3], None], torch.tensor([[3]]))
    assert torch.allclose(few_shot.proto_logits(net.features, batch)[0, 0].softmax(-1), found)


def test_a_querys_class_is_never_looked_at(hebrew):
    """Accuracies are judged against the query's classes, and nothing else may depend on them."""
    batch = draw(hebrew, tasks=2)
    wrong = replace(batch, query_y=(batch.query_y + 1) % 5)
    net = PatchNet(5, width=16)
    assert torch.equal(few_shot.proto_logits(net.features, batch), few_shot.proto_logits(net.features, wrong))
    params = {name: p.detach() for name, p in net.named_parameters()}
    ways = (
        few_shot.nearest_neighbour,
        few_shot.nearest_class_mean,
        lambda b: few_shot.proto_accuracy(net.features, b),
        lambda b: few_shot.adapted_accuracy(net, params, b, inner_lr=0.1, steps=2)[:, -1],
    )
    for judge in ways:
        assert (judge(batch) + judge(wrong) <= 1 + 1e-6).all() and judge(batch).mean() > judge(wrong).mean()


@pytest.mark.parametrize("train", [few_shot.train_protonet, None])
def test_training_learns_tells_its_losses_and_repeats(hebrew, train):
    results = []
    for _ in range(2):
        if train:
            net = PatchNet(5, width=16)
            losses = train(net, lambda g: episodes(hebrew, 5, 1, tasks=4, generator=g, n_query=3), steps=15, lr=3e-3)
        else:
            net = PatchNet(len(hebrew), width=16)
            losses = few_shot.train_classifier(net, hebrew, steps=25, lr=3e-3)
        results.append((losses, net.features(torch.ones(1, 1, SIZE, SIZE))))
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


def test_maml_training_takes_meta_steps_of_one_inner_step(hebrew):
    net, alone = PatchNet(5, width=16), PatchNet(5, width=16)
    tasks = lambda g: episodes(hebrew, 5, 1, tasks=4, generator=g, n_query=3)  # noqa: E731
    losses = few_shot.train_maml(net, tasks, steps=20, inner_lr=0.4, lr=3e-3)
    assert len(losses) == 20 and sum(losses[-5:]) < 0.95 * sum(losses[:5])
    batch, params = draw(hebrew), dict(alone.named_parameters())  # the first step's tasks
    value = maml.meta_loss(alone, params, batch, inner_lr=0.4, loss=F.cross_entropy).item()
    assert losses[0] == pytest.approx(value, rel=1e-5)


def test_a_new_head_keeps_the_features_and_forgets_the_classes(hebrew):
    net = PatchNet(len(hebrew), width=16, seed=3)
    few_shot.train_classifier(net, hebrew, steps=2, lr=1e-3)
    fresh, params = few_shot.with_new_head(net, 5)
    x = torch.rand(2, 1, SIZE, SIZE)
    assert torch.equal(torch.func.functional_call(fresh, params, (x,)), torch.zeros(2, 5))
    fresh.load_state_dict(params)
    assert torch.equal(fresh.features(x), net.features(x))
    params["features.1.linear.weight"].zero_()
    assert net.features[1].linear.weight.any()  # a copy


def test_accuracies_are_those_of_gradient_descent_on_the_support(hebrew):
    net, batch = PatchNet(5, width=16), draw(hebrew, tasks=2)
    found = few_shot.adapted_accuracy(net, dict(net.named_parameters()), batch, inner_lr=0.3, steps=3)
    assert found.shape == (2, 4) and torch.allclose(found[:, 0], torch.full((2,), 0.2))  # all classes alike: the first
    descent = torch.optim.SGD(net.parameters(), lr=0.3)
    for step in range(4):
        right = few_shot.accuracy(net(batch.query_x[1]), batch.query_y[1])
        assert torch.isclose(right, found[1, step])
        descent.zero_grad()
        F.cross_entropy(net(batch.support_x[1]), batch.support_y[1]).backward()
        descent.step()
    assert len(set(found[1, 1:].tolist())) == 3  # each step changes something


def test_a_head_that_does_not_fit(hebrew):
    with pytest.raises(CourseError, match=f"5 outputs, and there are {len(hebrew)} letters"):
        few_shot.train_classifier(PatchNet(5, width=16), hebrew, steps=1, lr=1e-3)


def test_one_step_from_a_head_of_zeros_points_at_the_class_means():
    """Lesson 7, section 7.3: as many shots of each class make row k of the head alpha / ways (c_k - mean of all)."""
    torch.manual_seed(0)
    features, y = torch.randn(15, 8), torch.arange(5).repeat_interleave(3)
    head = torch.zeros(5, 8, requires_grad=True)
    F.cross_entropy(features @ head.T, y).backward()
    centres = few_shot.prototypes(features[None], y[None], 5)[0]
    assert torch.allclose(-head.grad, (centres - centres.mean(0)) / 5, atol=1e-6)
    unit = F.normalize(centres, dim=-1)  # at equal lengths the nearest mean is the one with the largest dot product
    query = torch.randn(40, 8)
    assert torch.equal(torch.cdist(query, unit).argmin(1), (query @ (unit - unit.mean(0)).T).argmax(1))


def test_the_picture_of_what_is_read_says_what_is_in_it(hebrew):
    batch = draw(hebrew, tasks=2)
    picture = few_shot_figures.reading_picture(PatchNet(5, width=16), batch, title="One shot", each=2)
    grid = picture.figure.axes
    assert len(grid) == 6 * 11 and "below, 10 new pictures" in picture.alt and "of 10 rows" in picture.alt
    assert torch.allclose(1 - torch.as_tensor(grid[1].images[0].get_array()), batch.support_x[0, 0, 0], atol=1e-6)
    assert torch.allclose(1 - torch.as_tensor(grid[6 * 3].images[0].get_array()), batch.query_x[0, 3, 0], atol=1e-6)
    shares = [float(axes.images[0].get_array()[0][0]) for axes in grid[6 * 3 + 1 : 6 * 4]]
    found = few_shot.read_drawing(PatchNet(5, width=16), batch.support_x[0], batch.query_x[0, 3])
    assert shares == pytest.approx(found.tolist(), abs=1e-6)
    framed = [axes.spines["top"].get_visible() for axes in grid[6 * 3 + 1 : 6 * 4]]
    assert framed == [False, True, False, False, False]  # the third query is the first of the second letter


def test_the_map_puts_each_point_where_it_lies():
    centres = torch.tensor([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    features = torch.tensor([[0.5, 0.0, 9.0], [3.9, 0.0, 1.0], [3.0, 0.0, 1.0]])
    picture = few_shot_figures.prototype_map(features, torch.tensor([0, 1, 2]), centres, title="A plane")
    dots, star = picture.figure.axes[0].collections[:2]
    apart = torch.as_tensor(dots.get_offsets() - star.get_offsets())
    assert apart.norm().item() == pytest.approx(0.5, abs=1e-4)  # the third direction is not in the plane
    assert "3 new pictures of 3 letters" in picture.alt and "About 7 in 10 lie nearest" in picture.alt
