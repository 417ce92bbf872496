"""What the tests of `adapt` and `predict` share; and, run as a program, the command line with a small model.

It kills itself where it is said: python adapt_parts.py training|writing|nowhere adapt ...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from rapidadapt_lessons import cli
from rapidadapt_lessons.choosing import methods
from rapidadapt_lessons.lm import download
from rapidadapt_lessons.tool import adapt, predict
from rapidadapt_lessons.tool.timing import Timing

FAST = Timing(answer=0.01, shot=0.01, write=0.02, step=0.1, meta_step=0.1)
SLOW = Timing(answer=0.1, shot=0.1, write=0.2, step=1.5, meta_step=2.0)


def small_model(vocabulary: int = 49152) -> torch.nn.Module:
    """Return a Llama of two narrow layers with random weights, for the course's own tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval().requires_grad_(False)


def use_small_model(patch, timing: Timing | None = FAST) -> tuple:
    """Let `adapt` and `predict` take the small model, and times that were not measured. Returns model and tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(download.ensure_model()), local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    for module in (adapt, predict):
        patch(module, "load_model", lambda: (small_model(), tokenizer))
    if timing:
        patch(adapt, "time_steps", lambda *_, **__: timing)
    return small_model(), tokenizer


def write_csv(path: Path, rows, header=("text", "answer"), encoding="utf-8", ends="\n") -> Path:
    """Write rows of plain cells."""
    path.write_bytes((ends.join(",".join(row) for row in [header, *rows]) + ends).encode(encoding))
    return path


def main() -> int:
    torch.set_num_threads(1)
    use_small_model(setattr)
    methods.load_family = small_family
    killed_at = {"training": "answered_right", "writing": "save_adapter"}.get(sys.argv[1])
    if killed_at:
        setattr(adapt, killed_at, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    return cli.main(sys.argv[2:])


def small_family():
    """Two tasks to meta-train on."""
    from rapidadapt_lessons.lm.tasks import Example
    from rapidadapt_lessons.meta.text_tasks import MiniTask

    twelve = range(12)
    return (
        MiniTask("one", "{x}: {y}", tuple(Example(f"n {i}", f"m {i}") for i in twelve)),
        MiniTask("two", "{x} = {y}", tuple(Example(f"p {i}", f"q {i % 3}") for i in twelve)),
    )


if __name__ == "__main__":
    sys.exit(main())
