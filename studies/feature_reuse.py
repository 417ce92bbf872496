"""Which layers have to adapt? MAML's start on new sinusoids, with one layer adapted alone (Raghu et al. 2020).

python studies/feature_reuse.py
"""

from __future__ import annotations

from functools import cache

from runner import Study, main

SEEDS, ITERATIONS = 5, 3000
STEPS = range(11)
RATES = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15)
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of ridge regression
LAYERS = {"layer 1": ("0.weight", "0.bias"), "layer 2": ("2.weight", "2.bias"), "head": ("4.weight", "4.bias")}


@cache
def trained() -> dict:
    """Return MAML's starts of all seeds, trained side by side."""
    from rapidadapt_lessons.meta import sinusoids

    return sinusoids.train_starts(sinusoids.MAML, range(SEEDS), ITERATIONS)[0]


def layer_outputs(params: dict, depth: int, x):
    """Return the outputs of layer 1, 2 or 3, which is the head. x: [points, 1], or such of many tasks."""
    import torch

    for name in ("0", "2", "4")[:depth]:
        x = x @ params[f"{name}.weight"].mT + params[f"{name}.bias"]
        x = x if name == "4" else torch.relu(x)
    return x


def similarity(params: dict, batch, inner_lr: float, steps: int) -> dict[str, float]:
    """Return how alike each layer's outputs are before and after adapting: linear CKA over 200 inputs, mean of tasks.

    CKA (Kornblith et al. 2019) is 1 for outputs that are equal up to rotation, shift and scale.
    """
    from torch.func import vmap

    from rapidadapt_lessons.meta import maml, sinusoids
    from rapidadapt_lessons.meta.sinusoid_figures import GRID

    options = {"inner_lr": inner_lr, "steps": steps, "second_order": False}
    net, found = sinusoids.network(), {}
    adapt = lambda x, y: maml.inner_loop(net, params, x, y, **options)  # noqa: E731
    after = vmap(adapt)(batch.support_x, batch.support_y)
    for layer, depth in (("layer 1", 1), ("layer 2", 2), ("head", 3)):
        a, b = layer_outputs(params, depth, GRID), vmap(lambda own, d=depth: layer_outputs(own, d, GRID))(after)
        a, b = (one - one.mean(-2, keepdim=True) for one in (a, b))
        scale = [(one.mT @ one).square().sum((-2, -1)).sqrt() for one in (a, b)]
        found[layer] = float(((a.mT @ b).square().sum((-2, -1)) / (scale[0] * scale[1])).mean())
    return found


def solved_head(params: dict, batch, strength: float) -> float:
    """Return the query's error with the head that ridge regression finds, pulled towards the start's, not to zero."""
    import torch

    features = [layer_outputs(params, 2, x) for x in (batch.support_x, batch.query_x)]
    support, query = (torch.cat([one, torch.ones_like(one[..., :1])], -1) for one in features)
    start = torch.cat([params["4.weight"][0], params["4.bias"]])[:, None]
    square = support.mT @ support + strength * torch.eye(len(start))
    head = start + torch.linalg.solve(square, support.mT @ (batch.support_y - support @ start))
    return float((query @ head - batch.query_y).square().mean())


def adapted(layers: str, seed: int) -> dict[str, float]:
    """Adapt some layers of MAML's start to 600 new tasks of 10 points: the mean squared error on 50 others of each.

    The seed draws the network and all tasks. For each number of steps, the rate of adapting is the one that is best for
    that number on 300 tasks for validation. One that diverges is never the best.
    """
    import torch

    from rapidadapt_lessons.meta import sinusoids

    params = {name: p[seed : seed + 1] for name, p in trained().items()}
    one = sinusoids.select(params, 0)
    draw = torch.Generator().manual_seed(10_000 + seed)  # not the tasks of the training
    validation, test = (sinusoids.draw_waves(tasks, draw).batch(10, 50, draw) for tasks in (300, 600))

    def errors(batch) -> torch.Tensor:  # [rates, steps + 1]
        how = sinusoids.MetaMethod(layers, adaptable=LAYERS.get(layers))
        curves = [sinusoids.curve(how, params, batch, inner_lr=rate).mean((0, 1)) for rate in RATES]
        return torch.stack(curves).nan_to_num(torch.inf)

    tuned, found, told = errors(validation), errors(test), {}
    for steps in STEPS:
        best = int(tuned[:, steps].argmin())
        told |= {f"error after {steps}": float(found[best, steps]), f"rate for {steps}": RATES[best]}
        if layers == "all" and steps in (1, 10):
            alike = similarity(one, validation, RATES[best], steps)
            told |= {f"CKA of {layer} after {steps}": value for layer, value in alike.items()}
    if layers == "head":
        strength = min(STRENGTHS, key=lambda value: solved_head(one, validation, value))
        told |= {"error of the solved head": solved_head(one, test, strength), "strength": strength}
    return told


STUDY = Study(
    name="feature_reuse",
    question="Which layers of MAML's start have to adapt?",
    run=adapted,
    settings=[{"layers": layers} for layers in ("all", *LAYERS)],
    seconds=6,
    tolerance={"": 0.3},  # thousands of updates: rounding differs from one processor to the next, and grows
    seeds=SEEDS,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
