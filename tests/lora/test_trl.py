"""TRL's trainer and this course's loop: the same rows give the same masks, the same losses and the same weights."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.training import task_experience
from rapidadapt_lessons.training.loop import TrainConfig, train
from rapidadapt_lessons.training.rows import Row, collate

UPDATES, RATE, ROWS = 2, 2e-3, 6


def adapter(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def trl_trainer(model, tokenizer, rows: tuple[Row, ...], folder: Path, **changed) -> SFTTrainer:
    """Return TRL's trainer for the rows, as prompts and completions in words, all of them in every update."""
    words = [{"prompt": row.ids[: row.first], "completion": row.ids[row.first :]} for row in rows]
    data = Dataset.from_list([{part: tokenizer.decode(ids) for part, ids in one.items()} for one in words])
    options = {
        "output_dir": str(folder), "max_steps": UPDATES, "per_device_train_batch_size": len(rows),
        "learning_rate": RATE, "lr_scheduler_type": "constant", "completion_only_loss": True, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "activation_checkpointing": False,
        "bf16": False, "use_cpu": True,
    }  # fmt: skip
    return SFTTrainer(model, SFTConfig(**options | changed), train_dataset=data, processing_class=tokenizer)


def test_trl_logs_our_loss_and_makes_our_updates(tmp_path):
    """From the same matrices, with AdamW and the gradient cut to length 1 in both: two losses to 1e-4, and then weights
    that differ by under a five-hundredth of the way that they moved. (Single ones may differ by more, since Adam makes
    much of a tiny gradient.) TRL ends a completion with the end-of-text token, so our rows get it too."""
    (first, tokenizer), (second, _) = load_model(device="cpu"), load_model(device="cpu")
    rows = task_experience(tokenizer, "past_tense", train=ROWS, test=1).train
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    theirs, ours = peft.get_peft_model(first, config), peft.get_peft_model(second, config)
    start = adapter(theirs)
    ours.load_state_dict(start, strict=False)

    trainer = trl_trainer(theirs, tokenizer, rows, tmp_path)
    seen = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    ended = [Row((*row.ids, tokenizer.eos_token_id), row.first) for row in rows]
    batch = collate(ended)
    assert sorted(seen["labels"].tolist()) == sorted(batch.labels.tolist())
    history = train(ours, ended, TrainConfig(UPDATES, batch_size=ROWS, lr=RATE), progress=False)

    assert logged == pytest.approx(history.losses, abs=1e-4) and len(logged) == UPDATES
    assert logged[1] < logged[0] - 0.05, "nothing was learned, so the weights say nothing"
    ends = [torch.cat([p.flatten() for p in adapter(model).values()]) for model in (ours, theirs)]
    began = torch.cat([tensor.flatten() for tensor in start.values()])
    assert (ends[0] - ends[1]).norm() < 0.002 * (ends[0] - began).norm()
