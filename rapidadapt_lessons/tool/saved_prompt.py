"""How an adapted model is asked: everything but the weights, in one JSON file that people can read too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadPrompt, CourseError
from ..lm.tasks import Example
from ..prompting.prompts import Prompt, Template, build_prompt

FILE = "prompt.json"
FORMAT = 2


@dataclass(frozen=True)
class Adapted:
    """What `predict` needs to know.

    Attributes:
        model: the name of the base model.
        method: one of `methods.METHODS`.
        template: how an example and a query are written.
        examples: those in front of every query; none for an adapter.
        labels: the answers to choose from; empty where answers are written out.
        prior: what the prompt alone suggests for each label, to be divided out; empty where it is not calibrated.
        max_new_tokens: the most that is written for one answer, where there are no labels.
        adapter: whether a LoRA adapter, in the folder `adapter` beside the file, belongs to it.
    """

    model: str
    method: str
    template: Template
    examples: tuple[Example, ...] = ()
    labels: tuple[str, ...] = ()
    prior: tuple[float, ...] = ()
    max_new_tokens: int = 16
    adapter: bool = False

    def prompt(self, text: str) -> Prompt:
        """Return the prompt for one input."""
        return build_prompt(text, self.examples, self.template)

    def to_json(self) -> str:
        """Return the file's text."""
        written = {
            "format": FORMAT,
            "model": self.model,
            "method": self.method,
            "pattern": self.template.pattern,
            "separator": self.template.separator,
            "examples": [list(e) for e in self.examples],
            "labels": list(self.labels),
            "prior": list(self.prior),
            "max_new_tokens": self.max_new_tokens,
            "adapter": self.adapter,
        }
        return json.dumps(written, indent=1, ensure_ascii=False) + "\n"


def read_adapted(folder: str | Path) -> Adapted:
    """Read what `adapt` wrote.

    Raises:
        CourseError: the folder is missing, or its file is missing, damaged or of another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder.name} is not a folder.", "give the folder that `adapt` wrote (its --out).")
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(
            f"{folder.name} holds no {FILE} that can be read.", "give the folder that `adapt` wrote (its --out)."
        ) from error
    try:
        return _from_json(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError, BadPrompt) as error:
        raise CourseError(
            f"{FILE} in {folder.name} is damaged, or of another version ({type(error).__name__}: {str(error)[:80]}).",
            "run `adapt` again.",
        ) from error


def _from_json(found: dict) -> Adapted:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']!r}, not {FORMAT}")
    text = {name: _typed(found[name], str, name) for name in ("model", "method", "pattern", "separator")}
    examples = tuple(Example(*_texts(pair, "examples")) for pair in _typed(found["examples"], list, "examples"))
    labels, prior = _texts(found["labels"], "labels"), tuple(float(p) for p in _typed(found["prior"], list, "prior"))
    if prior and (len(prior) != len(labels) or not all(0 < p <= 1 for p in prior)):
        raise ValueError("prior is not a probability for each label")
    if len(labels) == 1 or len(set(labels)) != len(labels):
        raise ValueError("labels are not two or more, all different")
    most = _typed(found["max_new_tokens"], int, "max_new_tokens")
    if most < 1:
        raise ValueError(f"max_new_tokens is {most}")
    template = Template(text["pattern"], separator=text["separator"])
    return Adapted(
        text["model"],
        text["method"],
        template,
        examples,
        labels,
        prior,
        most,
        _typed(found["adapter"], bool, "adapter"),
    )


def _typed(value, kind: type, name: str):
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{name} is no {kind.__name__}")
    return value


def _texts(value, name: str) -> tuple[str, ...]:
    found: Sequence = _typed(value, list, name)
    return tuple(_typed(t, str, name) for t in found)
