"""Splitting, adding up and weighting in one process; the cost model against counted operations, bytes and hand sums."""

from __future__ import annotations

import sys
from importlib import metadata

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.scaling import cost_model, figures, run_files
from rapidadapt_lessons.scaling import processes as scaling
from rapidadapt_lessons.scaling.cost_model import TRAIN_ALL, TRAIN_LORA, Shape
from rapidadapt_lessons.scaling.launch import launch
from rapidadapt_lessons.setup import doctor
from rapidadapt_lessons.training.cost import training_bytes
from rapidadapt_lessons.training.rows import Row, collate, token_loss
from rapidadapt_lessons.training.team import Team


@given(st.integers(0, 100), st.integers(1, 12))
def test_parts_cover_everything_once_and_differ_by_one_at_most(n, size):
    parts = [Team(rank, size).part(n) for rank in range(size)]
    assert [i for start, end in parts for i in range(start, end)] == list(range(n))
    sizes = [end - start for start, end in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_process_that_is_not_there_is_refused(rank, size):
    with pytest.raises(CourseError, match=f"process {rank} of {size}"):
        Team(rank, size)


def test_alone_a_team_changes_nothing_and_talks_to_nobody():
    team, parameter = Team(), torch.nn.Parameter(torch.ones(3))
    assert team.is_main and team.share([1, 2, 3]) == [1, 2, 3]
    assert team.all_reduce_gradients([parameter], 2.5) == 2.5 and parameter.grad is None
    assert team.broadcast_object(lambda: 7) == 7 and (team.bytes_sent, team.messages) == (0, 0)
    team.broadcast([parameter])


def test_without_torchrun_a_script_is_a_team_of_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with scaling.join_team() as team:
        assert (team.rank, team.world_size) == (0, 1)
    for rank, size in (("x", "2"), ("3", "2")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(CourseError, match="RANK and WORLD_SIZE are|process 3 of 2"):
            with scaling.join_team():
                pass


def test_the_weighted_mean_is_the_gradient_of_the_whole_and_the_plain_one_is_not():
    draw = torch.Generator().manual_seed(0)
    values, w = torch.randn(10, 3, generator=draw), torch.randn(3, generator=draw).requires_grad_()

    def gradient(rows):
        return {"w": torch.autograd.grad((rows @ w).exp().mean(), w)[0]}

    whole, each = gradient(values)["w"], [gradient(values[:2]), gradient(values[2:])]
    torch.testing.assert_close(scaling.weighted_mean_gradient(each, [2, 8])["w"], whole)
    assert (scaling.weighted_mean_gradient(each, [1, 1])["w"] - whole).norm() > 0.05 * whole.norm()
    for counts in ([1], [0, 0], [-1, 3]):
        with pytest.raises(CourseError, match="2 gradients came with"):
            scaling.weighted_mean_gradient(each, counts)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_ring_adds_up_and_sends_what_the_formula_says(n):
    draw = torch.Generator().manual_seed(n)
    vectors = [torch.randn(24, generator=draw) for _ in range(n)]
    before = [v.clone() for v in vectors]
    sums, sent = scaling.ring_all_reduce(vectors)
    for total in sums:
        torch.testing.assert_close(total, sum(before), atol=1e-5, rtol=1e-5)
        assert torch.equal(total, sums[0])
    assert sent == [cost_model.ring_bytes(24 * 4, n)] * n
    assert all(torch.equal(a, b) for a, b in zip(vectors, before))


def test_a_ring_of_unequal_vectors_is_refused():
    with pytest.raises(CourseError, match="shapes are"):
        scaling.ring_all_reduce([torch.ones(3), torch.ones(4)])
    with pytest.raises(CourseError, match="the number of processors is 0"):
        cost_model.ring_bytes(1, 0)


# The cost model.


def test_weights_are_those_of_the_real_models(real_model):
    model, _ = real_model
    shape = cost_model.SMOLLM2_135M
    assert shape.weights == sum(p.numel() for p in model.parameters())
    try:
        lora.inject(model, lora.LoRAConfig(8))
        assert shape.lora_weights(8) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    finally:
        lora.remove(model)
    # transformers' own count for LLaMA 7B, 6,738,415,616, by hand: 32 x (4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096) ...
    by_hand = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 2 * 32000 * 4096 + 4096
    assert cost_model.LLAMA_7B.weights == by_hand == 6_738_415_616


def test_operations_are_those_that_torch_counts(real_model):
    """All weights: to the last operation. LoRA: less what the lowest block need not pass on, under 0.5%."""
    model, _ = real_model
    draw = torch.Generator().manual_seed(0)
    batch = collate([Row(tuple(torch.randint(3, 40_000, (17,), generator=draw).tolist()), 9) for _ in range(2)])
    tokens, counted, shape = 2 * 16, 2 * 8, cost_model.SMOLLM2_135M

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            token_loss(model, batch).backward()
        model.zero_grad(set_to_none=True)
        return counter.get_total_flops()

    required = [p.requires_grad for p in model.parameters()]
    try:
        model.requires_grad_(True)
        assert flops() == cost_model.step_flops(shape, tokens, counted, TRAIN_ALL)
        lora.inject(model, lora.LoRAConfig(8))
        found = flops()
    finally:
        lora.remove(model)
        for parameter, wanted in zip(model.parameters(), required):
            parameter.requires_grad_(wanted)
    predicted = cost_model.step_flops(shape, tokens, counted, TRAIN_LORA)
    assert 0 < predicted - found < 0.005 * predicted


def test_bytes_are_those_that_are_counted(real_model):
    model, _ = real_model
    draw = torch.Generator().manual_seed(0)

    def rows(n, length, first):
        ids = torch.randint(3, 40_000, (n, length), generator=draw).tolist()
        return collate([Row(tuple(row), first) for row in ids])

    def measured(batch):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
        return training_bytes(model, optimizer, lambda: token_loss(model, batch))

    shape = cost_model.SMOLLM2_135M
    try:
        lora.inject(model, lora.LoRAConfig(8))
        first, second = measured(rows(2, 33, 1)), measured(rows(3, 21, 15))
    finally:
        model.zero_grad(set_to_none=True)
        lora.remove(model)
    each = cost_model.kept_each(shape, 64, 64, first["activations"])
    paper = cost_model.step_memory(shape, 3 * 20, 3 * 6, TRAIN_LORA, each=each)
    assert (paper.gradients, paper.weights) == (second["gradients"], second["weights"])
    assert paper.optimiser == pytest.approx(second["optimiser"], rel=1e-3)
    assert paper.activations == pytest.approx(second["activations"], rel=0.05)


def test_memory_time_and_traffic_by_hand():
    shape = Shape(layers=2, width=4, key_width=2, mlp=8, vocabulary=10, tied=True)
    assert shape.block_weights == 2 * (16 + 16 + 8 + 8 + 3 * 32) and shape.weights == 288 + 40 + 20
    assert shape.lora_weights(3) == 2 * 3 * (8 + 6)
    assert cost_model.forward_flops(shape, 5, 2) == 2 * 5 * 288 + 2 * 2 * 40
    assert cost_model.step_flops(shape, 5, 2, TRAIN_LORA, 3) == 2 * (2880 + 160) + 6 * 5 * 84
    for bits in (16, 32):  # 16 bytes for each trained weight
        memory = cost_model.step_memory(shape, 0, 0, TRAIN_ALL, bits=bits, each=1)
        assert memory.total == 16 * 348
    memory = cost_model.step_memory(shape, 5, 2, TRAIN_LORA, rank=3, bits=16, each=7)
    assert memory.total == 2 * 348 + 16 * 84 + 7 * 2 * 5 * 2 * 4 + 4 * 2 * 10
    time = cost_model.step_time(shape, 5, TRAIN_ALL, 4, bandwidth=50.0)
    assert time.computing == pytest.approx(3 * (2880 + 2 * 5 * 40) / (4 * 989e12 * 0.4))
    assert time.communicating == pytest.approx(1.5 * 2 * 348 / 50)
    assert time.efficiency == pytest.approx(time.computing / (time.computing + time.communicating))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: cost_model.step_flops(cost_model.SMOLLM2_135M, -1, 0, TRAIN_ALL), "tokens is -1"),
        (lambda: cost_model.step_flops(cost_model.SMOLLM2_135M, 1, 0, "some"), "no method 'some'"),
        (lambda: cost_model.step_memory(cost_model.SMOLLM2_135M, 1, 1, TRAIN_ALL, bits=8, each=1), "bits is 8"),
        (lambda: figures.cost_view(1, "GPT-9", TRAIN_LORA, "NVLink 4", 10, 1.0), "no model 'GPT-9'"),
        (
            lambda: figures.cost_view(0, "LLaMA, 65 billion", TRAIN_LORA, "NVLink 4", 10, 1.0),
            "number of processors is 0",
        ),
        (lambda: figures.efficiency("LLaMA, 65 billion", (1,), ["string"]), "no link 'string'"),
        (lambda: figures.predicted_and_measured({"a": (1, 0)}, title="", unit=""), "above zero"),
        (lambda: launch("none.py"), "no script none.py"),
        (lambda: launch(__file__, processes=0), "processes is 0"),
    ],
)
def test_what_makes_no_sense_is_told(call, told):
    with pytest.raises(CourseError, match=told):
        call()


