"""The checks of the exercises on scaling out (lesson 7)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
import torch
from torch import Tensor
from ...scaling import cost_model
from ...scaling import processes as scaling
from ..compare import Nothing, Rest, Test, Wrong, alike, normal, require, require_kept, require_same, show

Learner = Callable[..., Any]
Gradient = dict[str, Tensor]


# The mean over a team


def _mean_is(f: Learner, gradients: list[Gradient], counts: list[int], call: str, otherwise: str) -> None:
    def added(*weights: float) -> Gradient:
        return {name: sum(w * g[name] for w, g in zip(weights, gradients)) for name in gradients[0]}

    n, total = len(counts), sum(counts)
    slips = [
        (
            added(*[1 / n] * n),
            "that is the mean of the means: every process has the same say. Every token should: weigh by the counts.",
        ),
        (added(*counts), "the weighted sum is not divided yet: divide by the number of all counted tokens."),
        (added(*[1] * n), "the gradients are added as they are: each is a mean over its own tokens, so weigh it."),
        (
            added(*(c / n for c in counts)),
            "that is divided by the number of processes: divide by the number of all counted tokens.",
        ),
        (added(*(c / total / n for c in counts)), "it is divided twice: the weights add up to 1 already."),
        (added(*(1 / c if c else 0 for c in counts)), "the weight is upside down: more tokens, more weight."),
        (added(*((total - c) / total for c in counts)), "each weight is the share of the *others'* tokens."),
        (added(*(c / max(counts) for c in counts)), "divided by the largest count: divide by the sum of the counts."),
        (gradients[0], "that is the first process's gradient alone: all of them belong in."),
    ]
    came = f([{name: value.clone() for name, value in g.items()} for g in gradients], list(counts))
    require_same(came, scaling.weighted_mean_gradient(gradients, counts), call, slips, otherwise)


_WEIGHTS = "the weight of process k is its count over the sum of all counts, for every parameter alike."


def _verbs_and_text(f: Learner) -> None:
    gradients, counts = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 2.0])}], [8, 252]
    call = f"mean_over_team({show(gradients)}, {counts})"
    _mean_is(f, gradients, counts, call, "8 of the 260 tokens say [1, 0], and 252 say [3, 2].")


def _gradients(n: int, seed: int) -> list[Gradient]:
    return [{"A": normal(2, 3, seed=seed + k), "B": normal(3, seed=seed + 50 + k)} for k in range(n)]


def _three_processes(f: Learner) -> None:
    counts = [5, 20, 11]
    _mean_is(f, _gradients(3, 1), counts, f"mean_over_team(gradients, {counts}), two parameters each", _WEIGHTS)


def _one_without_tokens(f: Learner) -> None:
    gradients, counts = _gradients(3, 11), [4, 0, 9]
    gradients[1] = {name: torch.zeros_like(value) for name, value in gradients[1].items()}
    call = f"mean_over_team(gradients, {counts}), where process 1 had nothing to count and its gradient is zeros"
    _mean_is(f, gradients, counts, call, _WEIGHTS)


def _one_process_with_all(f: Learner) -> None:
    """Each token's loss is a bowl, 1/2 (theta - c)^2: its gradient is theta - c, in one process or in several."""
    theta, centres, counts = torch.tensor([0.5, -1.0]), normal(10, 2, seed=21), [1, 7, 2]
    own = [{"theta": theta - part.mean(dim=0)} for part in centres.split(counts)]
    call = f"mean_over_team(gradients, {counts}), against the gradient of one process that has all ten tokens"
    came = f(own, list(counts))
    require_same(came, {"theta": theta - centres.mean(dim=0)}, call, [], _WEIGHTS)


def _gradients_kept(f: Learner) -> None:
    given, counts = _gradients(2, 31), [3, 5]
    after = [{name: value.clone() for name, value in g.items()} for g in given]
    f(after, counts)
    for k, gradient in enumerate(given):
        before = {f"gradients[{k}]['{name}']": value for name, value in gradient.items()}
        now = {f"gradients[{k}]['{name}']": value for name, value in after[k].items()}
        why = "`+=` or `*=` changed a process's own gradient in place. Make a new tensor."
        require_kept(before, now, "mean_over_team(gradients, [3, 5])", why)


# A process's share


