"""How an adapted model is asked: everything but the weights, in one JSON file that people can read too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadPrompt, CourseError
from ..lm.tasks import Example
from ..prompting.prompts import Prompt, Template, build_prompt

FILE = "prompt.json"
FORMAT = 2
KINDS = {  # of value that the file holds, beside its format
    "model": str, "method": str, "pattern": str, "separator": str, "examples": list, "labels": list, "prior": list,
    "max_new_tokens": int, "adapter": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Adapted:
    """What `predict` needs to know."""

    model: str  # the name of the base model
    method: str  # one of `methods.METHODS`
    template: Template
    examples: tuple[Example, ...] = ()  # those in front of every query; none for an adapter
    labels: tuple[str, ...] = ()  # the answers to choose from; empty where answers are written out
    prior: tuple[float, ...] = ()  # what the prompt alone suggests for each label, to be divided out; empty for nothing
    max_new_tokens: int = 16  # for one answer, where there are no labels
    adapter: bool = False  # whether a LoRA adapter, in the folder `adapter` beside the file, belongs to it

    def prompt(self, text: str) -> Prompt:
        """Return the prompt for one input."""
        return build_prompt(text, self.examples, self.template)

    def to_json(self) -> str:
        """Return the file's text."""
        of_template = ("pattern", "separator")
        values = {name: getattr(self.template if name in of_template else self, name) for name in KINDS}
        return json.dumps({"format": FORMAT, **values}, indent=1, ensure_ascii=False) + "\n"


def read_adapted(folder: str | Path) -> Adapted:
    """Read what `adapt` wrote. Raises CourseError where the folder or its file is missing or damaged."""
    folder, remedy = Path(folder), "give the folder that `adapt` wrote (its --out)."
    if not folder.is_dir():
        raise CourseError(f"{folder.name} is not a folder.", remedy)
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{folder.name} holds no {FILE} that can be read.", remedy) from error
    try:
        return _from_json(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError, BadPrompt) as error:
        why = f"{type(error).__name__}: {str(error)[:80]}"
        problem = f"{FILE} in {folder.name} is damaged, or of another version ({why})."
        raise CourseError(problem, "run `adapt` again.") from error


def _from_json(found: dict) -> Adapted:
    if found["format"] != FORMAT:
        raise ValueError(f"its format is {found['format']!r}, not {FORMAT}")
    for name, kind in KINDS.items():
        if type(found[name]) is not kind:
            raise TypeError(f"{name} is no {kind.__name__}")
    given = {name: found[name] for name in KINDS}
    given["template"] = Template(given.pop("pattern"), separator=given.pop("separator"))
    given["examples"] = tuple(Example(*_require_texts(pair)) for pair in given["examples"])
    given["labels"] = labels = tuple(_require_texts(given["labels"]))
    given["prior"] = prior = tuple(float(p) for p in given["prior"])
    if prior and (len(prior) != len(labels) or not all(0 < p <= 1 for p in prior)):
        raise ValueError("prior is not a probability for each label")
    if len(labels) == 1 or len(set(labels)) != len(labels):
        raise ValueError("labels are not two or more, all different")
    if given["max_new_tokens"] < 1:
        raise ValueError(f"max_new_tokens is {given['max_new_tokens']}")
    return Adapted(**given)


def _require_texts(found: list) -> list:
    if type(found) is not list or not all(isinstance(text, str) for text in found):
        raise TypeError(f"{str(found)[:40]} is no list of texts")
    return found
