"""Few-shot letters of scripts that no method has seen: two baselines in pixels, and four methods that learn to read.

python studies/letters.py
"""

from __future__ import annotations

from functools import cache

from runner import Study, main

# 360 pictures in each training step: a batch of them, or by shots (ways, tasks, queries of each letter).
TASKS = {"MAML": {1: (5, 12, 5), 5: (5, 8, 4)}, "ProtoNet": {1: (20, 3, 5), 5: (20, 2, 4)}}
TRAINING_STEPS = 800
STEPS = {"MAML": (1, 2, 3, 5, 10), "fine-tuning": (1, 2, 5, 10, 20)}
RATES = {"MAML": (0.025, 0.05, 0.1, 0.2, 0.4), "fine-tuning": (0.003, 0.01, 0.03)}


@cache
def letters():
    from rapidadapt_lessons.meta import load_split

    return load_split()


@cache
def classifier(seed: int):
    from rapidadapt_lessons.meta import few_shot

    training = letters()[0]
    net = few_shot.PatchNet(len(training), width=32, seed=seed)
    few_shot.train_classifier(net, training, steps=TRAINING_STEPS, lr=3e-3, seed=seed, batch_size=360)
    return net


def read(method: str, shots: int, seed: int) -> dict[str, float]:
    """Train a method, and return its accuracy on 200 tasks of the test scripts, 25 queries each.

    ProtoNet and MAML are trained for the shots that they are tested with, ProtoNet with 20 ways (Snell et al. 2017).
    What can be chosen afterwards (rate and number of gradient steps; whether features are brought to length 1) is what
    does best on 40 tasks of the validation scripts. The seed draws the net, the training and the tasks; all methods
    get the same tasks.
    """
    import torch
    from torch.nn import functional as F

    from rapidadapt_lessons.meta import episodes, few_shot

    draw = torch.Generator().manual_seed(10_000 + seed)
    validation, test = (
        episodes(part, 5, shots, tasks=tasks, generator=draw, n_query=5)
        for part, tasks in zip(letters()[1:], (40, 200))
    )

    def training_tasks(generator):
        ways, tasks, queries = TASKS[method][shots]
        return episodes(letters()[0], ways, shots, tasks=tasks, generator=generator, n_query=queries)

    def adapted(batch, rate, steps):
        return few_shot.adapted_accuracy(net, params, batch, inner_lr=rate, steps=steps).mean(0).tolist()

    if "pixels" in method:
        judge = few_shot.nearest_neighbour if "neighbour" in method else few_shot.nearest_class_mean
        return {"validation accuracy": float(judge(validation).mean()), "accuracy": float(judge(test).mean())}
    net, options = few_shot.PatchNet(5, width=32, seed=seed), {"steps": TRAINING_STEPS, "lr": 3e-3, "seed": seed}
    if method == "ProtoNet":
        few_shot.train_protonet(net, training_tasks, **options)
        values = [float(few_shot.proto_accuracy(net.features, batch).mean()) for batch in (validation, test)]
        return dict(zip(("validation accuracy", "accuracy"), values))
    if method == "class mean, classifier's features":
        features = classifier(seed).features
        both = {0.0: features, 1.0: lambda x: F.normalize(features(x), dim=-1)}
        tried = {unit: float(few_shot.proto_accuracy(f, validation).mean()) for unit, f in both.items()}
        unit = max(tried, key=tried.get)
        found = float(few_shot.proto_accuracy(both[unit], test).mean())
        return {"validation accuracy": tried[unit], "accuracy": found, "length 1": unit}
    if method == "MAML":
        few_shot.train_maml(net, training_tasks, inner_lr=0.4, **options)
        params = {name: p.detach() for name, p in net.named_parameters()}
    else:
        net, params = few_shot.with_new_head(classifier(seed), 5)
    curves = {rate: adapted(validation, rate, max(STEPS[method])) for rate in RATES[method]}
    tried = {(rate, steps): curve[steps] for rate, curve in curves.items() for steps in STEPS[method]}
    rate, steps = max(tried, key=tried.get)
    found = adapted(test, rate, steps)[-1]
    return {"validation accuracy": tried[rate, steps], "accuracy": found, "rate": rate, "steps": steps}


METHODS = (
    "nearest neighbour in pixels", "class mean in pixels", "fine-tuning", "class mean, classifier's features",
    "ProtoNet", "MAML",
)  # fmt: skip

STUDY = Study(
    name="letters",
    question="Which way of learning to read does best on letters of scripts that it has never seen?",
    run=read,
    settings=[{"method": method, "shots": shots} for method in METHODS for shots in (1, 5)],
    seconds=30,
    tolerance={"": 0.05, "rate": 1.0, "steps": 20, "length 1": 1.0},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
