"""What checks are made of: comparing what came with what was expected, and saying what is the likely slip.

A check calls the learner's function on fresh inputs and compares. Known slips travel with the comparison: each is an
explanation and the value that this slip would give, so that a wrong answer is met with the reason for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Rest = Callable[[], str]  # what the course itself still has to compute; raises Wrong, or returns a remark on what held
Test = Callable[[Callable[..., Any]], Rest | None]  # takes the learner's function; raises Wrong, or what that raised
Learner = Callable[..., Any]  # what somebody hands in


class Wrong(Exception):
    """What came is not what was expected.

    Args:
        call: how the function was called.
        expected: what a right answer gives.
        came: what this one gave.
        why: the likely misconception, in a sentence or two.
    """

    def __init__(self, call: str, expected: str, came: str, why: str):
        self.call, self.expected, self.came, self.why = call, expected, came, why
        super().__init__(f"{call}: expected {expected}, came {came}. {why}")


class Nothing(Wrong):
    """None came back: nothing is written yet, or `return` is missing."""


def show(value: Any, limit: int = 300) -> str:
    """Return a value in a few words: four digits, no gradients, not longer than `limit`."""
    text = str(_plain(value)) if isinstance(value, Tensor | float) else repr(_plain(value))
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _plain(value.detach().tolist())
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else value
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def require(ok: bool, call: str, expected: str, came: str, why: str) -> None:
    """Raise `Wrong` unless a property holds."""
    if not ok:
        raise Wrong(call, expected, came, why)


def require_same(came: Any, expected: Any, call: str, slips: Sequence[tuple[Any, str]], otherwise: str) -> None:
    """Compare, and raise `Wrong` with the likely reason when the two differ.

    Args:
        expected: a number, text, a tensor, a list of one of these, or a dict of tensors.
        slips: the values that known mistakes lead to, each with what to say about it.
        otherwise: what to say when it is none of these.
    """
    _require_kind(came, expected, call, slips, otherwise)
    if alike(came, expected):
        return
    reasons = [why for value, why in slips if alike(came, value) and not alike(value, expected)]
    raise Wrong(call, show(expected), show(came), reasons[0] if reasons else otherwise)


def alike(came: Any, expected: Any) -> bool:
    """Say whether two values agree: numbers to one part in 10^4, everything else exactly."""
    if isinstance(expected, Mapping):
        same_names = isinstance(came, Mapping) and came.keys() == expected.keys()
        return same_names and all(alike(came[name], value) for name, value in expected.items())
    if isinstance(expected, str | bool):
        return type(came) is type(expected) and came == expected
    if isinstance(expected, Sequence):
        same_length = isinstance(came, Sequence) and len(came) == len(expected)
        return same_length and all(alike(a, b) for a, b in zip(came, expected))
    try:
        a = torch.as_tensor(came, dtype=torch.float64).detach()
        b = torch.as_tensor(expected, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        return False
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _require_kind(came: Any, expected: Any, call: str, slips: Sequence[tuple[Any, str]], otherwise: str) -> None:
    """Raise when what came is nothing, or of another kind or shape than what was expected."""
    if came is None:
        raise Nothing(call, show(expected), "None", "the function gives nothing back: does it end with `return`?")
    reasons = [why for value, why in slips if alike(came, value)]
    if isinstance(expected, Tensor) and expected.ndim:
        if not isinstance(came, Tensor):
            why = "give back a tensor." + (f" And {reasons[0]}" if reasons else "")
            raise Wrong(call, f"a tensor of shape {list(expected.shape)}", f"{show(came)} ({_kind(came)})", why)
        if came.shape != expected.shape:
            why = reasons[0] if reasons else f"the shape is not right. {_sentence(otherwise)}"
            raise Wrong(call, f"shape {list(expected.shape)}", f"shape {list(came.shape)}", why)
    elif isinstance(expected, int | float | Tensor) and not isinstance(expected, bool):
        number = isinstance(came, int | float) and not isinstance(came, bool)
        try:
            number = number or torch.as_tensor(came).numel() == 1 and torch.as_tensor(came).ndim == 0
        except (TypeError, ValueError, RuntimeError):
            number = False
        if not number:
            why = reasons[0] if reasons else "give back a single number."
            raise Wrong(call, f"{show(expected)} (one number)", f"{show(came)} ({_kind(came)})", why)
    elif isinstance(expected, str) and not isinstance(came, str):
        raise Wrong(call, show(expected), f"{show(came)} ({_kind(came)})", "give back one text (a str).")
    elif isinstance(expected, Mapping):
        _require_names(came, expected, call)


def _require_names(came: Any, expected: Mapping[str, Any], call: str) -> None:
    names = sorted(expected)
    if not isinstance(came, Mapping):
        why = f"give back a dict with an entry for each of {names}."
        raise Wrong(call, f"a dict with the names {names}", f"{show(came)} ({_kind(came)})", why)
    if came.keys() != expected.keys():
        why = "every parameter has to come back under its own name."
        raise Wrong(call, f"the names {names}", f"the names {sorted(came)}", why)
    for name, value in expected.items():
        shape = list(torch.as_tensor(value).shape)
        if not isinstance(came[name], Tensor) or list(came[name].shape) != shape:
            shown = list(came[name].shape) if isinstance(came[name], Tensor) else show(came[name])
            raise Wrong(call, f"{name!r} a tensor of shape {shape}", f"{shown}", "each keeps its parameter's shape.")


def require_kept(before: Mapping[str, Tensor], after: Mapping[str, Tensor], call: str, why: str) -> None:
    """Raise `Wrong` when one of the tensors that the function was given has changed."""
    for name, value in before.items():
        if not torch.equal(value, after[name].detach()):
            raise Wrong(call, f"{name} left as it was: {show(value)}", f"{name} is now {show(after[name])}", why)


def normal(*shape: int, seed: int) -> Tensor:
    """Return normal random numbers that depend on the seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" + (f" of shape {list(value.shape)}" if isinstance(value, Tensor) else "")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
