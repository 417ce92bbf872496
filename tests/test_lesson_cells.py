"""Cells of a lesson that the reader is told to change, run with the change."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import torch
from tiny_models import save_gpt2

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "03_lora.ipynb"


def write_gpt2(folder: Path) -> Path:
    """Save a GPT-2 of one layer with random weights, and a tokenizer that knows a few English words."""
    words = ["<unk>", "<end>", *"the a of is to and in The with statement object class for an be".split()]
    return save_gpt2(folder, words, positions=256, width=16, end=1, unk_token="<unk>", eos_token="<end>")


def test_the_quick_fine_tune_runs_with_the_name_of_a_gpt2(tmp_path):
    """Lesson 3: "to run the same cells with GPT-2, set model_name": here with a tiny one, through peft."""
    sources = [cell.source for cell in nbformat.read(LESSON, 4).cells if cell.cell_type == "code"]
    start = next(i for i, source in enumerate(sources) if "model_name = " in source)
    begin, train, tell = sources[start : start + 3]
    name = 'model_name = "SmolLM2-135M-Instruct"'
    assert begin.count(name) == 1 and "training.train(adapted" in train and "perplexity" in tell
    here: dict = {}
    imports = next(source for source in sources if "model, tokenizer = load_model()" in source)
    exec(imports.replace("model, tokenizer = load_model()", ""), here)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(begin.replace(name, f"model_name = {str(write_gpt2(tmp_path / 'gpt2'))!r}"), here)
        base = {k: p.detach().clone() for k, p in here["adapted"].named_parameters() if not p.requires_grad}
        exec(train, here)
        exec(tell, here)
    model = here["adapted"]
    assert model.base_model.model.config.model_type == "gpt2"
    trained = {k for k, p in model.named_parameters() if p.requires_grad}
    assert trained and all("c_attn.lora_" in k for k in trained)  # peft's default for GPT-2
    assert any(p.abs().max() > 0 for k, p in model.named_parameters() if "lora_B" in k)  # it has learned
    assert all(torch.equal(p, base[k]) for k, p in model.named_parameters() if k in base)  # the rest is frozen
    assert here["ppl_after"] < here["ppl_before"]
    assert "trainable params: " in out.getvalue() and "AFTER\nThe with statement is" in out.getvalue()


NOTEBOOKS = sorted((LESSON.parent).glob("*.ipynb"))
OF_TORCH = {"create_graph"}  # options of torch's own functions


def options_taken(code: str) -> set[str]:
    """Return the parameters of all of the package's functions and classes that the code imports or reaches."""
    found: set[str] = set()
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rapidadapt_lessons"):
            for alias in node.names:
                try:
                    thing = getattr(import_module(node.module), alias.name)
                except AttributeError:
                    thing = import_module(f"{node.module}.{alias.name}")
                names = getattr(thing, "__all__", dir(thing)) if inspect.ismodule(thing) else []
                things = [getattr(thing, name) for name in names] if names else [thing]
                for callable_thing in filter(callable, things):
                    with contextlib.suppress(TypeError, ValueError):
                        found |= set(inspect.signature(callable_thing).parameters)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_option_that_a_lesson_recommends_in_its_text_exists(path):
    """As in "try `meta_config=methods.FULL`": the cell that a reader changes so must still run."""
    cells = nbformat.read(path, 4).cells
    code = "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", c.source, flags=re.M) for c in cells if c.cell_type == "code")
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    recommended = set(re.findall(r"`([a-z]\w*)=(?!=)[^`(]*(?:\([^`]*\))?`", text)) - OF_TORCH
    assert recommended <= options_taken(code)
