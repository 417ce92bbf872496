"""Methods that tell new classes apart from a few pictures of each, in this order: two baselines on pixels, prototypical
networks, a pretrained classifier that is fine-tuned, and MAML. The last two differ only in their start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CourseError
from . import maml
from .glyphs import FACES, SIZE, Glyphs, augment
from .task_batch import Params, TaskBatch

FEATURES = 64  # numbers that a picture is reduced to before it is classified
Draw = Callable[[torch.Generator], TaskBatch]


class Patches(nn.Module):
    """A convolution with LayerNorm and ReLU, written as a matrix product: [..., side, side, channels] to the same.

    With weights of each task's own, through `vmap`, it is several times faster than `nn.Conv2d`. Every stride-th pixel
    is the middle of a patch. LayerNorm, unlike BatchNorm, keeps nothing between tasks.
    """

    def __init__(self, channels: int, width: int, kernel: int, stride: int):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.linear = nn.Linear(kernel * kernel * channels, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        before, k, s = (self.kernel - 1) // 2, self.kernel, self.stride
        side = -(-x.shape[-2] // s)
        after = (side - 1) * s + k - before - x.shape[-2]
        x = F.pad(x, (0, 0, before, max(after, 0), before, max(after, 0)))
        reach = (side - 1) * s + 1
        patches = torch.cat([x[..., i : i + reach : s, j : j + reach : s, :] for i in range(k) for j in range(k)], -1)
        return self.norm(self.linear(patches)).relu()


class PatchNet(nn.Module):
    """Pictures [n, 1, SIZE, SIZE] to features [n, FEATURES] by three layers of `Patches`, then to [n, classes]."""

    def __init__(self, classes: int, *, width: int = 64, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Unflatten(-1, (SIZE, 1)),  # channels last
                Patches(1, width // 2, kernel=6, stride=4),  # 28 -> 7 pixels a side
                Patches(width // 2, width, kernel=3, stride=2),  # 7 -> 4
                Patches(width, width, kernel=3, stride=1),
                nn.Flatten(-4),
                nn.Linear(4 * 4 * width, FEATURES),
            )
            self.head = nn.Linear(FEATURES, classes)
        for p in self.head.parameters():
            nn.init.zeros_(p)  # all classes alike: the first step then moves each one's weights towards its features

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the share of examples whose largest logit is their class's: logits [n, classes], y [n]. A scalar."""
    return (logits.argmax(-1) == y).float().mean()


def nearest_neighbour(batch: TaskBatch) -> Tensor:
    """Give each query the class of the support picture nearest in pixels. Returns the tasks' accuracies, [tasks]."""
    distance = torch.cdist(batch.query_x.flatten(2), batch.support_x.flatten(2))  # [tasks, queries, supports]
    predicted = batch.support_y.gather(1, distance.argmin(-1))
    return (predicted == batch.query_y).float().mean(-1)


def nearest_class_mean(batch: TaskBatch) -> Tensor:
    """Give each query the class whose mean support picture is nearest in pixels. Returns as `nearest_neighbour`."""
    return proto_accuracy(nn.Flatten(), batch)


def prototypes(features: Tensor, y: Tensor, ways: int) -> Tensor:
    """Return each class's mean feature: c_k = mean of f(x) over the support of class k (Snell et al. 2017, eq. 1).

    features [tasks, supports, d] and y [tasks, supports] give [tasks, ways, d]. Raises CourseError for an empty class.
    """
    member = F.one_hot(y, ways).to(features.dtype)  # [tasks, supports, ways]
    count = member.sum(1)
    if (count == 0).any():
        raise CourseError("a class has no support, so it has no prototype.", "give every class at least one shot.")
    return member.transpose(1, 2) @ features / count[..., None]


def proto_logits(features: nn.Module, batch: TaskBatch) -> Tensor:
    """Return the logits of the classes, [tasks, queries, ways]: minus the squared distance of each query's feature to
    each prototype (Snell et al. 2017, eq. 2).
    """
    parts = (batch.support_x, batch.query_x)
    support, query = (features(x.flatten(0, 1)).unflatten(0, (len(batch), -1)) for x in parts)
    centres = prototypes(support, batch.support_y, int(batch.support_y.max()) + 1)
    return -(query[:, :, None] - centres[:, None]).square().sum(-1)


def proto_accuracy(features: nn.Module, batch: TaskBatch) -> Tensor:
    """Return the tasks' accuracies with prototypes, [tasks]."""
    with torch.no_grad():
        return (proto_logits(features, batch).argmax(-1) == batch.query_y).float().mean(-1)


