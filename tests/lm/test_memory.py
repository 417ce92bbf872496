"""Where memory is short, fewer rows go through the model at once, and the results are the same."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny_models import tiny_llama as llama

from rapidadapt_lessons.lm import memory
from rapidadapt_lessons.prompting import prompts as prompting
from rapidadapt_lessons.prompting import scoring
from rapidadapt_lessons.setup import doctor
from rapidadapt_lessons.training import loop as training
from rapidadapt_lessons.training import rows

GIB = 2**30
THIS_PROCESS = psutil.Process()  # before a test puts another in its place


def machine(root: Path, lines: str, **groups: dict[str, str]) -> Path:
    """Write a `proc` and a `sys` such as Linux shows; `groups` holds each control group's files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, files in groups.items():
        folder = root / "sys/fs/cgroup" / name.replace("_", "/").strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    return root


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """A machine with 64 GiB free and a process that holds 1 GiB, and maps half a GiB of files."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=GIB + GIB // 2, shared=GIB // 2))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    monkeypatch.delenv("MEM_LIMIT", raising=False)


V2 = {
    "memory.max": f"{2 * GIB}\n",
    "memory.current": f"{GIB}\n",
    "memory.stat": f"anon 5\ninactive_file {GIB // 8}\nactive_file {GIB // 8}\n",
}
NO_LIMIT = {"memory.max": "max\n", "memory.current": f"{GIB}\n", "memory.stat": ""}
V1 = {
    "memory.limit_in_bytes": f"{3 * GIB}",
    "memory.usage_in_bytes": f"{GIB}",
    "memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n",
}


@pytest.mark.parametrize(
    ("lines", "groups", "left"),
    [
        ("0::/\n", {"_": V2}, 1.25),  # a container, which sees its own group as the top
        ("0::/user/kernel\n", {"user": V2, "user_kernel": NO_LIMIT}, 1.25),  # a limit further up counts
        ("0::/user/kernel\n", {"user": NO_LIMIT, "user_kernel": V2}, 1.25),
        ("0::/gone\n", {"_": V2}, 1.25),  # the name is the host's; the container has no such folder
        ("0::/\n", {"_": NO_LIMIT}, 64),
        ("4:cpu:/\n3:memory:/a\n0::/\n", {"memory_a": V1}, 2.5),
        ("0::/\n", {"_": {"memory.max": "not a number"}}, 64),
    ],
)
def test_the_nearest_limit_of_a_control_group_counts(tmp_path, lines, groups, left):
    assert memory.available_memory(machine(tmp_path, lines, **groups)) == left * GIB


@pytest.mark.parametrize(("limit", "left"), [(2 * GIB, GIB), (1.5 * GIB, GIB // 2), (GIB // 2, 0), ("", 64 * GIB)])
def test_what_jupyterhub_and_binder_say_counts(tmp_path, monkeypatch, limit, left):
    monkeypatch.setenv("MEM_LIMIT", str(limit))
    assert memory.available_memory(tmp_path) == left


def test_doctor_says_what_a_container_has(monkeypatch):
    assert doctor.memory_check().status == "ok"
    monkeypatch.setenv("MEM_LIMIT", str(2 * GIB))
    check = doctor.memory_check()
    assert (check.status, check.detail[:6]) == ("warn", "1.1 GB")


def test_rows_are_halved_until_they_fit_and_never_none(monkeypatch):
    left = iter((10_000, 1_000, 500, 150, 0))
    monkeypatch.setattr(memory, "available_memory", lambda: next(left))
    monkeypatch.setattr(memory, "row_bytes", lambda *_, **options: 100)
    assert [memory.batch_size(llama(), 8, 12, 11) for _ in range(5)] == [8, 4, 2, 1, 1]


def test_a_model_of_another_kind_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    assert memory.batch_size(torch.nn.Linear(2, 2), 8, 100, 100) == 8


@pytest.fixture
def passes(monkeypatch):
    """Return a function that sets the free memory and counts the rows, or tokens, of each forward pass."""

    def watch(model, free: int) -> list[torch.Size]:
        monkeypatch.setattr(memory, "available_memory", lambda: free)
        seen: list[torch.Size] = []

        def note(module, args, kwargs):
            seen.append(kwargs["input_ids"].shape)

        model.register_forward_pre_hook(note, with_kwargs=True)
        return seen

    return watch


def some_rows(n: int = 8, length: int = 12) -> list[rows.Row]:
    draw = torch.Generator().manual_seed(0)
    return [rows.Row(tuple(torch.randint(3, 50, (length,), generator=draw).tolist()), 1 + i % 3) for i in range(n)]


def free_for(model, n: float, training: bool = False) -> int:
    """Return the free memory in which about n rows of `some_rows` fit."""
    return int(n * memory.row_bytes(model.config, 12, 11, training=training) / memory.SHARE)


def test_perplexity_and_exact_match_are_the_same_in_little_memory(passes):
    results, shapes = [], []
    for n in (8.1, 2.1):
        model = llama().eval()
        seen = passes(model, free_for(model, n))
        results.append((rows.perplexity(model, some_rows()), rows.exact_rows(model, some_rows())))
        shapes.append([shape[0] for shape in seen])
    assert shapes == [[8, 8], [2] * 8]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6) and results[0][1] == results[1][1]


def test_training_ends_with_the_same_weights_in_little_memory(passes):
    ends, shapes = [], []
    for n in (8.1, 2.1):
        model = llama()
        seen = passes(model, free_for(model, n, training=True))
        history = training.train(model, some_rows(16), training.TrainConfig(steps=3, batch_size=8), progress=False)
        ends.append((torch.cat([p.detach().flatten() for p in model.parameters()]), history.losses))
        shapes.append([shape[0] for shape in seen])
    assert shapes == [[8] * 3, [2] * 12]
    assert torch.allclose(ends[0][0], ends[1][0], atol=2e-5) and ends[0][1] == pytest.approx(ends[1][1], rel=1e-5)


def test_with_dropout_or_a_loss_of_the_callers_own_training_takes_the_rows_that_it_was_told(passes):
    model = llama()
    model.dropout = torch.nn.Dropout(0.1)
    seen = passes(model, 0)
    training.train(model, some_rows(), training.TrainConfig(steps=1, batch_size=8), progress=False)
    assert [shape[0] for shape in seen] == [8]


def test_scores_are_the_same_in_little_memory(real_model, passes):
    model, tokenizer = real_model
    prompts = [prompting.Prompt(f"The plural of {word} is") for word in ("cat", "dog", "child", "box")]
    answers = ["cats", "dogs", "children", "boxes"]
    scores, sizes = [], []
    for free in (64 * GIB, 0):
        for cache in (True, False):
            seen = passes(model, free)
            pairs = [(p.text, p.answer_prefix + a) for p, a in zip(prompts, answers)]
            scores.append([s.total for s in scoring.score_continuations(model, tokenizer, pairs, cache=cache)])
            sizes.append(len(seen))
            model._forward_pre_hooks.clear()
    assert sizes == [2, 1, 5, 4]  # one pass for the shared prefix, then all at once, or each by itself
    assert all(score == pytest.approx(scores[0], abs=1e-3) for score in scores)


def test_the_estimate_is_near_what_a_step_keeps():
    """At least what is kept, and at most three times it: counted tensor by tensor, as lesson 3 counts it."""
    from rapidadapt_lessons.training import cost

    model = llama()
    batch = rows.collate(some_rows())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    counted = cost.training_bytes(model, optimizer, lambda: rows.token_loss(model, batch))["activations"]
    estimate = 8 * memory.row_bytes(model.config, 12, 11, training=True)
    assert counted <= estimate <= 3 * counted


def test_memory_that_is_free_inside_the_process_goes_back_to_the_system():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc can be asked")
    pieces = [bytearray(b"x" * 50_000) for _ in range(4000)]  # 200 MB, in pieces that the C library keeps
    kept = pieces[::40]  # all over the heap, so that its end cannot simply be cut off
    full = THIS_PROCESS.memory_info().rss
    del pieces
    memory.give_back()
    assert full - THIS_PROCESS.memory_info().rss > 150e6
    assert len(kept) == 100