def _shares(f: Learner, rows: list[Any], processes: int) -> tuple[list[list[Any]], str]:
    """Return what each process takes, and how that was asked."""
    shares, what = [], show(rows, 120) if len(rows) <= 12 else f"{len(rows)} rows"
    for rank in range(processes):
        call, given = f"my_share(rows, rank={rank}, processes={processes}) with rows = {what}", list(rows)
        came = f(given, rank, processes)
        if came is None:
            raise Nothing(call, "some of the rows, as a list", "None", "does the function end with `return`?")
        is_list = isinstance(came, Sequence) and not isinstance(came, str)
        why = "give back the rows themselves, as a list; an empty one where there are none left to take."
        require(is_list, call, "some of the rows, as a list", show(came), why)
        require(given == rows, call, "rows left as they were", show(given), "the caller's list was changed.")
        shares.append(list(came))
    return shares, f"my_share(rows, rank, {processes}) for every rank, with rows = {what}"


def _divides(f: Learner, rows: list[Any], processes: int) -> None:
    shares, call = _shares(f, rows, processes)
    n, k, came = len(rows), len(rows) // processes, show(shares, 200)
    taken = [row for share in shares for row in share]
    expected = f"each of the {n} rows taken exactly once, shares of {k}" + (f" or {k + 1}" if n % processes else "")

    def stop(why: str) -> None:
        raise Wrong(call, expected, came, why)

    if any(row not in rows for row in taken):
        places = all(isinstance(row, int) for row in taken)
        stop("those are places: give back the rows that stand there." if places else "these are not among the rows.")
    extra, lost = len(taken) - n, any(taken.count(row) < rows.count(row) for row in rows)
    if processes > 1 and all(share == rows for share in shares):
        stop("every process takes all the rows: then each computes the whole update, and nothing is shared.")
    if processes > 1 and taken and all(share == shares[0] for share in shares):
        stop("every process takes the same rows. Which ones has to depend on the rank.")
    if processes > 1 and shares[0] == [] and lost:
        stop("process 0 takes nothing and some rows are left: ranks count from 0.")
    if lost and not any(taken.count(row) > rows.count(row) for row in rows):
        why = (
            f"the remainder is dropped: {n} rows do not divide by {processes}, and the rows left over are rows, too."
            if len(taken) == k * processes
            else "a row that nobody takes never counts. (Where two rows are equal, each of them counts.)"
        )
        stop(why)
    if lost:
        stop("some rows are taken twice and others by nobody: where one share ends, the next has to begin.")
    if extra > 0:
        padded = len({len(share) for share in shares}) == 1
        stop(
            "rows are repeated to make the shares equally long: a row taken twice counts double in the update."
            if padded
            else "a row is taken by two processes, and counts double in the update. Where does one share end, and the "
            "next begin?"
        )
    longest, shortest = max(map(len, shares)), min(map(len, shares))
    if longest - shortest > 1 and len(set(rows)) < n:
        stop("rows that are equal all go to one process. Go by places: `rows.index` finds the first of them each time.")
    if longest - shortest > 1:
        why = (
            "one process takes the whole remainder, and the others wait for it: give one row more to some of them."
            if shortest == k
            else "the shares are rounded up, so the last one is left with too little: let shares differ by one at most."
        )
        stop(why)


def _even_rows(f: Learner) -> None:
    _divides(f, list("abcdefgh"), 2)


def _uneven_rows(f: Learner) -> None:
    _divides(f, list("abcdefgh"), 3)


def _any_numbers(f: Learner) -> None:
    for n, processes in ((25, 2), (9, 4), (10, 4), (11, 4), (31, 8), (5, 1)):
        _divides(f, list(range(100, 100 + n)), processes)


def _too_few_rows(f: Learner) -> None:
    _divides(f, ["a", "b"], 4)


def _equal_rows(f: Learner) -> None:
    _divides(f, ["go", "go", "see", "be", "go"], 2)


# The ring


def _played(
    vectors: Sequence[Tensor],
    rounds: int,
    adding: Callable[[int], bool],
    place: Callable[[int, int], int],
    at_once: bool = False,
) -> list[Tensor]:
    """Return what the processes hold after a ring that goes wrong in one of the usual ways.

    Args:
        at_once: whether all messages of a round are taken out before the first one arrives.
    """
    n = len(vectors)
    pieces = [list(v.clone().tensor_split(n)) for v in vectors]
    for turn in range(rounds):
        before = [list(own) for own in pieces] if at_once else pieces
        for p in range(n):
            at = place(p, turn) % n
            following, message = pieces[(p + 1) % n], before[p][at]
            following[at] = following[at] + message if adding(turn) else message
    return [torch.cat(own) for own in pieces]


