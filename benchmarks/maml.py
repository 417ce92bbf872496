"""How long one meta-step takes beside learn2learn's, how both grow, what they keep in memory, and tracing.

Run: python benchmarks/maml.py [rounds] [--no-compile]
Both do the same work, a meta-gradient and an Adam step on the same network and tasks, and take turns in every
round. Their gradients are compared first. "traced" is ours with `TracedMetaGradient`; what its first call costs is said
apart. `higher` joins where it is installed. Times are the processor's, with one thread, and the lowest of all rounds:
other work on the machine can only add. On an idle machine they are the clock's. Memory is the most that the step's
tensors hold at one time, counted by PyTorch's profiler at every allocation, beyond what was held before the step.
"""

from __future__ import annotations

import argparse
import math
import os
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from rapidadapt_lessons.meta import maml
from rapidadapt_lessons.meta.maml import TaskBatch, mse
from rapidadapt_lessons.meta.traced import TracedMetaGradient
from rapidadapt_lessons.setup import learn2learn

INNER_LR = 0.01
OWN = ("ours", "traced")  # the plain meta-gradient, and its operations replayed
Step = Callable[[], torch.Tensor]


def network(width: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
    )  # Finn et al. 2017, section 5.1, with width 40


def sinusoids(tasks: int, shots: int) -> TaskBatch:
    draw = torch.Generator().manual_seed(0)
    amplitude = 0.1 + 4.9 * torch.rand(tasks, 1, 1, generator=draw)
    phase = math.pi * torch.rand(tasks, 1, 1, generator=draw)
    x = 10 * torch.rand(tasks, 2 * shots, 1, generator=draw) - 5
    y = amplitude * torch.sin(x - phase)
    return TaskBatch(x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:])


def our_step(net: nn.Module, batch: TaskBatch, steps: int, second_order: bool = True, **gradient) -> Step:
    params = dict(net.named_parameters())
    optimizer = torch.optim.Adam(params.values(), 1e-3, fused=True)
    options = {"inner_lr": INNER_LR, "steps": steps, "second_order": second_order} | gradient
    return lambda: maml.meta_step(net, params, batch, optimizer, **options)


def traced_step(*given, **options) -> Step:
    return our_step(*given, **options, gradient=TracedMetaGradient())


def learn2learn_step(net: nn.Module, batch: TaskBatch, steps: int, second_order: bool = True) -> Step:
    """As learn2learn's own examples do it: clone, adapt, add up the query losses, one backward pass, one step."""
    learner = learn2learn.import_maml()(net, lr=INNER_LR, first_order=not second_order)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        total = 0.0
        for i in range(len(batch)):
            clone = learner.clone()
            for _ in range(steps):
                clone.adapt(mse(clone(batch.support_x[i]), batch.support_y[i]))
            total = total + mse(clone(batch.query_x[i]), batch.query_y[i])
        value = total / len(batch)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def higher_step(net: nn.Module, batch: TaskBatch, steps: int, second_order: bool = True) -> Step:
    import higher

    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    inner = torch.optim.SGD(net.parameters(), lr=INNER_LR)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        total = 0.0
        for i in range(len(batch)):
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False, track_higher_grads=second_order) as (
                f,
                o,
            ):
                for _ in range(steps):
                    o.step(mse(f(batch.support_x[i]), batch.support_y[i]))
                total = total + mse(f(batch.query_x[i]), batch.query_y[i])
        value = total / len(batch)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def implementations() -> dict[str, Callable[..., Step]]:
    found = {"ours": our_step, "traced": traced_step, "learn2learn": learn2learn_step}
    try:
        import higher  # noqa: F401
    except ImportError as error:
        print(f"higher: not measured ({error})")
    else:
        found["higher"] = higher_step
    return found