def test_the_views_say_in_words_what_they_show():
    fits = figures.cost_view(8, "LLaMA, 6.7 billion", TRAIN_LORA, "NVLink 4", 1024, 13.7)
    too_big = figures.cost_view(1, "LLaMA, 6.7 billion", TRAIN_ALL, "NVLink 4", 1024, 13.7)
    assert "fits into 80 GB" in fits.alt and "1 GPU: does not fit into 80 GB" in too_big.alt
    assert "communicating over NVLink 4 0." in too_big.alt and fits.png().startswith(b"\x89PNG")
    picture = figures.efficiency("LLaMA, 6.7 billion", (1, 8), ["10-gigabit Ethernet"])
    assert "LoRA over 10-gigabit Ethernet: 1.00 at 1, 0.9" in picture.alt and "0.02 at 8" in picture.alt
    picture = figures.predicted_and_measured({"a": (90, 100)}, title="t", unit="MB")
    assert "a: predicted 0.90 times the measured" in picture.alt
    assert [figures._three_digits(v) for v in (5.5296, 1614.2, 90, 0.12345)] == ["5.53", "1,610", "90", "0.123"]


def test_a_line_ends_where_its_link_ends():
    picture = figures.efficiency("LLaMA, 6.7 billion", (1, 8, 64), list(cost_model.LINKS))
    parts = {told.split(":")[0].split(". ")[-1]: told for told in picture.alt.split("; ")}
    assert len(parts) == 6
    for name, told in parts.items():
        assert " at 8" in told and (" at 64" in told) == ("NVLink" not in name), told


