"""A sweep that several workers share and a killed one can go on from: Optuna (Akiba et al. 2019) over a SQLite file.

Every combination of settings is one trial, planned before anything runs. While a worker runs one, Optuna writes a
heartbeat; a trial without one for `GRACE_SECONDS` waits again. The file belongs on a disk of this machine.
"""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CourseError

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage

Settings = dict[str, Any]
HEARTBEAT_SECONDS, GRACE_SECONDS = 5, 30


@dataclass(frozen=True)
class Result:
    """A finished trial and what the objective returned."""

    settings: Settings
    value: float


def run_sweep(
    storage: str | Path,
    choices: Mapping[str, Sequence[Any]],
    objective: Callable[..., float],
    *,
    fixed: Mapping[str, Any] | None = None,
    most: int | None = None,
    pruner: BasePruner | None = None,
) -> int:
    """Run the trials of a sweep that wait, until none is left, and return how many this worker ended.

    Call it again, or in several processes at once, with the same storage and choices. At the end it waits while other
    workers run trials, but no longer than it takes to find out which of these workers have died.

    Args:
        storage: a file, made when it is not there.
        choices: for each setting, the values to try: numbers, words and booleans.
        objective: takes a trial's settings and returns a number, the higher the better.
        fixed: what is the same in all trials; a sweep with other values is another sweep.
        most: stop after so many trials.
        pruner: one of `optuna.pruners`, to end trials early that fall behind. The objective is then called with the
            settings and Optuna's trial, for its `report` and `should_prune`.

    Raises CourseError where there is nothing to choose from, the storage is of another sweep, or the objective returned
    NaN; and what the objective raises. Its trial then waits again.
    """
    from filelock import FileLock

    storage, grid = Path(storage), _grid(choices)
    storage.parent.mkdir(parents=True, exist_ok=True)
    # SQLite locks no rows, so two workers could take the same trial. The system frees this lock when its holder dies.
    lock = FileLock(storage.with_name(f"{storage.name}.lock"), timeout=120)
    with lock:
        study = _begin(storage, {"choices": grid, "fixed": dict(fixed or {})}, pruner)

    def run(trial: Trial) -> float:
        settings = {name: trial.suggest_categorical(name, list(values)) for name, values in choices.items()}
        value = float(objective(settings, trial) if pruner else objective(settings))
        if math.isnan(value):
            remedy = "let it return a number for these settings too, such as the worst where training diverges."
            raise CourseError(f"the objective returned NaN for {settings}.", remedy)
        return value

    done, idle_since = 0, None
    while most is None or done < most:
        with lock:
            _plan_what_is_left(study, grid)
            states = [trial.state.name for trial in study.trials]
            if "WAITING" in states:
                done, idle_since = done + _run_next(study, grid, run, lock), None
                continue
        idle_since = idle_since or time.monotonic()
        if "RUNNING" not in states or time.monotonic() - idle_since > GRACE_SECONDS + 2:  # beats count whole seconds
            break
        time.sleep(0.5)
    return done


def results(storage: str | Path) -> list[Result]:
    """Return the finished trials of a sweep, in the order of the plan; CourseError where there is no such sweep."""
    study = _open(Path(storage))
    found = {_key(trial.params): trial.value for trial in study.trials if trial.state.name == "COMPLETE"}
    planned = json.loads(study.user_attrs["choices"])
    return [Result(settings, found[_key(settings)]) for settings in planned if _key(settings) in found]


def counts(storage: str | Path) -> dict[str, int]:
    """Return how many trials are "finished", "waiting", "running", "put back" after a death or an error, and "pruned",
    if any. Raises as `results`.
    """
    states = Counter(trial.state.name for trial in _open(Path(storage)).trials)
    names = {"finished": "COMPLETE", "waiting": "WAITING", "running": "RUNNING", "put back": "FAIL", "pruned": "PRUNED"}
    return {name: states[state] for name, state in names.items() if name != "pruned" or states[state]}


