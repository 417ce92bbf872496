"""Running text of several domains, from what is installed: to adapt a model to, and to measure it on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from ..guards import require_one_of
from .pairs import conversations, needs

# Files of the corpus with ordinary talk; the others are mostly persona, politics and jokes.
_TALK = ("conversations", "greetings", "food", "computers", "science", "literature", "money", "tech_support", "trivia")
# Package -> its licence files, by the end of their names. Each text is one of those that many packages share.
_LICENCE_FILES = {
    "num2words": ("COPYING",),  # LGPL 2.1
    "packaging": ("LICENSE.APACHE", "LICENSE.BSD"),
    "pyzmq": ("LICENSE.zeromq.txt",),  # MPL 2.0
    "typing_extensions": ("LICENSE",),  # PSF and its forerunners
    "matplotlib": ("LICENSE_DEJAVU", "LICENSE_STIX"),
}
_HELD_OUT = 0.25  # share of the documents
_SHINGLE = 8  # words
_SHARED = 0.2  # share of a paragraph's shingles that an earlier one may have had


@dataclass(frozen=True)
class Domain:
    """Text of one kind, split by document, so that no held-out document is in training."""

    title: str  # what a figure calls it
    source: str  # where it comes from, with its licence
    train: tuple[str, ...]  # documents to train on, in a random but fixed order
    held_out: tuple[str, ...]  # documents to measure on


def _python_reference() -> list[str]:
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def _dialogue() -> list[str]:
    """Return conversations, A and B in turn. All that open with the same words are one document."""
    by_opening: dict[str, dict[str, None]] = {}
    for name in _TALK:
        for lines in conversations(name):
            turns = [" ".join(str(line).split()) for line in lines]
            text = "\n".join(f"{'AB'[i % 2]}: {turn}" for i, turn in enumerate(turns))
            by_opening.setdefault(_bare(turns[0]), {})[text] = None
    return ["\n\n".join(texts) for texts in by_opening.values()]


def _licences() -> list[str]:
    """Return long paragraphs of licences, none of which says much that an earlier one has said."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for text in (_licence_text(package, name) for package, names in _LICENCE_FILES.items() for name in names):
        paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
        for paragraph in (p for p in paragraphs if len(p) >= 200):
            words = _bare(paragraph).split()
            shingles = {tuple(words[i : i + _SHINGLE]) for i in range(len(words) - _SHINGLE + 1)}
            if shingles and len(shingles & seen) <= _SHARED * len(shingles):
                kept.append(paragraph)
            seen |= shingles
    return kept


def _licence_text(package: str, name: str) -> str:
    with needs(package):
        files = [file for file in metadata.files(package) or [] if file.name == name]
        if not files:
            raise FileNotFoundError(f"no licence file {name}")
        return files[0].read_text("utf-8")


def _bare(text: str) -> str:
    """Return the words alone, in lower case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


_DOMAINS: dict[str, tuple[str, str, Callable[[], list[str]]]] = {
    "python_reference": (
        "Python reference manual",
        "pydoc_data.topics, in Python's standard library (PSF licence); differs a little between Python versions",
        _python_reference,
    ),
    "dialogue": ("Dialogue", "chatterbot-corpus (BSD-3-Clause), its English files on everyday subjects", _dialogue),
    "licences": (
        "Software licences",
        "licence texts of installed packages (LGPL, Apache, BSD, MPL, PSF, font licences), which allow verbatim copies",
        _licences,
    ),
}


def load_domain(name: str) -> Domain:
    """Return a domain's documents, a quarter of them held out: the same in every process.

    Raises CourseError where there is no such domain, MissingPackage where the package of its text is absent or broken.
    """
    require_one_of(_DOMAINS, "domain", name)
    title, source, build = _DOMAINS[name]
    documents = build()
    random.Random(f"domain:{name}").shuffle(documents)
    documents = list(dict.fromkeys(documents))  # one topic of Python's manual is there under two names
    cut = round(len(documents) * _HELD_OUT)
    return Domain(title, source, tuple(documents[cut:]), tuple(documents[:cut]))
