"""An adapter on disk: the two matrices of each layer and nothing else, exchanged with peft in both directions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_gpt2, tiny_llama
from training_parts import trained_by_chance

from rapidadapt_lessons.errors import AdapterMismatch, CourseError
from rapidadapt_lessons.lora import files
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.files import CONFIG, WEIGHTS, load_adapter, save_adapter
from rapidadapt_lessons.lora.layers import LoRAConfig

IDS = torch.arange(24).reshape(2, 12) % 97 + 3
KINDS = {
    "llama": (tiny_llama, LoRAConfig(4, 8, 0.1, ("q_proj", "down_proj"))),
    "gpt2": (tiny_gpt2, LoRAConfig(4, 8, 0.1, ("c_attn", "c_proj"))),
}


def adapted(make, config, seed=1):
    return trained_by_chance(lora.inject(make(), config), seed)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@torch.no_grad()
def test_what_is_saved_is_loaded(kind, tmp_path):
    make, config = kind
    model = adapted(make, config)
    save_adapter(model, tmp_path / "a", config)
    fresh = make()
    assert load_adapter(fresh, tmp_path / "a") == config
    assert torch.equal(fresh(IDS).logits, model(IDS).logits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def test_peft_reads_ours(kind, tmp_path):
    make, config = kind
    model = adapted(make, config)
    save_adapter(model, tmp_path / "a", config)
    theirs = peft.PeftModel.from_pretrained(make(), tmp_path / "a").eval()
    assert not torch.allclose(make()(IDS).logits, model(IDS).logits, atol=1e-3)
    torch.testing.assert_close(theirs(IDS).logits, model(IDS).logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_ours_reads_pefts(kind, tmp_path):
    make, config = kind
    theirs = peft.get_peft_model(
        make(),
        peft.LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=list(config.target_modules),
            init_lora_weights=False, fan_in_fan_out=make is tiny_gpt2,
        ),
    ).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "a")
    model = make()
    load_adapter(model, tmp_path / "a")
    assert not torch.allclose(make()(IDS).logits, theirs(IDS).logits, atol=1e-3)
    torch.testing.assert_close(model(IDS).logits, theirs(IDS).logits, atol=1e-5, rtol=1e-4)


def test_an_adapter_of_another_model_is_refused_and_nothing_is_changed(tmp_path):
    make, config = KINDS["llama"]
    save_adapter(adapted(make, config), tmp_path / "a", config)
    for other, told in ((tiny_llama(seed=7), "trained on another model"), (tiny_gpt2(), "no module of this model")):
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(AdapterMismatch, match=told):
            load_adapter(other, tmp_path / "a")
        assert before.keys() == other.state_dict().keys()
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in before.items())


def test_the_same_model_in_half_precision_is_not_another_model(tmp_path):
    make, config = KINDS["llama"]
    save_adapter(adapted(make, config), tmp_path / "a", config)
    load_adapter(make().to(torch.bfloat16), tmp_path / "a")


def test_loading_over_an_adapter_of_another_scale_or_rank_is_refused(tmp_path):
    make, config = KINDS["llama"]
    save_adapter(adapted(make, config), tmp_path / "a", config)
    for other in (LoRAConfig(4, 4, 0, config.target_modules), LoRAConfig(2, 4, 0, config.target_modules)):
        model = adapted(make, other)
        before = lora.adapter_state(model)
        with pytest.raises(AdapterMismatch):
            load_adapter(model, tmp_path / "a")
        assert all(torch.equal(t, before[n]) for n, t in lora.adapter_state(model).items())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / CONFIG).unlink(), f"{CONFIG} cannot be read"),
        (lambda f: (f / CONFIG).write_text("{"), f"{CONFIG} cannot be read"),
        (lambda f: (f / CONFIG).write_text("{}"), "lacks lora_alpha, r, target_modules"),
        (lambda f: (f / WEIGHTS).unlink(), f"{WEIGHTS} in a is missing or damaged"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "missing or damaged"),
        (lambda f: edit(f, use_dora=True), "use_dora=True"),
        (lambda f: edit(f, rank_pattern={"q_proj": 2}), "rank_pattern="),
        (lambda f: edit(f, target_modules="all-linear"), "pattern 'all-linear'"),
    ],
)
def test_damaged_and_unknown_files_are_told(tmp_path, damage, told):
    make, config = KINDS["llama"]
    save_adapter(adapted(make, config), tmp_path / "a", config)
    damage(tmp_path / "a")
    model = make()
    with pytest.raises(AdapterMismatch, match=told):
        load_adapter(model, tmp_path / "a")
    assert not lora.lora_layers(model)


def edit(folder, **values):
    written = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(written | values))


def test_saving_replaces_an_adapter_and_nothing_else(tmp_path):
    make, config = KINDS["llama"]
    save_adapter(adapted(make, config, seed=1), tmp_path / "a", config)
    model = adapted(make, config, seed=2)
    save_adapter(model, tmp_path / "a", config)
    fresh = make()
    load_adapter(fresh, tmp_path / "a")
    assert torch.equal(fresh(IDS).logits, model(IDS).logits)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(CourseError, match="thesis holds something other"):
        save_adapter(model, tmp_path / "thesis", config)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_adapter(tmp_path, monkeypatch):
    make, config = KINDS["llama"]
    save_adapter(adapted(make, config), tmp_path / "a", config)
    before = (tmp_path / "a" / WEIGHTS).read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_adapter(adapted(make, config, seed=2), tmp_path / "a", config)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class Killed(BaseException):
    """Stands for a kill: nothing that comes after it is done."""


def stop_at_rename(monkeypatch, folder: Path, which: str, error: type[BaseException]):
    """Interrupt the first rename "from" or "to" the folder; where it is a kill, nothing on disk changes after it."""
    real, really, stopped = os.replace, files.shutil.rmtree, []

    def replace(source, target):
        if (not stopped and folder == {"from": source, "to": target}[which]) or Killed in stopped:
            stopped.append(error)
            raise error
        real(source, target)

    def rmtree(path, **options):
        if Killed not in stopped:
            really(path, **options)

    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files.shutil, "rmtree", rmtree)


def two_saved(folder: Path, patch):
    """Save one adapter, then another over it under the patch, which interrupts that. Return the old and the new."""
    make, config = KINDS["llama"]
    models = [adapted(make, config, seed=seed) for seed in (1, 2)]
    save_adapter(models[0], folder, config)
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch)
        with pytest.raises((KeyboardInterrupt, OSError, Killed)):
            save_adapter(models[1], folder, config)
    return models


def loads_as(folder: Path, model) -> bool:
    fresh = tiny_llama()
    load_adapter(fresh, folder)
    wanted = lora.adapter_state(model)
    return all(torch.equal(tensor, wanted[name]) for name, tensor in lora.adapter_state(fresh).items())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("which", ["from", "to"])
def test_a_save_interrupted_while_it_replaces_leaves_the_old_adapter(tmp_path, which, error):
    old, _ = two_saved(tmp_path / "a", lambda patch: stop_at_rename(patch, tmp_path / "a", which, error))
    assert loads_as(tmp_path / "a", old)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_save_killed_while_it_replaces_loses_no_adapter(tmp_path):
    """Between the two renames: the old one is loaded, and is there after the next save failed; a good one tidies up."""
    old, new = two_saved(tmp_path / "a", lambda patch: stop_at_rename(patch, tmp_path / "a", "to", Killed))
    assert not (tmp_path / "a").exists() and loads_as(tmp_path / "a", old)
    config = KINDS["llama"][1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            save_adapter(new, tmp_path / "a", config)
    assert loads_as(tmp_path / "a", old) and (tmp_path / "a").is_dir()
    save_adapter(new, tmp_path / "a", config)
    assert loads_as(tmp_path / "a", new)
    assert {p.name for p in tmp_path.iterdir() if "before" in p.name} == set()


def test_an_old_adapter_left_behind_by_a_kill_does_not_come_back(tmp_path):
    """After both renames, before the old one was deleted."""
    config = KINDS["llama"][1]
    models = [adapted(tiny_llama, config, seed=seed) for seed in (1, 2, 3)]
    save_adapter(models[0], files._aside(tmp_path / "a"), config)
    save_adapter(models[1], tmp_path / "a", config)
    assert loads_as(tmp_path / "a", models[1])
    save_adapter(models[2], tmp_path / "a", config)
    assert loads_as(tmp_path / "a", models[2]) and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_saving_through_a_link_replaces_what_it_leads_to(tmp_path):
    config = KINDS["llama"][1]
    models = [adapted(tiny_llama, config, seed=seed) for seed in (1, 2)]
    save_adapter(models[0], tmp_path / "a", config)
    (tmp_path / "link").symlink_to("a")
    save_adapter(models[1], tmp_path / "link", config)
    assert (tmp_path / "link").is_symlink() and loads_as(tmp_path / "a", models[1])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "link"}


def test_a_merged_adapter_is_not_saved(tmp_path):
    make, config = KINDS["llama"]
    model = adapted(make, config)
    lora.merge(model)
    with pytest.raises(CourseError, match="merged"):
        save_adapter(model, tmp_path / "a", config)
    assert not (tmp_path / "a").exists()
