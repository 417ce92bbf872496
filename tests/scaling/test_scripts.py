"""Several processes do what one does: the scripts of scale/ under torchrun and accelerate, killed and gone on with.

The processes are real, talk over 127.0.0.1, and are gone afterwards. Sums over processes are rounded in another order
than in one, so losses may differ by 1e-5 and weights by 1e-4; the same number of processes gives the same bits.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch
from safetensors.torch import load_file
from scale_parts import write_tiny_model

from rapidadapt_lessons.scaling.launch import launch
from rapidadapt_lessons.scaling.run_files import read_report
from rapidadapt_lessons.training.team import Team

ROOT = Path(__file__).resolve().parents[2]
LORA, META = ROOT / "scale" / "train_lora.py", ROOT / "scale" / "meta_train.py"
WORKER = ROOT / "tests" / "scale_worker.py"
LOSS, WEIGHT = 1e-5, 1e-4


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scale_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def run(path: Path, options: list, out: Path, **how) -> str:
    with launch(path, [*options, "--out", out], **how) as launched:
        status, told = launched.wait(200), launched.output()
    assert status == 0, told
    return told


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(next(out.rglob("*.safetensors")))


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def assert_same_bits(one: Path, other: Path) -> None:
    assert read_report(one / "losses.json").losses == read_report(other / "losses.json").losses
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def assert_close(one: Path, other: Path) -> None:
    assert read_report(one / "losses.json").losses == pytest.approx(read_report(other / "losses.json").losses, abs=LOSS)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=WEIGHT, rtol=WEIGHT)


def close(one, other, tolerance: float) -> bool:
    """Compare what two processes found, number by number."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k], tolerance) for k in one)
    return one == pytest.approx(other, abs=tolerance)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[dict, dict, dict, Path]:
    """What scale_worker.py found alone, and in each of two processes; and the folder of the two."""
    alone, both = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("both")
    for folder, processes in ((alone, 1), (both, 2)):
        with launch(WORKER, [folder], processes=processes) as launched:
            assert launched.wait(200) == 0, launched.output()
    files = (alone / "found0.json", both / "found0.json", both / "found1.json")
    return *(json.loads(file.read_text()) for file in files), both


@pytest.mark.parametrize("what", ["plain", "one row", "accumulated", "own loss", "meta", "one task"])
def test_two_processes_find_what_one_finds_and_both_the_same_bits(found, what):
    """Parts are unequal in rows and in tokens; with a single row or task, one process has nothing to do."""
    alone, first, second, _ = found
    assert first[what] == second[what]
    assert close(first[what], alone[what], WEIGHT)
    if "losses" in alone[what]:
        assert first[what]["losses"] == pytest.approx(alone[what]["losses"], abs=LOSS)
        assert abs(alone[what]["losses"][0] - alone[what]["losses"][-1]) > 100 * LOSS, "nothing was learned"


def test_a_mean_over_each_process_s_tokens_is_another_gradient(found):
    """The trap: rows of unequal length in equal shares. What is compared above would notice it."""
    alone, first, second, _ = found
    assert first["mean of means"] == second["mean of means"]
    assert not close(first["mean of means"], alone["mean of means"], 10 * WEIGHT)


def test_process_0_evaluates_and_all_hear_of_it(found):
    assert all(one["evaluated"]["evaluations"] == [0.0] * 5 for one in found[:3])


def test_a_loss_that_is_no_number_in_one_process_stops_all_of_them(found):
    assert all(one["diverged"] == ["the loss became nan at update 3", 2] for one in found[:3])


def test_another_runs_checkpoint_is_refused_in_all_and_only_process_0_has_files(found):
    *each, folder = found
    assert all("number of rows is 10, this run's is 7" in one["refused"] for one in each)
    assert names(folder) == {"found0.json", "found1.json", "disk0/run.pt"}


def test_what_is_handed_over_is_counted(found):
    alone, first, second, _ = found
    assert alone["bytes"] == [0, 0] and first["bytes"] == second["bytes"] and min(first["bytes"]) > 0


LORA_OPTIONS = ["--rows", 20, "--batch-size", 5, "--lr", 1e-2, "--rank", 4]


def test_two_starts_of_torchrun_are_one_team_as_on_two_machines(tiny_folder, tmp_path):
    """The command of lesson 11 for two machines, with both of them here."""
    options = [*LORA_OPTIONS, "--model", tiny_folder, "--steps", 6]
    run(LORA, options, tmp_path / "alone")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    how = ["--nnodes", 2, "--master-addr", "127.0.0.1", "--master-port", port, "--nproc-per-node", 1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *how]
    with (
        launch(LORA, [*options, "--out", tmp_path / "first"], command=[*torchrun, "--node-rank", 0]) as first,
        launch(LORA, [*options, "--out", tmp_path / "second"], command=[*torchrun, "--node-rank", 1]) as second,
    ):
        assert (first.wait(200), second.wait(200)) == (0, 0), first.output() + second.output()
    assert_close(tmp_path / "alone", tmp_path / "first")
    assert read_report(tmp_path / "first" / "losses.json").processes == 2 and not (tmp_path / "second").exists()