def test_two_curves_that_lie_on_each_other_can_both_be_seen():
    picture = figures.two_curves(("a", [2, 1]), ("b", [2, 1]), title="t", ylabel="loss", alt="equal")
    first, second = picture.figure.axes[0].lines
    assert first.get_markersize() > 2 * second.get_markersize() and first.get_markerfacecolor() == "none"
    assert list(first.get_ydata()) == list(second.get_ydata()) == [2, 1] and picture.alt == "equal"


# What is left on disk, and what was started.


def test_on_windows_several_processes_are_refused_and_one_is_not(monkeypatch, tmp_path):
    (tmp_path / "told.py").write_text("print('alone')")
    monkeypatch.setattr("rapidadapt_lessons.scaling.launch.sys.platform", "win32")
    with pytest.raises(CourseError, match="Windows(.|\n)*WSL"):
        launch(tmp_path / "told.py", processes=2)
    with launch(tmp_path / "told.py", processes=1) as run:
        assert run.wait() == 0


def test_the_interface_towards_this_very_machine_is_the_loopback():
    (named,) = (name for name, them in psutil.net_if_addrs().items() if any(a.address == "127.0.0.1" for a in them))
    assert scaling.interface_towards("127.0.0.1") == named
    assert scaling.interface_towards("no.such.name.invalid") is None


