"""Answers to the exercises on continual learning: typical wrong ones, words their report must hold, and right ones."""

from __future__ import annotations

import random

import torch

from rapidadapt_lessons.continual.metrics import backward_transfer, forgetting


def diagonal(m):
    return [m[j][j] for j in range(len(m))]


def penalty(term=lambda d, f: f * d**2, half=0.5, add=torch.sum, join=sum):
    return lambda p, at, f, strength: half * strength * join([add(term(p[n] - at[n], f[n])) for n in p])


def penalty_in_place(p, at, f, strength):
    for name in p:
        p[name] -= at[name]
    return strength / 2 * sum((f[name] * p[name] ** 2).sum() for name in p)


def penalty_from_zero(p, at, f, strength):
    return strength / 2 * sum((f[n] * p[n] ** 2).sum() for n in p)


def penalty_flat(p, at, f, strength):
    def flat(tensors):
        return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)])

    distance = flat(p) - flat(at)
    return 0.5 * strength * torch.dot(flat(f) * distance, distance)


def reservoir(place, full=lambda buffer, size: len(buffer) < size):
    """Return a reservoir whose `place` says which item a new one replaces; None lets the new one go."""

    def add(buffer, item, seen, size, rng):
        if full(buffer, size):
            return [*buffer, item]
        at = place(seen, size, rng)
        return buffer if at is None else [*buffer[:at], item, *buffer[at + 1 :]]

    return add


def below(at, size):
    return at if at < size else None


def two_draws(seen, size, rng):
    return rng.randrange(size) if rng.random() < size / (seen + 1) else None


def window(buffer, item, seen, size, rng):
    return [*buffer, item][-size:]


WRONG = {
    "continual.backward_transfer": {
        "the sign": (lambda m: -backward_transfer(m), "other way round"),
        "over T": (lambda m: sum(m[-1][j] - m[j][j] for j in range(len(m))) / len(m), "T - 1 parts"),
        "a sum": (lambda m: sum(m[-1][j] - m[j][j] for j in range(len(m))), "that is the sum|T - 1"),
        "forgetting": (lambda m: -forgetting(m), "R[j][j]"),
        "forgetting, positive": (forgetting, "the other way round"),
        "the first row": (lambda m: sum(b - a for a, b in zip(m[0], m[-1])) / len(m), "first row"),
        "the last column": (lambda m: sum(r[-1] - r[i] for i, r in enumerate(m[:-1])) / (len(m) - 1), "exchanged"),
        "the accuracy": (lambda m: sum(m[-1]) / len(m), "average accuracy"),
        "the end alone": (lambda m: sum(m[-1][:-1]) / (len(m) - 1), "at the end alone"),
    },
    "continual.ewc_penalty": {
        "no half": (penalty(half=1), "1/2 is missing"),
        "no strength": (lambda p, at, f, s: penalty()(p, at, f, 1.0), "strength is missing"),
        "means": (penalty(add=torch.mean), "mean"),
        "the Fisher squared": (penalty(term=lambda d, f: f**2 * d**2), "squares already|squared too"),
        "not squared": (penalty(term=lambda d, f: f * d), "not squared"),
        "sizes": (penalty(term=lambda d, f: f * d.abs()), "not squared"),
        "no Fisher": (penalty(term=lambda d, f: d**2), "Fisher is missing"),
        "no anchor": (penalty_from_zero, "anchor is missing"),
        "sums multiplied": (penalty(term=lambda d, f: f.sum() * (d**2).sum()), "sums were multiplied"),
        "a number": (lambda p, at, f, s: penalty()(p, at, f, s).item(), "cut the graph"),
        "not added up": (penalty(add=lambda x: x, join=lambda xs: xs[0]), "single number|shape"),
        "in place": (penalty_in_place, "changed the caller's tensor|in place"),
    },
    "continual.reservoir": {
        "always": (reservoir(lambda seen, size, rng: rng.randrange(size)), "always kept"),
        "never": (reservoir(lambda seen, size, rng: None), "stay for ever"),
        "a window": (window, "sliding window"),
        "off by one": (
            reservoir(lambda seen, size, rng: below(rng.randrange(max(seen, 1)), size)),
            "counts itself too",
        ),
        "a fixed chance": (
            reservoir(lambda seen, size, rng: rng.randrange(size) if rng.random() < 0.5 else None),
            "size / (seen + 1)",
        ),
        "too rarely": (
            reservoir(lambda seen, size, rng: rng.randrange(size) if rng.random() < 1 / (seen + 1) else None),
            "`size` places",
        ),
        "the first place": (
            reservoir(lambda seen, size, rng: 0 if rng.random() < size / (seen + 1) else None),
            "drawn too",
        ),
        "grows": (lambda buffer, item, seen, size, rng: [*buffer, item], "outgrows its room"),
        "loses one": (lambda buffer, item, seen, size, rng: [item], "an item is lost"),
        "its own luck": (
            reservoir(lambda seen, size, rng: below(random.SystemRandom().randrange(seen + 1), size)),
            "has to be repeatable",
        ),
    },
}

ALSO_RIGHT = {
    "continual.backward_transfer": backward_transfer,
    "continual.ewc_penalty": penalty_flat,
    "continual.reservoir": reservoir(two_draws),
}