def by_setting(found: Sequence[Result], name: str) -> dict[Any, list[float]]:
    """Return the values of the results for each value of one setting, in increasing order of the setting."""
    groups: dict[Any, list[float]] = {}
    for result in found:
        groups.setdefault(result.settings[name], []).append(result.value)
    return dict(sorted(groups.items()))


def _grid(choices: Mapping[str, Sequence[Any]]) -> list[Settings]:
    if not choices or not all(choices.values()):
        raise CourseError(f"the choices are {dict(choices)}.", "give at least one setting, each with a value or more.")
    grid = [dict(zip(choices, values)) for values in itertools.product(*choices.values())]
    if len(set(map(_key, grid))) < len(grid):
        raise CourseError(f"a value stands twice in {dict(choices)}.", "name each value once.")
    return grid


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _plan_what_is_left(study: Study, grid: Sequence[Settings]) -> None:
    """Let each combination wait that has no trial yet, or only failed ones. To be called under the lock."""
    # Not by Optuna's RetryHeartbeatStaleTrialCallback: a kill between its two steps loses a trial.
    from optuna.storages import fail_stale_trials

    with warnings.catch_warnings(action="ignore"):  # Optuna calls heartbeats experimental
        fail_stale_trials(study)
    alive = {_key(trial.system_attrs["fixed_params"]) for trial in study.trials if trial.state.name != "FAIL"}
    for settings in grid:
        if _key(settings) not in alive:
            study.enqueue_trial(settings)


def _run_next(study: Study, grid: Sequence[Settings], run: Callable[[Trial], float], lock: BaseFileLock) -> bool:
    """Run the first trial that waits, under the lock until it is taken, and return whether its end was written down."""
    overtaken = False

    def take(trial: Trial) -> float:
        nonlocal overtaken
        lock.release(force=True)
        try:
            return run(trial)
        finally:  # a worker that slept, as on a closed laptop, was taken for dead, and another one has its trial
            overtaken = study.trials[trial.number].state.name != "RUNNING"

    try:
        study.optimize(take, n_trials=1)
    except (Exception, KeyboardInterrupt):  # after which the trial counts as failed
        if not overtaken:
            with lock:
                _plan_what_is_left(study, grid)
            raise
    return not overtaken


def _begin(storage: Path, plan: Mapping[str, Any], pruner: BasePruner | None) -> Study:
    """Return the sweep of a new storage, or go on with one that was begun with the same plan."""
    import optuna

    options = {"direction": "maximize", "pruner": pruner or optuna.pruners.NopPruner(), "load_if_exists": True}
    study = optuna.create_study(storage=_database(storage), study_name="sweep", **options)
    for name, wanted in plan.items():
        text = json.dumps(wanted)
        held = study.user_attrs.get(name, text)
        if json.loads(held) != json.loads(text):
            problem = f"{storage.name} holds another sweep: its {name} are {held[:200]}, not {wanted}."
            raise CourseError(problem, "name another file, or give the same settings to go on.")
        study.set_user_attr(name, text)
    return study


def _open(storage: Path) -> Study:
    import optuna

    if not storage.is_file():
        raise CourseError(f"there is no sweep in {storage.name}.", "run it first, or give another file.")
    try:
        return optuna.load_study(storage=_database(storage), study_name="sweep")
    except KeyError as error:
        raise CourseError(f"{storage.name} holds no sweep.", "give another file.") from error


def _database(storage: Path) -> RDBStorage:
    import optuna
    from sqlalchemy.exc import DatabaseError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    address = f"sqlite:///{storage.resolve().as_posix()}"
    heart = {"heartbeat_interval": HEARTBEAT_SECONDS, "grace_period": GRACE_SECONDS}
    try:
        with warnings.catch_warnings(action="ignore"):  # Optuna calls heartbeats experimental
            return optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}}, **heart)
    except DatabaseError as error:
        raise CourseError(f"{storage.name} is no SQLite file.", "give another file.") from error