def _ring_slips(vectors: list[Tensor]) -> list[tuple[list[Tensor], str]]:
    n, total = len(vectors), torch.stack(vectors).sum(dim=0)

    def right(p: int, turn: int) -> int:
        return p - turn

    def one_for_all(p: int, turn: int) -> int:
        return turn

    def again(p: int, turn: int) -> int:
        return p - turn if turn < n - 1 else p - (turn - (n - 1))

    def played(rounds: int = 2 * (n - 1), adding: Any = lambda turn: turn < n - 1, place: Any = right, at_once=False):
        return _played(vectors, rounds, adding, place, at_once)

    halved = "after the first n - 1 rounds each process holds *one* finished piece. Send the finished ones round, too."
    twice = "in the last n - 1 rounds a finished piece replaces the neighbour's: adding it counts numbers twice."
    same = (
        "all send the same piece in a round, so no sum travels on. In round t, process p sends piece p - t (modulo n)."
    )
    second = "the second half begins with the wrong piece: process p has finished piece p + 1 (modulo n) by then."
    return [
        (played(rounds=n - 1), halved),
        (played(adding=lambda turn: True), twice),
        *((played(rounds=r, place=one_for_all, at_once=a), same) for r in (n - 1, 2 * (n - 1)) for a in (False, True)),
        (played(place=again), second),
        ([total / n] * n, "that is the mean: an all-reduce adds up, and whoever wants a mean divides afterwards."),
        (
            [total if p == 0 else vectors[p] for p in range(n)],
            "only process 0 has the sum. Every process needs it, to take the same step.",
        ),
        (vectors, "every process still has its own vector: nothing has been added."),
    ]


def _ring_is(f: Learner, vectors: list[Tensor], about: str) -> None:
    call = f"ring_all_reduce(vectors) with {about}"
    came = f([v.clone() for v in vectors])
    pair = "a pair: the list of sums, one of each process, and the list of bytes that each sent"
    if came is None:
        raise Nothing(call, pair, "None", "does the function end with `return sums, sent`?")
    require(isinstance(came, tuple | list) and len(came) == 2, call, pair, show(came), "end with `return sums, sent`.")
    sums, sent = came
    _sums_are(sums, vectors, call)
    _bytes_are(sent, scaling.ring_all_reduce(vectors)[1], vectors, call)


def _sums_are(sums: Any, vectors: list[Tensor], call: str) -> None:
    n, shape, right = len(vectors), vectors[0].shape, torch.stack(vectors).sum(dim=0)
    expected = f"{n} vectors, each {show(right, 120)}"
    if isinstance(sums, Tensor) and sums.shape == shape:
        raise Wrong(call, expected, show(sums, 120), "that is one sum: give back one for each process, in a list.")
    held = list(sums) if isinstance(sums, Tensor | Sequence) and not isinstance(sums, str) else []
    good = len(held) == n and all(isinstance(s, Tensor) and s.shape == shape for s in held)
    why = f"give back {n} tensors of {shape[0]} numbers each: `torch.cat` joins a process's pieces."
    require(good, call, expected, show(sums, 200), why)
    if alike(torch.stack(held), right.expand(n, -1)):
        return
    reasons = [why for slip, why in _ring_slips(vectors) if alike(torch.stack(held), torch.stack(slip))]
    otherwise = "follow one piece round the ring on paper: in which round is it complete, and who holds it then?"
    raise Wrong(call, expected, show(held, 200), reasons[0] if reasons else otherwise)


