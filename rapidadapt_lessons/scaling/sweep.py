"""A sweep that several workers share and a killed one can go on from: Optuna (Akiba et al. 2019) over a SQLite file.

Every combination of settings is one trial, written into the file before anything runs. A worker takes a trial that
waits, runs it, writes the result, and takes the next. Who runs a trial stands beside it, so that the trial of a worker
that died is put back.

A worker lives as long as it holds a lock of its own, which the system frees when the worker dies: neither the machine's
name nor its clock has a say. All on one machine: SQLite's file and the locks are not for network drives. On a drive
that machines share, a lock taken on one must be seen on the others; where it is not, a trial that runs there is taken
for one whose worker died.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..errors import CourseError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

Settings = dict[str, Any]
_OWNER = "owner"


@dataclass(frozen=True)
class Result:
    """A finished trial: its settings and what the objective returned."""

    settings: Settings
    value: float


def run_sweep(
    storage: str | Path,
    choices: Mapping[str, Sequence[Any]],
    objective: Callable[[Settings], float],
    *,
    fixed: Mapping[str, Any] | None = None,
    most: int | None = None,
) -> int:
    """Run the trials of a sweep that wait, until none is left, and return how many this worker finished.

    Call it again, or in several processes at once, with the same storage and choices.

    Args:
        storage: a file, made when it is not there.
        choices: for each setting, the values to try; all combinations are. Numbers, words and booleans.
        objective: what a trial runs. It must follow from the settings and `fixed`.
        fixed: what is the same in all trials, such as the number of updates. It is kept with the plan, and a sweep
            with other values is another sweep.
        most: stop after so many trials.

    Raises:
        CourseError: nothing to choose from, the storage is of another sweep, or the objective returned NaN. What the
            objective raises is raised too. In both cases its trial goes back to those that wait.
    """
    storage = Path(storage)
    _prepare(storage, choices, fixed or {})
    done = 0
    with _signed_on(storage) as worker:
        while most is None or done < most:
            with _locked(storage):
                study = _study(storage)
                _put_back_what_died(storage, study, worker)
                if not any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False)):
                    return done
                trial = study.ask()
                trial.set_user_attr(_OWNER, worker)
                settings = {name: trial.suggest_categorical(name, list(values)) for name, values in choices.items()}
            try:
                value = _a_number(objective(settings), settings)
            except BaseException:
                with _locked(storage):
                    _put_back(study, study.trials[trial.number])
                raise
            with _locked(storage):
                study.tell(trial, value)
            done += 1
    return done


def results(storage: str | Path) -> list[Result]:
    """Return the finished trials of a sweep, in the order in which they were planned.

    Raises:
        CourseError: there is no such sweep.
    """
    storage = Path(storage)
    if not storage.is_file():
        raise CourseError(f"there is no sweep in {storage.name}.", "run it first, or give another file.")
    planned = _planned(storage)
    finished = [trial for trial in _trials(storage) if trial.state.name == "COMPLETE"]
    found = {_key(trial.params): Result(dict(trial.params), trial.value) for trial in finished}
    return [found[_key(settings)] for settings in planned if _key(settings) in found]


def counts(storage: str | Path) -> dict[str, int]:
    """Return how many trials are "finished", "waiting" and "running", and how many were "put back" after a death."""
    names = {"COMPLETE": "finished", "WAITING": "waiting", "RUNNING": "running", "FAIL": "put back"}
    told = dict.fromkeys(names.values(), 0)
    for trial in _trials(Path(storage)):
        told[names[trial.state.name]] += 1
    return told


def by_setting(found: Sequence[Result], name: str) -> dict[Any, list[float]]:
    """Return the values of the results for each value of one setting, in increasing order of the setting."""
    groups: dict[Any, list[float]] = {}
    for result in found:
        groups.setdefault(result.settings[name], []).append(result.value)
    return dict(sorted(groups.items()))


def table(found: Sequence[Result], name: str) -> str:
    """Return the results as a Markdown table: for each value of a setting, how many trials, mean, lowest, highest."""
    lines = [f"| {name} | trials | mean | lowest | highest |", "|---|---|---|---|---|"]
    for setting, values in by_setting(found, name).items():
        lines.append(f"| {setting} | {len(values)} | {mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |")
    return "\n".join(lines)


def _prepare(storage: Path, choices: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any]) -> None:
    """Write all combinations into a new storage, at one stroke, or make sure that an old one holds the same."""
    if not choices or not all(choices.values()):
        raise CourseError(f"the choices are {dict(choices)}.", "give at least one setting, each with a value or more.")
    grid = [dict(zip(choices, values)) for values in itertools.product(*choices.values())]
    if len({_key(settings) for settings in grid}) < len(grid):
        raise CourseError(f"a value stands twice in {dict(choices)}.", "name each value once.")
    import optuna

    storage.parent.mkdir(parents=True, exist_ok=True)
    with _locked(storage):
        if storage.exists():
            held = _study(storage).user_attrs
            plan = {"choices": grid, "fixed": json.loads(json.dumps(dict(fixed)))}
            for name, wanted in plan.items():
                if json.loads(held[name]) != wanted:
                    raise CourseError(
                        f"{storage.name} holds another sweep: its {name} are {held[name][:200]}, not {wanted}.",
                        "name another file, or give the same settings to go on.",
                    )
            return
        # Planned under another name, and renamed when all is there: a kill leaves no half of a plan.
        part = storage.with_name(f"{storage.name}.part")
        part.unlink(missing_ok=True)
        database = _database(part)
        study = optuna.create_study(storage=database, study_name="sweep", direction="maximize")
        study.set_user_attr("choices", json.dumps(grid))
        study.set_user_attr("fixed", json.dumps(dict(fixed)))
        for settings in grid:
            study.enqueue_trial(settings)
        database.remove_session()
        database.engine.dispose()
        os.replace(part, storage)


def _a_number(value: float, settings: Settings) -> float:
    if math.isnan(value := float(value)):
        raise CourseError(
            f"the objective returned NaN for {settings}.",
            "let it return a number for these settings too, such as the worst there is where training diverges.",
        )
    return value


def _put_back_what_died(storage: Path, study: Study, worker: str) -> None:
    """Let trials wait again whose worker is gone. To be called, by a worker, under the lock."""
    living = {worker, *_others_alive(storage, worker)}
    for trial in study.get_trials(deepcopy=False):
        # Without an owner where it died between taking the trial and signing; an earlier version signed with a list.
        owner = trial.user_attrs.get(_OWNER)
        if trial.state.name == "RUNNING" and not (isinstance(owner, str) and owner in living):
            _put_back(study, trial)


def _put_back(study: Study, trial: FrozenTrial) -> None:
    from optuna.trial import TrialState

    others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number and t.state.name != "FAIL"]
    if _settings(trial) not in [_settings(other) for other in others]:
        # First, so that a kill between the two loses nothing; and only then, so that it doubles nothing.
        study.enqueue_trial(_settings(trial))
    study.tell(trial.number, state=TrialState.FAIL)


def _settings(trial: FrozenTrial) -> Settings:
    return trial.system_attrs["fixed_params"]  # as planned, also where a kill came before all were taken up


@contextmanager
def _signed_on(storage: Path) -> Iterator[str]:
    """Hold a lock of this worker's own, and yield the worker's name, which is the lock's and is never given again.

    The file is made, looked at and deleted by the others only under the storage's lock.
    """
    from filelock import FileLock

    name = uuid4().hex
    file = _workers(storage) / name
    own = FileLock(file)
    with _locked(storage):
        file.parent.mkdir(exist_ok=True)
        own.acquire(timeout=0)
    try:
        yield name
    finally:
        own.release()
        with _locked(storage):
            _delete(file)


def _others_alive(storage: Path, worker: str) -> Iterator[str]:
    """Yield the names of the other workers whose lock is held, and delete the files of those that died."""
    from filelock import FileLock, Timeout

    for file in [file for file in _workers(storage).glob("*") if file.name != worker]:
        try:
            with FileLock(file, timeout=0):
                pass
        except Timeout:
            yield file.name
        else:
            _delete(file)  # nobody takes this lock again


def _delete(file: Path) -> None:
    file.unlink(missing_ok=True)
    with suppress(OSError):  # others are in it, or another worker took it away
        file.parent.rmdir()


def _workers(storage: Path) -> Path:
    return storage.with_name(f"{storage.name}.workers")


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _planned(storage: Path) -> list[Settings]:
    return json.loads(_study(storage).user_attrs["choices"])


def _trials(storage: Path) -> list[FrozenTrial]:
    return _study(storage).get_trials(deepcopy=False)


def _database(storage: Path):
    import optuna
    from sqlalchemy.exc import DatabaseError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = f"sqlite:///{storage.resolve().as_posix()}"
    try:
        return optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}})
    except DatabaseError as error:
        raise CourseError(f"{storage.name} is no SQLite file.", "give another file.") from error


def _study(storage: Path) -> Study:
    import optuna

    try:
        return optuna.load_study(storage=_database(storage), study_name="sweep")
    except KeyError as error:
        raise CourseError(f"{storage.name} holds no sweep.", "give another file.") from error


@contextmanager
def _locked(storage: Path) -> Iterator[None]:
    """Hold the lock beside the storage. The system frees it when its holder dies."""
    from filelock import FileLock

    with FileLock(storage.with_name(f"{storage.name}.lock"), timeout=120):
        yield
