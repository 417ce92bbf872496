"""A sweep with several workers, kills, and other people's files: every combination ends up done once."""

from __future__ import annotations

import importlib.util
import itertools
import math
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.scaling import sweep
from rapidadapt_lessons.scaling.launch import launch

SWEEP = Path(__file__).resolve().parents[2] / "scale" / "sweep.py"
CHOICES = {"rank": [1, 2, 4], "seed": [0, 1], "kind": ["a", "b"]}
ALL = [dict(zip(CHOICES, values)) for values in itertools.product(*CHOICES.values())]

WORKER = """
import sys, time
from pathlib import Path
from rapidadapt_lessons.scaling import sweep
sweep.HEARTBEAT_SECONDS, sweep.GRACE_SECONDS = 1, 3
storage, seconds, dies = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "dies"
def objective(settings):
    log = storage.with_name("begun.txt")
    with open(log, "a") as file:
        file.write(f"{settings}\\n")
    if dies and len(log.read_text().splitlines()) >= 3:
        time.sleep(600)
    time.sleep(seconds)
    return settings["rank"] + settings["seed"] / 10
print(sweep.run_sweep(storage, {"rank": [1, 2, 4], "seed": [0, 1], "kind": ["a", "b"]}, objective))
"""


def value(settings: dict) -> float:
    return settings["rank"] + settings["seed"] / 10