def _bytes_are(sent: Any, ours: list[int], vectors: list[Tensor], call: str) -> None:
    n, m, size = len(vectors), vectors[0].nbytes, vectors[0].element_size()
    sent = sent.tolist() if isinstance(sent, Tensor) else sent
    each = cost_model.ring_bytes(m, n)
    even = len(vectors[0]) % n == 0
    expected = f"each sends {each:g} bytes" if even else f"{sum(ours)} bytes in all, pieces differing by one number"
    good = isinstance(sent, Sequence) and not isinstance(sent, str) and len(sent) == n
    good = good and all(isinstance(s, int | float) for s in sent)
    if not good:
        raise Wrong(call, f"{n} numbers: {expected}", show(sent, 200), "give back the bytes, one number a process.")
    most = 2 * (n - 1) * size * -(-len(vectors[0]) // n)
    if alike(list(sent), ours) if even else sum(sent) == sum(ours) and max(sent) <= most:
        return
    raise Wrong(call, expected, show(list(sent), 200), _why_bytes(list(sent), n, m, size, each, ours))


def _why_bytes(sent: list[float], n: int, m: int, size: int, each: float, ours: list[int]) -> str:
    if n == 1:
        return "one process alone has the sum already, and sends nothing."
    if sent[0] and not any(sent[1:]) or sent[0] != m and all(s == m for s in sent[1:]):
        return (
            "everything goes to process 0, which becomes the bottleneck: n - 1 whole vectors reach it, and in a ring "
            "nobody sends as much as two. Let each process pass one piece to its neighbour in each round."
        )
    whole = "whole vectors go round: cut each into n pieces, and send one piece in a round."
    numbers = "those are numbers, not bytes: `message.nbytes` counts the bytes of what is sent."
    half = "only one half of the rounds is counted: finished pieces are sent as well."
    known = [
        (each / size, numbers),
        (4 * each / size, "a number has 8 bytes here, not 4: `message.nbytes` counts them."),
        (each / 2, half),
        ((n - 1) * m, whole),
        (2 * (n - 1) * m, whole),
        (2 * m, "that is a round too many in each half: after n - 1 rounds everything has arrived."),
        (m, "a process sends 2 (n - 1) pieces of m / n bytes, and not its vector once."),
    ]
    for value, why in known:
        if value != each and all(s == value for s in sent):
            return why
    if sum(sent) * size == sum(ours):
        return numbers
    if 2 * sum(sent) == sum(ours):
        return half
    return "each process sends one piece in each of 2 (n - 1) rounds: count its bytes as it is sent, for the sender."


def _by_hand(f: Learner) -> None:
    vectors = [torch.tensor([1.0, 2.0, 3.0, 4.0]) * 10**k for k in range(4)]
    _ring_is(f, vectors, "[1, 2, 3, 4], ten times that, a hundred and a thousand times: 16 bytes each")


def _normals(n: int, m: int, seed: int) -> list[Tensor]:
    return [normal(m, seed=seed + k) for k in range(n)]


def _equal_pieces(f: Learner) -> None:
    _ring_is(f, _normals(2, 6, 31), "2 processes, random vectors of 6 numbers, 24 bytes")
    _ring_is(f, _normals(3, 300, 41), "3 processes, random vectors of 300 numbers, 1200 bytes")


def _unequal_pieces(f: Learner) -> None:
    _ring_is(f, _normals(3, 7, 51), "3 processes, vectors of 7 numbers, 28 bytes")
    _ring_is(f, _normals(4, 2, 61), "4 processes, vectors of 2 numbers, so that two pieces are empty")


def _larger_numbers(f: Learner) -> None:
    _ring_is(f, [v.double() for v in _normals(5, 10, 71)], "5 processes, vectors of 10 numbers of 8 bytes each")


def _ring_of_one(f: Learner) -> None:
    _ring_is(f, _normals(1, 6, 81), "one process alone, which has nobody to send to")


def _vectors_kept(f: Learner) -> None:
    before = {f"vectors[{k}]": v for k, v in enumerate(_normals(3, 6, 91))}
    after = {name: v.clone() for name, v in before.items()}
    f(list(after.values()))
    why = "`tensor_split` gives views: `+=` on a piece changes the caller's vector. Clone it first."
    require_kept(before, after, "ring_all_reduce(vectors) with 3 processes", why)


# Bytes on paper

_PARTS = ("weights", "gradients", "optimiser")


def _paper(f: Learner, frozen: int, trained: int, bits: int, memory: float) -> tuple[dict[str, Any], str]:
    """Return what came, a dict with the right names, and how it was asked."""
    call = f"training_bytes_on_paper({frozen:_}, {trained:_}, {bits}, {memory:g})"
    came, names = f(frozen, trained, bits, memory), [*_PARTS, "gpus"]
    if came is None:
        raise Nothing(call, f"a dict with the names {names}", "None", "does the function end with `return`?")
    good = isinstance(came, Mapping) and set(came) == set(names)
    require(good, call, f"a dict with the names {names}", show(came), "give back all four under these names.")
    return dict(came), call


def _require_parts(
    came: dict[str, Any], frozen: int, trained: int, bits: int, right: dict[str, int], call: str
) -> None:
    size, count = bits // 8, frozen + trained
    kept = 8 if bits == 32 else 12
    every_weight = "frozen weights get none: only what is trained counts here."
    wide = f"the numbers have {bits} bits here, that is {size} bytes each."
    slips: dict[str, list[tuple[float, str]]] = {
        "weights": [
            (size * frozen, "the trained weights are weights, too: the forward pass needs all of them."),
            (size * trained, "the frozen weights have to be there as well: the forward pass needs all of them."),
            (bits * count, "those are bits: a byte has 8."),
            ((6 - size) * count, wide),
            (count, "that is how many numbers there are: how many bytes has each?"),
        ],
        "gradients": [
            (size * count, every_weight),
            (size * frozen, every_weight),
            (bits * trained, "those are bits: a byte has 8."),
            ((6 - size) * trained, f"a gradient is as wide as its weight: {wide}"),
            (trained, "that is how many numbers there are: how many bytes has each?"),
        ],
        "optimiser": [
            (kept * count, f"AdamW remembers nothing about frozen weights: {every_weight}"),
            (kept * frozen, f"AdamW remembers nothing about frozen weights: {every_weight}"),
            (
                4 * trained,
                "4 bytes are one average in 32 bits, or two in 16. AdamW keeps two, each in 32 bits, whatever the "
                "weights have.",
            ),
            (
                8 * trained,
                "in 16 bits it is 12 bytes: 4 for each of two averages, and 4 for a copy of the weight in 32 bits, "
                "since small steps would be rounded away in 16. Which is missing, or too small?",
            ),
            (12 * trained, "the copy is kept beside weights in 16 bits only. These have 32 bits themselves."),
            (16 * trained, "16 bytes a trained weight is all together: take its own and its gradient's out."),
            (6 * trained, "the averages and the copy are kept in 32 bits, whatever the weights have."),
        ],
    }
    rule = "weights: the bytes of a number for each. Gradients: the same for each trained one. AdamW: 8 for each "
    rule += "trained one, and in 16 bits 4 more for its copy."
    for name in _PARTS:
        require_same(came[name], right[name], f"{call}[{name!r}]", slips[name], rule)


def _shape_on_paper(f: Learner, shape: cost_model.Shape, method: str, bits: int = 16) -> None:
    trained = shape.trained_weights(method)
    frozen = 0 if method == cost_model.TRAIN_ALL else shape.weights
    came, call = _paper(f, frozen, trained, bits, cost_model.H100.memory)
    right = cost_model.step_memory(shape, 0, 0, method, bits=bits, each=0)  # no tokens: no activations
    _require_parts(came, frozen, trained, bits, {name: getattr(right, name) for name in _PARTS}, call)


def _all_weights(f: Learner) -> None:
    _shape_on_paper(f, cost_model.LLAMA_7B, cost_model.TRAIN_ALL)


def _with_lora(f: Learner) -> None:
    _shape_on_paper(f, cost_model.LLAMA_7B, cost_model.TRAIN_LORA)


def _gpus_are(f: Learner, frozen: int, trained: int, memory: float) -> int:
    """Return how many GPUs came, which is how many it takes: all three divided evenly among them, in 16 bits."""
    came, call = _paper(f, frozen, trained, 16, memory)
    total, weights = 16 * trained + 2 * frozen, 2 * (frozen + trained)
    right = -int(-total // memory)
    why_up = "round up: GPUs come whole, and what is left over needs one too. (`math.ceil`)"
    slips = [
        (total / memory, why_up),
        (total // memory, why_up),
        (round(total / memory), why_up),
        (total // memory + 1, "where it divides evenly, that is one too many: use `math.ceil`."),
        (min(8, right), "eight do not suffice here. The fewest that do are asked for, however many that is."),
        (8, "the fewest that suffice are asked for."),
        (1, "weights, gradients and optimiser together do not fit into one GPU."),
        (-int(-weights // memory), "the weights alone were divided: gradients and optimiser need room, too."),
        (-int(-(total - weights) // memory), "the weights were left out: they are divided, too."),
        (-int(-max(weights, 12 * trained) // memory), "the largest part alone was taken: add all three up."),
    ]
    rule = "add up weights, gradients and optimiser, divide by the memory of a GPU, and round up."
    require_same(came["gpus"], right, f"{call}['gpus']", slips, rule)
    return right


def _how_many_gpus(f: Learner) -> Rest:
    small, large, memory = cost_model.LLAMA_7B, cost_model.LLAMA_65B, cost_model.H100.memory
    # The largest first: there, most slips lead to numbers of their own.
    of_large = [_gpus_are(f, frozen, trained, memory) for frozen, trained in _both_ways(large)]
    of_small = [_gpus_are(f, frozen, trained, memory) for frozen, trained in _both_ways(small)]
    _gpus_are(f, 0, 10**9, 8e9)  # 16 GB: exactly two
    told = "7 billion take {} for all weights and {} for LoRA; 65 billion take {} and {}".format(*of_small, *of_large)
    return lambda: told


def _both_ways(shape: cost_model.Shape) -> list[tuple[int, int]]:
    """Return how many numbers are frozen and how many are trained: with all weights, and with LoRA of rank 8."""
    return [(0, shape.weights), (shape.weights, shape.lora_weights(8))]


@dataclass(frozen=True)
class _Counted:
    """SmolLM2 with LoRA of rank 8 in one step of AdamW: how many numbers it has, and their bytes, counted.

    Attributes:
        tensors: how many tensors are trained. AdamW keeps a counter of steps, one number of 4 bytes, for each.
    """

    frozen: int
    trained: int
    tensors: int
    bytes: dict[str, int]


@functools.cache
def _counted_on_smollm2() -> _Counted:
    from ...lora import layers as lora
    from ...training.cost import training_bytes
    from ...training.data import task_experience
    from ...lm.model import load_model
    from ...training.rows import collate, token_loss

    model, tokenizer = load_model(device="cpu")
    lora.inject(model, lora.LoRAConfig(rank=8))
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    batch = collate(task_experience(tokenizer, "past_tense", train=1, test=1).train)
    found = training_bytes(model, torch.optim.AdamW(trained), lambda: token_loss(model, batch))
    return _Counted(frozen, sum(p.numel() for p in trained), len(trained), found)


def _real_model(f: Learner) -> Rest:
    shape = cost_model.SMOLLM2_135M
    frozen, trained = shape.weights, shape.lora_weights(8)
    came, call = _paper(f, frozen, trained, 32, cost_model.H100.memory)

    def rest() -> str:
        real = _counted_on_smollm2()
        told = f"{frozen:,} frozen numbers and {trained:,} trained"
        why = "the shape in `cost_model` does not describe the model that is loaded here."
        require((real.frozen, real.trained) == (frozen, trained), "SmolLM2 with LoRA of rank 8", told,
                f"{real.frozen:,} and {real.trained:,}", why)  # fmt: skip
        counters = 4 * real.tensors
        right = {**real.bytes, "optimiser": real.bytes["optimiser"] - counters}
        _require_parts(came, frozen, trained, 32, right, f"{call}, counted on SmolLM2:")
        return (
            f"counted {real.bytes['gradients']:,} bytes of gradients, as on paper, and {real.bytes['optimiser']:,} of "
            f"optimiser, {counters} more: a counter of 4 bytes for each of {real.tensors} tensors"
        )

    return rest


CHECKS: dict[str, dict[str, Test]] = {
    "scaling.mean_over_team": {
        "8 tokens of verbs, 252 of text": _verbs_and_text,
        "three processes, two parameters": _three_processes,
        "a process that counted nothing": _one_without_tokens,
        "the gradient of one process with all tokens": _one_process_with_all,
        "the gradients are left as they were": _gradients_kept,
    },
    "scaling.my_share": {
        "eight rows, two processes": _even_rows,
        "eight rows, three processes": _uneven_rows,
        "other numbers of rows and processes": _any_numbers,
        "fewer rows than processes": _too_few_rows,
        "rows that are equal": _equal_rows,
    },
    "scaling.ring_all_reduce": {
        "four processes, four numbers each": _by_hand,
        "two and three processes, random numbers": _equal_pieces,
        "pieces that differ by a number": _unequal_pieces,
        "numbers of 8 bytes": _larger_numbers,
        "one process alone": _ring_of_one,
        "the vectors are left as they were": _vectors_kept,
    },
    "scaling.training_bytes_on_paper": {
        "LLaMA with 7 billion, all weights, in 16 bits": _all_weights,
        "LoRA of rank 8 on the same": _with_lora,
        "how many GPUs of 80 GB": _how_many_gpus,
        "the real SmolLM2 with LoRA of rank 8, in 32 bits": _real_model,
    },
}
