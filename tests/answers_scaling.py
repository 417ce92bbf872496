"""Answers to the exercises on scaling out: typical wrong ones, words their report must hold, and right ones."""

from __future__ import annotations

import math

import torch


def mean(weight):
    """Return a mean whose `weight` says what process k counts for, given the counts."""
    return lambda gradients, counts: {
        name: sum(weight(counts, k) * g[name] for k, g in enumerate(gradients)) for name in gradients[0]
    }


def mean_in_place(gradients, counts):
    total = gradients[0]
    for name in total:
        total[name] *= counts[0] / sum(counts)
        for n, g in zip(counts[1:], gradients[1:]):
            total[name] += n / sum(counts) * g[name]
    return total


def mean_of_stacks(gradients, counts):
    weights = torch.tensor(counts, dtype=torch.float32) / sum(counts)
    stacks = {name: torch.stack([g[name] for g in gradients]) for name in gradients[0]}
    return {name: torch.einsum("k,k...->...", weights, stack) for name, stack in stacks.items()}


def blocks(size):
    """Return shares one after another whose `size` is worked out from the rows' and the processes' numbers."""
    return lambda rows, rank, processes: rows[rank * size(rows, processes) : (rank + 1) * size(rows, processes)]


def whole(rows, processes):
    return len(rows) // processes


