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

from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.training.rows import exact_rows

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "03_lora.ipynb"


def write_gpt2(folder: Path) -> Path:
    """Save a GPT-2 of one layer with random weights, and a tokenizer that knows a few English words."""
    words = ["<unk>", "<end>", *"The past tense of is do did go went see saw".split()]
    return save_gpt2(folder, words, positions=256, width=16, end=1, unk_token="<unk>", eos_token="<end>")


def test_the_four_lines_of_peft_run_with_the_name_of_a_gpt2(tmp_path):
    """Lesson 3: `"gpt2" works too, where a model hub can be reached`: here with a tiny one, from a folder."""
    sources = [cell.source for cell in nbformat.read(LESSON, 4).cells if cell.cell_type == "code"]
    [cell] = [source for source in sources if "model_name = " in source]
    name = 'model_name = "SmolLM2-135M-Instruct"'
    assert cell.count(name) == 1
    here: dict = {"accuracy": lambda model, rows: sum(exact_rows(model, rows)) / len(rows)}
    exec("import torch\nfrom rapidadapt_lessons import training\nfrom rapidadapt_lessons.lm import load_model", here)
    exec("from rapidadapt_lessons.training import task_experience", here)
    exec("from peft import LoraConfig, TaskType, get_peft_model", here)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(cell.replace(name, f"model_name = {str(write_gpt2(tmp_path / 'gpt2'))!r}"), here)
    model, (base, _) = here["adapted"], load_model(str(tmp_path / "gpt2"))
    assert model.base_model.model.config.model_type == "gpt2"
    trained = {k for k, p in model.named_parameters() if p.requires_grad}
    assert trained and all("c_attn.lora_" in k for k in trained)  # peft's default for GPT-2
    assert any(p.abs().max() > 0 for k, p in model.named_parameters() if "lora_B" in k)  # it has learned
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(torch.equal(p, was) for p, was in zip(frozen, base.parameters(), strict=True))
    assert "trainable params: " in out.getvalue() and "accuracy with peft: " in out.getvalue()


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