def the_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale_sweep", SWEEP)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(autouse=True)
def quick_hearts(monkeypatch):
    """Find out in seconds that a worker has died. The workers' own script sets the same."""
    monkeypatch.setattr(sweep, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(sweep, "GRACE_SECONDS", 3)


def finished_once(storage: Path) -> bool:
    """Say whether every combination has one finished trial in the file, and the right value."""
    done = [trial for trial in sweep._open(storage).trials if trial.state.name == "COMPLETE"]
    times = Counter(sweep._key(trial.params) for trial in done)
    return times == Counter(map(sweep._key, ALL)) and all(trial.value == value(trial.params) for trial in done)


def test_a_sweep_runs_every_combination_and_can_be_taken_up_again(tmp_path):
    storage, ran = tmp_path / "new" / "sweep.db", []

    def objective(settings):
        ran.append(settings)
        return value(settings)

    assert sweep.run_sweep(storage, CHOICES, objective, most=5) == 5
    assert sweep.counts(storage) == {"finished": 5, "waiting": 7, "running": 0, "put back": 0}
    assert [r.settings for r in sweep.results(storage)] == ALL[:5]
    assert sweep.run_sweep(storage, CHOICES, objective) == 7
    assert sweep.run_sweep(storage, CHOICES, objective) == 0
    assert ran == ALL and finished_once(storage)
    assert sweep.results(storage) == [sweep.Result(settings, value(settings)) for settings in ALL]


def test_results_as_groups_and_table():
    found = [sweep.Result(s, value(s)) for s in reversed(ALL)]
    assert list(sweep.by_setting(found, "rank")) == [1, 2, 4]
    assert sorted(sweep.by_setting(found, "rank")[2]) == [2.0, 2.0, 2.1, 2.1]
    assert the_script().markdown_table(found, "rank").splitlines()[3] == "| 2 | 4 | 2.050 | 2.000 | 2.100 |"


def test_a_trial_that_fails_waits_again_and_the_error_is_seen(tmp_path):
    storage = tmp_path / "sweep.db"

    def objective(settings):
        raise ZeroDivisionError("no")

    with pytest.raises(ZeroDivisionError):
        sweep.run_sweep(storage, CHOICES, objective)
    assert sweep.counts(storage) == {"finished": 0, "waiting": 12, "running": 0, "put back": 1}
    assert sweep.run_sweep(storage, CHOICES, value) == 12 and finished_once(storage)


@pytest.fixture
def worker(tmp_path) -> Path:
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    return tmp_path / "worker.py"


def test_two_workers_share_one_storage_and_none_of_the_work(worker, tmp_path):
    storage = tmp_path / "sweep.db"
    options = [storage, 0.3, "lives"]
    with launch(worker, options, processes=1) as one, launch(worker, options, processes=1) as other:
        assert (one.wait(200), other.wait(200)) == (0, 0), one.output() + other.output()
        done = [int(each.output()) for each in (one, other)]
    assert sum(done) == 12 and min(done) > 0
    begun = (tmp_path / "begun.txt").read_text().splitlines()
    assert sorted(begun) == sorted(map(str, ALL))
    assert finished_once(storage)


@contextmanager
def killed_in_its_third_trial(worker: Path, storage: Path):
    """Start a worker, wait until it is in its third trial, and kill it at the end of the block."""
    begun = storage.with_name("begun.txt")
    with launch(worker, [storage, 0.0, "dies"], processes=1) as doomed:
        assert doomed.wait_until(lambda: begun.exists() and len(begun.read_text().splitlines()) == 3, 200)
        yield
        psutil.Process(doomed._process.pid).kill()
        assert doomed.wait(60) == -signal.SIGKILL


def test_the_trial_of_a_killed_worker_is_done_by_the_next_and_none_twice(worker, tmp_path):
    storage = tmp_path / "sweep.db"
    with killed_in_its_third_trial(worker, storage):
        assert sweep.counts(storage)["running"] == 1
        assert sweep.run_sweep(storage, CHOICES, value, most=1) == 1  # one that lives keeps its trial
        assert sweep.counts(storage) == {"finished": 3, "waiting": 8, "running": 1, "put back": 0}
    assert sweep.run_sweep(storage, CHOICES, value) == 9
    assert sweep.counts(storage) == {"finished": 12, "waiting": 0, "running": 0, "put back": 1}
    assert finished_once(storage)


def test_two_workers_of_one_process_see_each_other(tmp_path):
    storage, inner = tmp_path / "sweep.db", []

    def objective(settings):
        if not inner:
            inner.append(1)
            inner.append(sweep.run_sweep(storage, CHOICES, value))
        return value(settings)

    assert sweep.run_sweep(storage, CHOICES, objective) == 1 and inner == [1, 11]
    assert finished_once(storage) and sweep.counts(storage)["put back"] == 0


def test_an_objective_that_returns_no_number_is_told_and_its_trial_waits(tmp_path):
    storage = tmp_path / "sweep.db"
    with pytest.raises(CourseError, match=r"returned NaN for \{'rank': 1, 'seed': 0, 'kind': 'a'\}"):
        sweep.run_sweep(storage, CHOICES, lambda settings: math.nan)
    assert sweep.counts(storage) == {"finished": 0, "waiting": 12, "running": 0, "put back": 1}
    assert sweep.run_sweep(storage, CHOICES, value) == 12 and finished_once(storage)
    assert [r.settings for r in sweep.results(storage)] == ALL


def test_a_kill_while_a_trial_was_put_back_neither_loses_nor_doubles_it(tmp_path):
    import optuna

    storage = tmp_path / "sweep.db"
    sweep.run_sweep(storage, CHOICES, value, most=2)
    study = sweep._open(storage)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)  # the first half of putting back
    assert sweep.counts(storage) == {"finished": 2, "waiting": 9, "running": 0, "put back": 1}
    assert sweep.run_sweep(storage, CHOICES, value) == 10
    assert finished_once(storage)


def test_a_worker_that_slept_leaves_its_trial_to_the_one_that_took_it_over(tmp_path, monkeypatch):
    """As on a closed laptop: the heart stops, another worker does the trial, and the first one wakes up."""
    from optuna.storages import RDBStorage

    storage, slept = tmp_path / "sweep.db", []

    def sleeps(settings):
        if not slept:
            slept.append(settings)
            time.sleep(1)  # the heart beats once or twice
            with monkeypatch.context() as patch:
                patch.setattr(RDBStorage, "record_heartbeat", lambda self, trial: None)
                time.sleep(5)
                first = sweep.run_sweep(storage, CHOICES, value, most=1)  # takes the trial over before the heart beats
            slept.append(first + sweep.run_sweep(storage, CHOICES, value, most=11))
        return -1.0

    assert sweep.run_sweep(storage, CHOICES, sleeps) == 0
    assert slept == [ALL[0], 12] and finished_once(storage)


