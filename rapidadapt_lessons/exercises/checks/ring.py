"""The checks of the exercise in which a learner writes the ring all-reduce (lesson 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...scaling.cost_model import ring_bytes
from ...scaling.processes import ring_all_reduce
from ..compare import Learner, Nothing, Test, Wrong, alike, normal, require, require_kept, show


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
    _bytes_are(sent, ring_all_reduce(vectors)[1], vectors, call)


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
    each = ring_bytes(m, n)
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


RING_CHECKS: dict[str, Test] = {
    "four processes, four numbers each": _by_hand,
    "two and three processes, random numbers": _equal_pieces,
    "pieces that differ by a number": _unequal_pieces,
    "numbers of 8 bytes": _larger_numbers,
    "one process alone": _ring_of_one,
    "the vectors are left as they were": _vectors_kept,
}