def rounded_up(rows, processes):
    return -(-len(rows) // processes)


def last_takes_the_rest(rows, rank, processes):
    k = len(rows) // processes
    return rows[rank * k :] if rank == processes - 1 else rows[rank * k : (rank + 1) * k]


def padded(rows, rank, processes):
    longer = [*rows, *rows[: -len(rows) % processes]]
    return longer[rank::processes]


def popped(rows, rank, processes):
    return [rows.pop(0) for _ in range(len(rows) * (rank + 1) // processes - len(rows) * rank // processes)]


def ring(
    place=lambda p, t, n: p - t,
    adding=lambda t, n: t < n - 1,
    rounds=lambda n: 2 * (n - 1),
    cost=lambda message: message.nbytes,
    clone=torch.clone,
    end=lambda sums, sent: (sums, sent),
):
    """Return an all-reduce in a ring, right but for what is handed over."""

    def all_reduce(vectors):
        n = len(vectors)
        pieces = [list(clone(v).tensor_split(n)) for v in vectors]
        sent = [0] * n
        for t in range(rounds(n)):
            for p in range(n):
                at, following = place(p, t, n) % n, pieces[(p + 1) % n]
                sent[p] += cost(pieces[p][at])
                following[at] = following[at] + pieces[p][at] if adding(t, n) else pieces[p][at]
        return end([torch.cat(own) for own in pieces], sent)

    return all_reduce


def by_sums(sent):
    """Return the right sums with bytes that are worked out from their number and the bytes of a vector."""
    return lambda vectors: ([sum(vectors)] * len(vectors), sent(len(vectors), vectors[0].nbytes))


def ring_in_place(vectors):
    n = len(vectors)
    pieces, sent = [list(v.tensor_split(n)) for v in vectors], [0] * n
    for t in range(2 * (n - 1)):
        for p in range(n):
            at, following = (p - t) % n, pieces[(p + 1) % n]
            sent[p] += pieces[p][at].nbytes
            if t < n - 1:
                following[at] += pieces[p][at]
            else:
                following[at] = pieces[p][at]
    return [torch.cat(own) for own in pieces], sent


def cut_to_equal_pieces(vectors):
    n, m = len(vectors), len(vectors[0])
    return ring()([v[: m // n * n] for v in vectors])


def ring_in_two_halves(vectors):
    """The same ring the other way round, with all of a round's messages taken out before the first one arrives."""
    n = len(vectors)
    pieces, sent = [[piece.clone() for piece in v.tensor_split(n)] for v in vectors], torch.zeros(n)
    for half in ("add", "replace"):
        for t in range(n - 1):
            places = [(p + t - (half == "replace")) % n for p in range(n)]
            messages = [pieces[p][places[p]].clone() for p in range(n)]
            for p in range(n):
                to, message = pieces[(p - 1) % n], messages[p]
                sent[p] += message.numel() * message.element_size()
                to[places[p]] = to[places[p]] + message if half == "add" else message
    return torch.stack([torch.cat(own) for own in pieces]), sent


def paper(weights=None, gradients=None, optimiser=None, gpus=None):
    """Return a right answer but for what is handed over: functions of frozen, trained and the bytes of a number."""

    def on_paper(frozen, trained, bits, memory):
        size = bits // 8
        found = {
            "weights": (weights or (lambda f, t, s: s * (f + t)))(frozen, trained, size),
            "gradients": (gradients or (lambda f, t, s: s * t))(frozen, trained, size),
            "optimiser": (optimiser or (lambda f, t, s: (8 if s == 4 else 12) * t))(frozen, trained, size),
        }
        count = gpus or (lambda found, memory: math.ceil(sum(found.values()) / memory))
        return {**found, "gpus": count(found, memory)}

    return on_paper


def sixteen_bytes(frozen, trained, bits, memory):
    """16 bytes for each trained weight, whatever the bits: what is no weight and no gradient is the optimiser's."""
    size = {16: 2, 32: 4}[bits]
    total = 16 * trained + size * frozen
    parts = {"gradients": size * trained, "weights": size * trained + size * frozen}
    return {**parts, "optimiser": total - sum(parts.values()), "gpus": int(-(-total // memory))}


WRONG = {
    "scaling.mean_over_team": {
        "the mean of the means": (mean(lambda c, k: 1 / len(c)), "mean of the means"),
        "a weighted sum": (mean(lambda c, k: c[k]), "not divided yet"),
        "a plain sum": (mean(lambda c, k: 1), "added as they are"),
        "over the processes": (mean(lambda c, k: c[k] / len(c)), "divided by the number of processes"),
        "twice": (mean(lambda c, k: c[k] / sum(c) / len(c)), "divided twice"),
        "upside down": (mean(lambda c, k: 1 / c[k] if c[k] else 0), "upside down"),
        "the others' share": (mean(lambda c, k: 1 - c[k] / sum(c)), "*others'* tokens"),
        "the largest": (mean(lambda c, k: c[k] / max(c)), "largest count"),
        "the first": (lambda gradients, counts: gradients[0], "first process's gradient alone"),
        "a tensor": (lambda gradients, counts: mean_of_stacks(gradients, counts)[next(iter(gradients[0]))], "a dict"),
        "in place": (mean_in_place, "in place"),
        "two processes only": (lambda gs, c: mean(lambda c, k: c[k] / sum(c))(gs[:2], c[:2]), "weight of process k"),
        "a share of the longest text": (mean(lambda c, k: c[k] / 260), "weight of process k"),
    },
    "scaling.my_share": {
        "the remainder dropped": (blocks(whole), "remainder is dropped"),
        "dropped, strided": (lambda r, rank, n: r[: len(r) // n * n][rank::n], "remainder is dropped"),
        "the rest to the last": (last_takes_the_rest, "takes the whole remainder"),
        "rounded up": (blocks(rounded_up), "rounded up"),
        "padded": (padded, "counts double"),
        "overlapping": (lambda r, rank, n: r[rank * len(r) // n : (rank + 1) * len(r) // n + 1], "by two processes"),
        "all of them": (lambda r, rank, n: r, "nothing is shared"),
        "always the first": (lambda r, rank, n: r[: len(r) // n], "depend on the rank"),
        "ranks from one": (lambda r, rank, n: r[(rank - 1) * len(r) // n : rank * len(r) // n] if rank else [],
                           "ranks count from 0"),
        "places": (lambda r, rank, n: list(range(len(r)))[rank::n], "those are places"),
        "by value": (lambda r, rank, n: list(dict.fromkeys(r))[rank::n], "each of them counts"),
        "by the first place": (lambda r, rank, n: [x for x in r if r.index(x) % n == rank], "Go by places"),
        "taken out": (popped, "caller's list was changed"),
        "at least one": (lambda r, rank, n: r[rank::n] or r[:1], "counts double"),
        "one row": (lambda r, rank, n: r[rank], "themselves, as a list"),
    },
    "scaling.ring_all_reduce": {
        "all to process 0": (by_sums(lambda n, m: [(n - 1) * m] + [m] * (n - 1)), "bottleneck"),
        "all to process 0, one way": (by_sums(lambda n, m: [0] + [m] * (n - 1)), "bottleneck"),
        "all at process 0, received": (by_sums(lambda n, m: [(n - 1) * m] + [0] * (n - 1)), "bottleneck"),
        "whole vectors": (by_sums(lambda n, m: [(n - 1) * m] * n), "whole vectors go round"),
        "whole vectors, twice": (by_sums(lambda n, m: [2 * (n - 1) * m] * n), "whole vectors go round"),
        "its vector once": (by_sums(lambda n, m: [m] * n), "not its vector once"),
        "half of the way": (ring(rounds=lambda n: n - 1), "*one* finished piece"),
        "half of the bytes": (by_sums(lambda n, m: [m * (n - 1) / n] * n), "one half of the rounds is counted"),
        "added twice": (ring(adding=lambda t, n: True), "counts numbers twice"),
        "the same piece": (ring(place=lambda p, t, n: t), "all send the same piece"),
        "the second half anew": (ring(place=lambda p, t, n: p - t if t < n - 1 else p - t + n - 1), "wrong piece"),
        "rounds too many": (by_sums(lambda n, m: [2 * m] * n), "a round too many"),
        "numbers": (ring(cost=lambda message: message.numel()), "numbers, not bytes"),
        "four bytes": (ring(cost=lambda message: 4 * message.numel()), "8 bytes here"),
        "a mean": (ring(end=lambda sums, sent: ([s / len(sums) for s in sums], sent)), "that is the mean"),
        "one sum": (ring(end=lambda sums, sent: (sums[0], sent)), "one for each process"),
        "the sums alone": (ring(end=lambda sums, sent: sums), "return sums, sent"),
        "all together": (ring(end=lambda sums, sent: (sums, sum(sent))), "one number a process"),
        "process 0 alone": (lambda vs: ([sum(vs), *vs[1:]], [0] * len(vs)), "only process 0 has the sum"),
        "one sends to itself": (
            lambda vs: ring()(vs) if len(vs) > 1 else (list(vs), [vs[0].nbytes]),
            "one process alone",
        ),
        "equal pieces only": (cut_to_equal_pieces, "torch.cat"),
        "in place": (ring_in_place, "changes the caller's vector"),
    },
    "scaling.training_bytes_on_paper": {
        "gradients for all": (paper(gradients=lambda f, t, s: s * (f + t)), "frozen weights get none"),
        "AdamW for all": (paper(optimiser=lambda f, t, s: 12 * (f + t)), "nothing about frozen weights"),
        "the frozen only": (paper(weights=lambda f, t, s: s * f), "trained weights are weights, too"),
        "the trained only": (paper(weights=lambda f, t, s: s * t), "have to be there as well"),
        "bits": (paper(weights=lambda f, t, s: 8 * s * (f + t)), "a byte has 8"),
        "numbers": (paper(weights=lambda f, t, s: f + t), "how many bytes has each"),
        "weights of 4 bytes": (paper(weights=lambda f, t, s: 4 * (f + t)), "2 bytes each"),
        "gradients of 4 bytes": (paper(gradients=lambda f, t, s: 4 * t), "as wide as its weight"),
        "one average": (paper(optimiser=lambda f, t, s: 4 * t), "AdamW keeps two"),
        "no copy": (paper(optimiser=lambda f, t, s: 8 * t), "a copy of the weight in 32 bits"),
        "always a copy": (paper(optimiser=lambda f, t, s: 12 * t), "beside weights in 16 bits only"),
        "all but the averages": (paper(optimiser=lambda f, t, s: 16 * t), "all together"),
        "averages in 16 bits": (paper(optimiser=lambda f, t, s: 3 * s * t), "kept in 32 bits"),
        "narrow averages": (paper(optimiser=lambda f, t, s: 2 * s * t), "each in 32 bits"),
        "narrow averages, and a copy": (paper(optimiser=lambda f, t, s: (8 if s == 4 else 2 * s + 4) * t), "too small"),
        "always 16 bits": (
            lambda frozen, trained, bits, memory: paper()(frozen, trained, 16, memory),
            "32 bits here, that is 4 bytes",
        ),
        "rounded down": (paper(gpus=lambda found, memory: int(sum(found.values()) // memory)), "round up"),
        "a fraction": (paper(gpus=lambda found, memory: sum(found.values()) / memory), "GPUs come whole"),
        "always one more": (paper(gpus=lambda found, memory: sum(found.values()) // memory + 1), "one too many"),
        "at most eight": (
            paper(gpus=lambda found, memory: min(8, math.ceil(sum(found.values()) / memory))),
            "eight do not suffice",
        ),
        "all eight": (paper(gpus=lambda found, memory: 8), "fewest"),
        "the weights alone": (paper(gpus=lambda found, memory: math.ceil(found["weights"] / memory)), "room, too"),
        "without the weights": (
            paper(gpus=lambda found, memory: math.ceil((found["gradients"] + found["optimiser"]) / memory)),
            "weights were left out",
        ),
        "other names": (lambda *given: {"weight": 1}, "under these names"),
        "a number": (lambda frozen, trained, bits, memory: 16 * trained, "under these names"),
    },
}  # fmt: skip

ALSO_RIGHT = {
    "scaling.mean_over_team": mean_of_stacks,
    "scaling.my_share": lambda rows, rank, processes: rows[rank::processes],
    "scaling.ring_all_reduce": ring_in_two_halves,
    "scaling.training_bytes_on_paper": sixteen_bytes,
}