def test_where_only_the_notebook_came_along_a_script_of_the_package_is_started(tmp_path, monkeypatch):
    script = tmp_path / "share" / "rapidadapt-lessons" / "scale" / "told.py"
    script.parent.mkdir(parents=True)
    script.write_text("print('the one that came with the package')")
    record = metadata.PackagePath("..", "share", "rapidadapt-lessons", "scale", "told.py")
    record.dist = type("Dist", (), {"locate_file": lambda self, path: tmp_path / path.relative_to("..")})()
    monkeypatch.setattr(metadata, "files", lambda name: [record])
    monkeypatch.chdir(tmp_path)
    with launch("../scale/told.py", processes=1) as run:
        assert run.wait() == 0 and "came with the package" in run.output()
    assert doctor.shared_file("scale", "other.py") is None
    (tmp_path / "told.py").write_text("print('the one named')")
    with launch("told.py", processes=1) as run:
        assert run.wait() == 0 and "the one named" in run.output()


def test_a_report_is_read_back_and_a_broken_one_is_told(tmp_path):
    file = tmp_path / "new" / "losses.json"
    run_files.write_report(file, Team(), [1.5, 0.25])
    assert run_files.read_report(file) == run_files.RunReport(1, (1.5, 0.25), 0)
    assert [path.name for path in file.parent.iterdir()] == ["losses.json"]
    for text in ("", "[]", "{}"):
        file.write_text(text)
        with pytest.raises(CourseError, match="losses.json is not the report of a run"):
            run_files.read_report(file)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch):
    file = tmp_path / "losses.json"
    file.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        run_files.write_report(file, Team(), [1.5])
    assert file.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["losses.json"]


def test_a_script_that_takes_too_long_is_stopped(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    with launch(script, processes=1) as launched:
        assert launched.wait_until(lambda: "begun" in launched.output(), 100)
        with pytest.raises(CourseError, match=r"stopped after 0.2 s.\nbegun"):
            launched.wait(0.2)
        assert not launched.running
        with pytest.raises(CourseError, match="no worker 0 to kill"):
            launched.kill(0)


def test_looking_at_what_a_script_prints_changes_none_of_it(tmp_path):
    """Two processes print without a pause while the parent looks all the time."""
    # Each line in one go: `print` may write the line break on its own, after another process's line.
    (tmp_path / "child.py").write_text("import os\nfor i in range(20000): os.write(1, b'child %d\\n' % i)\n")
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, sys.argv[1]])\n"
        "for i in range(20000): os.write(1, b'parent %d\\n' % i)\n"
        "child.wait()\n"
    )
    with launch(script, [tmp_path / "child.py"], processes=1) as launched:
        while launched._process.poll() is None:
            launched.output()
    lines = launched.output().splitlines()
    for who in ("child", "parent"):
        assert [line for line in lines if line.startswith(who)] == [f"{who} {i}" for i in range(20000)]
    assert len(lines) == 40000 and not launched._file.parent.exists()


def test_the_environment_of_a_worker_is_its_own(tmp_path, monkeypatch):
    """A notebook may itself have been started by torchrun."""
    monkeypatch.setenv("WORLD_SIZE", "5")
    script = tmp_path / "tell.py"
    script.write_text("import os, sys\nprint(*map(os.environ.get, ('WORLD_SIZE', 'OMP_NUM_THREADS')), sys.argv[1:])")
    with launch(script, ["a", 1], processes=1, command=[sys.executable]) as launched:
        assert launched.wait(100) == 0
    assert launched.output().strip() == "None 1 ['a', '1']"
