"""Running text of several domains, from what is installed: to adapt a model to, and to measure it on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import CourseError


@dataclass(frozen=True)
class Domain:
    """Text of one kind, split by document, so that no held-out document is in training.

    Attributes:
        name: what `load_domain` calls it.
        title: what a figure calls it.
        source: where it comes from, with its licence.
        train: documents to train on, in a random but fixed order.
        held_out: documents to measure on.
    """

    name: str
    title: str
    source: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def _python_reference() -> list[str]:
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


_DOMAINS = {
    "python_reference": (
        "Python reference manual",
        "pydoc_data.topics, in Python's standard library (PSF licence); differs a little between Python versions",
        _python_reference,
    ),
}


def list_domains() -> tuple[str, ...]:
    """Return the names of all domains."""
    return tuple(_DOMAINS)


def load_domain(name: str, held_out: float = 0.25) -> Domain:
    """Return a domain's documents, split the same way in every process.

    Args:
        held_out: share of the documents to measure on.

    Raises:
        CourseError: there is no such domain, or the share leaves one side without a document.
    """
    if name not in _DOMAINS:
        raise CourseError(f"there is no domain {name!r}.", f"choose one of {', '.join(_DOMAINS)}.")
    title, source, build = _DOMAINS[name]
    documents = build()
    random.Random(f"domain:{name}").shuffle(documents)
    cut = round(len(documents) * held_out)
    if not 0 < cut < len(documents):
        raise CourseError(
            f"held_out={held_out} of {len(documents)} documents leaves one side empty.", "give a share such as 0.25."
        )
    return Domain(name, title, source, tuple(documents[cut:]), tuple(documents[:cut]))
