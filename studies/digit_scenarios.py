"""Three scenarios, six methods: digits learned two classes at a time (van de Ven, Tuytelaars and Tolias 2022).

python studies/digit_scenarios.py

Five experiences of an even and an odd digit, 200 updates of 32 rows each, so that each new pair is learned to the end:
"plasticity" shows it. The seed draws the network, the pairs and their order, the split and the order of the rows.

**Tuning.** Every method chooses its rate and its strength in each scenario by its mean "validation ACC" over the seeds:
the same training on three quarters of the training images, measured on the last quarter. All share two rates, those at
which fine-tuning learns each pair within 200 updates (on other seeds it did not at 3e-4, nor always at 1e-2); replay,
whose best lay at the upper end there, has 1e-2 as well. A strength of 0 stands for a method without one, a rate of 0
for the one that trains nothing.

**Budget.** A row counts each time that a training loss is computed on it. Each update sees at most 32 rows: replay's
are 16 new and 16 old ones, from a buffer of 50. So the network that is measured at the end has seen 28,800 rows with
replay and 32,000 with every other method that trains. Joint training starts afresh after each experience, with all rows
so far and 200 updates for each experience so far; what its earlier networks saw comes on top.
"""

from __future__ import annotations

from runner import Study, main

SCENARIOS = ("task-incremental", "domain-incremental", "class-incremental")
RATES = (1e-3, 3e-3)
GRID = {  # rates and strengths
    "fine-tuning": (RATES, (0.0,)),
    "EWC": (RATES, (1e2, 1e3, 1e4)),
    "LwF": (RATES, (0.1, 0.3, 1.0)),
    "replay": ((*RATES, 1e-2), (0.0,)),
    "nearest class mean": ((0.0,), (0.0,)),
    "joint": (RATES, (0.0,)),
}


def learned(scenario: str, method: str, lr: float, strength: float, seed: int) -> dict[str, float]:
    """Learn the five experiences twice: once to measure on the test images, once on images held back for choosing."""
    from rapidadapt_lessons.continual.digits import digit_network, split_digits
    from rapidadapt_lessons.continual.distillation import LwF
    from rapidadapt_lessons.continual.ewc import EWC
    from rapidadapt_lessons.continual.nearest_mean import NearestMean
    from rapidadapt_lessons.continual.replay import Replay
    from rapidadapt_lessons.continual.stream import Joint, Method, run_stream, validation_stream
    from rapidadapt_lessons.training.loop import TrainConfig

    make = {
        "fine-tuning": Method,
        "EWC": lambda: EWC(strength),
        "LwF": lambda: LwF(strength),
        "replay": lambda: Replay(50),
        "nearest class mean": NearestMean,
        "joint": Joint,
    }[method]
    config = TrainConfig(200, batch_size=16 if method == "replay" else 32, lr=lr or RATES[0], seed=seed)
    stream = split_digits(scenario, seed, shuffled=True)
    classes = 2 if scenario == "domain-incremental" else 10  # there, all experiences share a head of two outputs
    tested, validated = (
        run_stream(make(), digit_network(seed, classes=classes), s, config) for s in (stream, validation_stream(stream))
    )
    return {
        "ACC": tested.acc,
        "validation ACC": validated.acc,
        "plasticity": tested.plasticity,
        "forgetting": tested.forgetting,
    }


STUDY = Study(
    name="digit_scenarios",
    question="Which continual-learning method works in which of the three scenarios?",
    run=learned,
    settings=[
        {"scenario": scenario, "method": method, "lr": lr, "strength": strength}
        for scenario in SCENARIOS
        for method, (rates, strengths) in GRID.items()
        for lr in rates
        for strength in strengths
    ],
    seconds=2.5,
    tolerance={"": 0.05},  # a thousand updates enlarge what another processor rounds differently
    quick=True,
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
