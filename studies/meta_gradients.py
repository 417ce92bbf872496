"""The gradients of single tasks while a network learns to learn sinusoids: Nichol et al. (2018) on their alignment.

python studies/meta_gradients.py
"""

from __future__ import annotations

from runner import Study, main

MARKS = (0, 20, 50, 100, 200, 500, 1000)  # meta-steps
RATE, STEPS, OUTER_RATE = 0.01, 3, 0.005
METHODS = ("joint training", "Reptile", "first-order MAML", "MAML")


def gradients(net, params, batch, method: str, steps: int = STEPS):
    """Return a method's direction for each task of a batch alone, [tasks, parameters]."""
    import torch
    from torch.func import grad, vmap

    from rapidadapt_lessons.meta import maml

    def one_task(*parts):
        alone, ask = maml.TaskBatch(*(part[None] for part in parts)), {"inner_lr": RATE, "steps": steps}
        if method == "Reptile":
            return maml.reptile_gradient(net, params, alone, batch_size=10, **ask).params
        ask["second_order"] = method == "MAML"
        return grad(lambda theta: maml.meta_loss(net, theta, alone, **ask))(params)

    return torch.cat([part.flatten(1) for part in vmap(one_task)(*batch.parts).values()], dim=1).detach()


def measured(net, params, batch, method: str) -> dict[str, float]:
    """Return how well each task's two gradients agree, and during MAML how far its two approximations point from it."""
    import torch

    from rapidadapt_lessons.meta import maml

    angle = lambda a, b: torch.rad2deg(torch.cosine_similarity(a, b, dim=-1).clamp(-1, 1).arccos())  # noqa: E731
    swapped = maml.TaskBatch(batch.query_x, batch.query_y, batch.support_x, batch.support_y)
    query, support = (gradients(net, params, part, "MAML", steps=0) for part in (batch, swapped))
    losses = maml.adaptation_curve(net, params, batch, inner_lr=RATE, steps=STEPS).mean(0)
    found = {
        "cosine": torch.cosine_similarity(query, support, dim=-1).mean(),
        "inner product": (query * support).sum(-1).mean(),
        "loss before adapting": losses[0],
        "loss after 3 steps": losses[-1],
    }
    if method == "MAML":
        full, first, reptile = (gradients(net, params, batch, name) for name in ("MAML", "first-order MAML", "Reptile"))
        for name, other in {"first-order MAML": first, "Reptile": reptile}.items():
            found[f"{name}, angle per task"] = angle(full, other).mean()
            found[f"{name}, angle of the mean"] = angle(full.mean(0), other.mean(0))
        for name, vectors in {"gradient": full, "dropped term": full - first}.items():
            found[f"{name}, norm per task"] = vectors.norm(dim=-1).mean()
            found[f"{name}, norm of the mean"] = vectors.mean(0).norm()
    return {name: float(value) for name, value in found.items()}


def trained(method: str, seed: int) -> dict[str, float]:
    """Train Finn et al.'s network with Adam on 25 new tasks per step, and measure on 200 others on the way.

    At this outer rate joint training no longer changes after 200 steps; at a fifth of it the order of the methods is
    the same, and all comes later. The seed draws the network and all tasks, which are the same for every method. Each
    task has 10 + 10 points. Three inner steps at 0.01 on the support, or for Reptile on support, query and support
    again; joint training takes one step on all 20 points.
    """
    import torch

    from rapidadapt_lessons.meta import maml, sinusoids

    net, draw, other = sinusoids.network(seed), torch.Generator(), torch.Generator()
    draw.manual_seed(seed), other.manual_seed(10_000 + seed)
    params, test = dict(net.named_parameters()), sinusoids.draw_waves(200, other).batch(10, 10, other)
    optimizer, found = torch.optim.Adam(params.values(), lr=OUTER_RATE), {}
    for step in range(max(MARKS) + 1):
        if step in MARKS:
            at = {name: p.detach() for name, p in params.items()}
            found |= {f"{name}, {step} steps": value for name, value in measured(net, at, test, method).items()}
        batch = sinusoids.draw_waves(25, draw).batch(10, 10, draw)
        if method in ("MAML", "first-order MAML"):
            second = method == "MAML"
            maml.meta_step(net, params, batch, optimizer, inner_lr=RATE, steps=STEPS, second_order=second)
            continue
        how = {"steps": STEPS, "batch_size": 10} if method == "Reptile" else {"steps": 1}
        direction = maml.reptile_gradient(net, params, batch, inner_lr=RATE, **how)
        for name, p in params.items():
            p.grad = direction.params[name]
        optimizer.step()
    return found


STUDY = Study(
    name="meta_gradients",
    question="Do MAML and Reptile make a task's gradients agree, and how far do the approximations point from MAML's?",
    run=trained,
    settings=[{"method": method} for method in METHODS],
    seconds=8,
    # A thousand steps: rounding differs from one processor to the next, and grows. Most numbers are degrees.
    tolerance={"": 20.0}
    | {f"cosine, {m} steps": 0.1 for m in MARKS}
    | {f"inner product, {m} steps": 300 for m in MARKS},
    seeds=10,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