def times(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Return each step's lowest seconds; in every round each runs once, in turn. Two rounds warm up."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            taken[name].append(time.process_time() - start)
    return {name: min(values[2:]) for name, values in taken.items()}


def peak_bytes(step: Step) -> int:
    """Return the most bytes that the step's tensors held at one time, beyond what was held before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        highest = max(highest, held)
    return highest


def check_same_work(makers: dict[str, Callable[..., Step]]) -> None:
    """Run one step of each from the same start, and stop unless they end at the same parameters."""
    ends = {}
    for name, maker in makers.items():
        net = network(40)
        value = maker(net, sinusoids(25, 10), 1)()
        ends[name] = torch.cat([value.view(1), *(p.grad.flatten() for p in net.parameters())])
    for name, end in ends.items():
        if name == "ours":
            continue
        gap = ((end - ends["ours"]).norm() / ends["ours"].norm()).item()
        print(f"same work: the meta-gradients of ours and {name} differ by {gap:.1e} of their length")
        if gap > 1e-5:
            raise SystemExit(f"{name} does not do the same work")


def table(title: str, rows: dict[str, dict], makers: dict[str, Callable[..., Step]], rounds: int) -> None:
    print(f"\n{title}")
    ratios = [(other, own) for other in makers if other not in OWN for own in OWN]
    head = [f"{n} ms" for n in makers] + [f"{a} / {b}" for a, b in ratios] + [f"{n} peak kB" for n in makers]
    print(f"{'':<22}" + "".join(f"{h:>23}" for h in head))
    for label, row in rows.items():
        batch = sinusoids(row.get("tasks", 25), 10)
        options = (row.get("steps", 1), row.get("second_order", True))
        steps = {name: maker(network(row.get("width", 40)), batch, *options) for name, maker in makers.items()}
        took = times(steps, rounds)
        memory = [peak_bytes(steps[name]) / 1e3 for name in makers]
        cells = [f"{took[n] * 1e3:.2f}" for n in makers] + [f"{took[a] / took[b]:.1f}" for a, b in ratios]
        cells += [f"{m:.0f}" for m in memory]
        print(f"{label:<22}" + "".join(f"{cell:>23}" for cell in cells), flush=True)


def compiled(rounds: int, with_compiler: bool) -> None:
    """Time our meta-gradient traced, and through torch.compile, beside the plain one, or say why it did not run."""
    print("\nthe meta-gradient alone, 25 tasks, 10 shots, 1 step, beside the plain one")
    net, batch = network(40), sinusoids(25, 10)
    params = {name: p.detach() for name, p in net.named_parameters()}
    gradient = torch.func.grad(lambda p: maml.meta_loss(net, p, batch, inner_lr=INNER_LR))
    traced = TracedMetaGradient()
    plain = lambda: maml.meta_gradient(net, params, batch, inner_lr=INNER_LR).params  # noqa: E731
    fast = {"traced": lambda: traced(net, params, batch, inner_lr=INNER_LR).params}
    for backend in ("aot_eager", "inductor") if with_compiler else ():
        fast[backend] = partial(torch.compile(gradient, backend=backend), params)
    for name, run in fast.items():
        try:
            start, expected = time.process_time(), plain()
            gap = max((found - expected[n]).abs().max().item() for n, found in run().items())
            first = time.process_time() - start
        except Exception as error:
            print(f"  {name}: does not run: {type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
            continue
        took = times({"plain": plain, name: run}, rounds)
        break_even = first / max(took["plain"] - took[name], 1e-9)
        ratio = took["plain"] / took[name]
        pays = f"pays after {break_even:.0f} steps" if ratio > 1 else "does not pay"
        print(f"  {name}: {ratio:.1f} times as fast, largest difference {gap:.1e}; first call {first:.1f} s, {pays}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=30)
    parser.add_argument("--no-compile", action="store_true")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    torch.set_num_threads(1)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes a line at each start and stop
    compiled(chosen.rounds, not chosen.no_compile)  # first, while nothing is warm
    makers = implementations()
    check_same_work(makers)
    table(
        "25 tasks, 10 shots, 1 step, width 40",
        {"second order": {}, "first order": {"second_order": False}},
        makers,
        chosen.rounds,
    )
    few = max(3, chosen.rounds // 3)
    table("by tasks", {f"{n} tasks": {"tasks": n} for n in (1, 5, 25, 100)}, makers, few)
    table("by inner steps", {f"{n} steps": {"steps": n} for n in (1, 2, 5, 10)}, makers, few)
    table("by width", {f"width {n}": {"width": n} for n in (10, 40, 160, 320)}, makers, few)


if __name__ == "__main__":
    main()
