"""Cells of a lesson that the reader is told to change, run with the change."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import nbformat
import torch
from tiny_models import save_gpt2

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "02_lora.ipynb"


def write_gpt2(folder: Path) -> Path:
    """Save a GPT-2 of one layer with random weights, and a tokenizer that knows a few English words."""
    words = ["<unk>", "<end>", *"the a of is to and in The with statement object class for an be".split()]
    return save_gpt2(folder, words, positions=256, width=16, end=1, unk_token="<unk>", eos_token="<end>")


def test_the_quick_fine_tune_runs_with_the_name_of_a_gpt2(tmp_path):
    """Lesson 2: "to run the same cells with GPT-2, set model_name": here with a tiny one, through peft."""
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