def test_a_pruner_ends_trials_that_fall_behind(tmp_path):
    import optuna

    storage, steps = tmp_path / "sweep.db", Counter()

    def objective(settings, trial):
        for step in range(3):
            steps[settings["rank"]] += 1
            trial.report(-value(settings), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value(settings)

    pruner = optuna.pruners.ThresholdPruner(lower=-3)
    assert sweep.run_sweep(storage, CHOICES, objective, pruner=pruner) == 12
    assert steps == {1: 12, 2: 12, 4: 4} and {r.settings["rank"] for r in sweep.results(storage)} == {1, 2}
    assert sweep.counts(storage) == {"finished": 8, "waiting": 0, "running": 0, "put back": 0, "pruned": 4}
    assert sweep.run_sweep(storage, CHOICES, objective, pruner=pruner) == 0


def test_a_plan_that_was_killed_half_way_is_completed(tmp_path, monkeypatch):
    import optuna

    storage, calls, enqueue = tmp_path / "sweep.db", [], optuna.Study.enqueue_trial

    def dies(study, settings):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        enqueue(study, settings)

    monkeypatch.setattr(optuna.Study, "enqueue_trial", dies)
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(storage, CHOICES, value)
    monkeypatch.undo()
    assert sweep.run_sweep(storage, CHOICES, value) == 12 and finished_once(storage)
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.db", "sweep.db.lock"}


def test_other_sweeps_and_other_files_are_refused_and_left_as_they_are(tmp_path):
    storage = tmp_path / "sweep.db"
    sweep.run_sweep(storage, CHOICES, value, fixed={"steps": 3}, most=1)
    for choices, fixed in ((CHOICES | {"rank": [1, 2]}, {"steps": 3}), (CHOICES, {"steps": 4}), (CHOICES, None)):
        with pytest.raises(CourseError, match="sweep.db holds another sweep: its (choices|fixed) are"):
            sweep.run_sweep(storage, choices, value, fixed=fixed)
    assert sweep.counts(storage)["finished"] == 1
    other = tmp_path / "notes.txt"
    other.write_text("my notes " * 1000)
    with pytest.raises(CourseError, match="notes.txt is no SQLite file"):
        sweep.run_sweep(other, CHOICES, value)
    assert other.read_text() == "my notes " * 1000
    for read in (sweep.results, sweep.counts):
        with pytest.raises(CourseError, match="there is no sweep in none.db"):
            read(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("choices", [{}, {"rank": []}, {"rank": [1, 1]}])
def test_choices_that_make_no_sense_are_refused_and_leave_nothing(tmp_path, choices):
    with pytest.raises(CourseError, match="the choices are|stands twice"):
        sweep.run_sweep(tmp_path / "sweep.db", choices, value)
    assert list(tmp_path.iterdir()) == []


def test_the_script_sweeps_with_a_real_training_run_and_writes_table_and_figure(tmp_path, monkeypatch, capsys):
    from scale_parts import write_tiny_model

    script = the_script()
    options = ["--out", str(tmp_path / "out"), "--model", str(write_tiny_model(tmp_path / "model"))]
    options += ["--ranks", "1", "2", "--seeds", "0", "1", "--rows", "8", "--test", "4", "--steps", "3", "--lr", "0.01"]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *options, "--measure", "perplexity"])
    assert script.main() == 0
    assert "this worker finished 4 trial(s); in all 4 finished, 0 waiting" in capsys.readouterr().out
    found = sweep.results(tmp_path / "out" / "sweep.db")
    assert len({round(r.value, 6) for r in found}) == 4, "rank or seed makes no difference"
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"| 2 | 2 | {sum(r.value for r in found if r.settings['rank'] == 2) / 2:.3f} |" in table
    assert (tmp_path / "out" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert script.main() == 0
    assert "this worker finished 0 trial(s)" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["sweep.py", *options])
    assert script.main() == 1
    assert "holds another sweep: its fixed are" in capsys.readouterr().err