def read_drawing(net: PatchNet, support: Tensor, query: Tensor) -> Tensor:
    """Return the probability that a drawing is each of some letters, [ways], from one drawing of each: the softmax of
    `proto_logits`, for a net that `train_protonet` has trained.

    support [ways, SIZE, SIZE] or [ways, 1, SIZE, SIZE] and query [SIZE, SIZE] or [1, SIZE, SIZE]: ink 1 on paper 0. For
    drawings by hand, call `glyphs.centred` on each first.
    """
    ways, shape = len(support), (1, -1, 1, SIZE, SIZE)
    batch = TaskBatch(
        support.reshape(shape), torch.arange(ways)[None], query.reshape(shape), torch.zeros(1, 1, dtype=torch.long)
    )
    with torch.no_grad():
        return proto_logits(net.features, batch)[0, 0].softmax(-1)


def train_protonet(net: PatchNet, draw: Draw, *, steps: int, lr: float, seed: int = 0) -> list[float]:
    """Train the features so that prototypes classify the query, on new tasks at every step. Returns the losses."""
    generator, losses = torch.Generator().manual_seed(seed), []
    for optimizer in _adam(net.features.parameters(), steps, lr):
        batch = draw(generator)
        logits = proto_logits(net.features, batch).flatten(0, 1)
        losses.append(_step(optimizer, F.cross_entropy(logits, batch.query_y.flatten())))
    return losses


def train_classifier(
    net: PatchNet, glyphs: Glyphs, *, steps: int, lr: float, seed: int = 0, batch_size: int = 128
) -> list[float]:
    """Train an ordinary classifier of all the letters, on `batch_size` warped pictures in random faces per step.

    Returns the losses. Raises CourseError where the net's head has not one output for each letter.
    """
    if net.head.out_features != len(glyphs):
        told = f"the head has {net.head.out_features} outputs, and there are {len(glyphs)} letters."
        raise CourseError(told, "build the net with PatchNet(len(glyphs)).")
    generator, losses = torch.Generator().manual_seed(seed), []
    for optimizer in _adam(net.parameters(), steps, lr):
        # a letter first, then one of its faces: a letter in twelve faces counts no more than one in two
        chosen = torch.randint(len(glyphs), (batch_size,), generator=generator)
        order = torch.rand(batch_size, len(FACES), generator=generator).masked_fill(~glyphs.drawn[chosen], -1)
        x = glyphs.images[chosen, order.argmax(-1)].float().div(255).view(-1, 1, SIZE, SIZE)
        losses.append(_step(optimizer, F.cross_entropy(net(augment(x, generator)), chosen)))
    return losses


def with_new_head(net: PatchNet, ways: int) -> tuple[PatchNet, Params]:
    """Return a net of `ways` classes and parameters for it: the given net's features, and a head of zeros."""
    fresh = PatchNet(ways, width=net.features[3].linear.out_features)
    params = dict(fresh.named_parameters()) | dict(net.features.named_parameters(prefix="features"))
    return fresh, {name: p.detach().clone() for name, p in params.items()}


def train_maml(net: PatchNet, draw: Draw, *, steps: int, inner_lr: float, lr: float, seed: int = 0) -> list[float]:
    """Train the net as an initialisation for one inner step; otherwise as `train_protonet`."""
    params, generator, losses = dict(net.named_parameters()), torch.Generator().manual_seed(seed), []
    for optimizer in _adam(params.values(), steps, lr):
        batch = draw(generator)
        losses.append(maml.meta_step(net, params, batch, optimizer, inner_lr=inner_lr, loss=F.cross_entropy).item())
    return losses


def adapted_accuracy(net: PatchNet, params: Params, batch: TaskBatch, *, inner_lr: float, steps: int) -> Tensor:
    """Return the tasks' accuracies after 0, 1, ..., `steps` gradient steps on the support, [tasks, steps + 1]."""
    options = {"loss": F.cross_entropy, "metric": accuracy, "chunk_size": 10}  # so many tasks in memory at once
    return maml.adaptation_curve(net, params, batch, inner_lr=inner_lr, steps=steps, **options)


def _adam(parameters: Iterable[Tensor], steps: int, lr: float) -> Iterator[torch.optim.Optimizer]:
    """Yield Adam once for each step; its rate falls to zero along half a cosine."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        yield optimizer
        schedule.step()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