def test_lora_under_torchrun_gives_what_plain_python_gives(tiny_folder, tmp_path):
    options = [*LORA_OPTIONS, "--model", tiny_folder, "--steps", 6]
    for processes in (1, 2, 3):
        told = run(LORA, options, tmp_path / str(processes), processes=processes)
        assert f"{processes} process(es), 6 updates" in told
        assert read_report(tmp_path / str(processes) / "losses.json").processes == processes
        assert_close(tmp_path / "1", tmp_path / str(processes))
    adapter = sum(t.nbytes for t in weights(tmp_path / "2").values())
    assert [read_report(tmp_path / str(n) / "losses.json").bytes_per_update for n in (1, 2, 3)] == [
        0, adapter + 4, adapter + 4,  # and the loss
    ]  # fmt: skip
    whole = {"run.pt", "losses.json", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"}
    assert names(tmp_path / "2") == whole


def test_maml_under_torchrun_and_accelerate_gives_what_plain_python_gives(tmp_path):
    options = ["--iterations", 40, "--meta-batch-size", 5, "--width", 16]
    run(META, options, tmp_path / "one", processes=1)
    run(META, options, tmp_path / "two", processes=2)
    # `accelerate launch --cpu --num_processes 2` starts a single process where there is no MPI (accelerate 1.15);
    # --multi_gpu starts as many as it is told, and they find that they have no GPU.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2]
    command += ["--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0]
    with launch(META, [*options, "--out", tmp_path / "accelerate"], processes=2, command=command) as launched:
        assert launched.wait(200) == 0, launched.output()
    assert read_report(tmp_path / "accelerate" / "losses.json").processes == 2
    assert_close(tmp_path / "one", tmp_path / "two")
    assert_same_bits(tmp_path / "two", tmp_path / "accelerate")
    assert names(tmp_path / "two") == {"run.pt", "losses.json", "start.safetensors"}


KILLED = {
    LORA: [*LORA_OPTIONS, "--steps", 200, "--checkpoint-every", 5],
    META: ["--iterations", 500, "--meta-batch-size", 5, "--width", 16, "--checkpoint-every", 5],
}


@pytest.mark.parametrize("path", KILLED, ids=lambda path: path.stem)
def test_a_run_whose_worker_is_killed_ends_with_the_same_bits(path, tiny_folder, tmp_path):
    """kill -9 from outside, once there is a checkpoint: with restarts allowed, and started again by hand."""
    options = [*KILLED[path], *(["--model", tiny_folder] if path == LORA else [])]
    run(path, options, tmp_path / "unbroken")
    for restarts in (1, 0):
        out = tmp_path / f"killed{restarts}"
        with launch(path, [*options, "--out", out], max_restarts=restarts) as launched:
            assert launched.wait_until((out / "run.pt").exists, 200), launched.output()
            launched.kill(rank=1)
            status = launched.wait(200)
        assert "exitcode  : -9" in launched.output() or "exitcode: -9" in launched.output(), launched.output()
        if not restarts:
            assert status != 0 and names(out) == {"run.pt"}, "it ended before it was killed"
            before = torch.load(out / "run.pt", weights_only=True)["state"]
            assert 0 < before.get("done", len(before.get("losses", []))) < (200 if path == LORA else 500)
            said = run(path, options, out)
            if path == META:
                assert said.count(f"goes on from iteration {len(before['losses'])}\n") == 1, said
        else:
            assert status == 0, launched.output()
        assert_same_bits(tmp_path / "unbroken", out)
        assert names(out) == names(tmp_path / "unbroken")


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, monkeypatch):
    """Which tasks an iteration sees does not depend on the number, so two can go on where one stopped."""
    options = ["--meta-batch-size", 5, "--width", 16, "--iterations", 30, "--checkpoint-every", 10]
    chosen = [*map(str, options), "--out", str(tmp_path / "moved")]
    monkeypatch.setattr(sys, "argv", ["meta_train.py", *chosen])
    module, saved = script(META), []

    def stop_after_the_first(*what):
        saved.append(1)
        if len(saved) > 1:
            raise KeyboardInterrupt
        save(*what)

    from rapidadapt_lessons.scaling import meta_run

    save = meta_run.save_checkpoint
    monkeypatch.setattr(meta_run, "save_checkpoint", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        module.run(module.arguments(), Team())
    monkeypatch.setattr(meta_run, "save_checkpoint", save)
    run(META, options, tmp_path / "moved")
    monkeypatch.setattr(sys, "argv", ["meta_train.py", *map(str, options), "--out", str(tmp_path / "straight")])
    module.run(module.arguments(), Team())
    assert read_report(tmp_path / "moved" / "losses.json").processes == 2
    assert_close(tmp_path / "straight", tmp_path / "moved")


def test_bad_input_is_told_once_and_not_as_a_traceback(tmp_path):
    with launch(META, ["--out", tmp_path, "--iterations", 0]) as launched:
        assert launched.wait(200) != 0
        told = launched.output()
    assert told.count("iterations is 0.\nWhat to do: iterations must be 1 or more.") == 1
    assert "CourseError" not in told
    assert names(tmp_path) == set()


def test_nothing_is_left_running_when_the_block_is_left(tmp_path):
    options = ["--iterations", 10**6, "--checkpoint-every", 5, "--out", tmp_path]
    with pytest.raises(ZeroDivisionError):
        with launch(META, options) as launched:
            assert launched.wait_until((tmp_path / "run.pt").exists, 200), launched.output()
            workers = launched.workers()
            assert sorted(workers) == [0, 1]
            raise ZeroDivisionError
    assert not launched.running
    assert not any(_mentions(process, str(tmp_path)) for process in psutil.process_iter())
    assert "run.pt" in names(tmp_path)


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        return any(text in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
