"""Computing a study: settings x seeds, in several processes, with rows kept as they come.

A script `studies/NAME.py` imports from here, defines one `Study` and ends in `raise SystemExit(main(STUDY, __file__))`:

    python studies/NAME.py            compute what is missing, and write rapidadapt_lessons/studies/NAME.csv
    python studies/NAME.py --check    compute a sample again and compare it with what is recorded
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import math
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.studies import records
from rapidadapt_lessons.studies.records import AFTER_SETTINGS, load, parse, save

PACKAGES = ("torch", "transformers", "peft", "numpy", "scikit-learn")
RECORDED = Path(records.__file__).parent


@dataclass(frozen=True)
class Study:
    """One question, and the runs that answer it.

    Attributes:
        name: of its script and of its file.
        question: in one sentence, for whoever starts the script.
        run: `run(seed=0, **setting)` returns named numbers. It is a function of the script's own module, follows from
            its arguments alone, and gives NaN where training diverged.
        settings: what differs between runs; all have the same keys.
        seconds: how long one run takes in one thread, roughly; only said beforehand.
        tolerance: how far each metric may lie from its recorded value on another machine; `""` is for those not named.
        seeds: how many; at least five.
        quick: whether CI computes a sample again each time.
    """

    name: str
    question: str
    run: Callable[..., Mapping[str, float]]
    settings: Sequence[Mapping[str, Any]]
    seconds: float
    tolerance: Mapping[str, float]
    seeds: int = 5
    quick: bool = False

    def __post_init__(self) -> None:
        keys = {tuple(setting) for setting in self.settings}
        if len(keys) != 1 or set(*keys) & set(AFTER_SETTINGS):
            raise CourseError(
                f"the settings of {self.name!r} have the keys {sorted(keys)}.",
                f"give each the same ones, none of them {', '.join(AFTER_SETTINGS)}.",
            )
        if self.seeds < 5:
            raise CourseError(f"{self.name!r} has {self.seeds} seeds.", "five are the fewest to conclude from.")

    def jobs(self) -> list[tuple[dict[str, Any], int]]:
        """Return all runs, a seed at a time, so that a study that was stopped early has whole seeds."""
        return [(dict(setting), seed) for seed in range(self.seeds) for setting in self.settings]


def main(study: Study, script: str, arguments: Sequence[str] | None = None, folder: Path = RECORDED) -> int:
    """Run a study's script, and return its exit status: 1 where a check found a difference or a run failed."""
    parser = argparse.ArgumentParser(description=study.question)
    parser.add_argument("--processes", type=int, default=2, help="how many compute side by side, with one thread each")
    parser.add_argument("--anew", action="store_true", help="forget what is recorded")
    parser.add_argument("--check", action="store_true", help="compute a sample again and compare")
    parser.add_argument("--sample", type=int, default=2, help="with --check: how many runs")
    parser.add_argument(
        "--draw", type=int, default=date.today().toordinal(), help="with --check: which; by default today's"
    )
    parser.add_argument("--quick", action="store_true", help="with --check: only if the study is a quick one")
    chosen = parser.parse_args(arguments)
    if chosen.processes < 1 or chosen.sample < 1:
        parser.error("--processes and --sample take 1 or more.")
    path = folder / f"{study.name}.csv"
    try:
        if chosen.check:
            return 0 if chosen.quick and not study.quick else check(study, script, path, chosen.sample, chosen.draw)
        compute(study, script, path, chosen.processes, chosen.anew)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{path} cannot be read or written: {error.strerror or error}.", file=sys.stderr)
        print(
            "What to do: make room, or permit it; the rows so far are kept, and the command goes on.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. What is done is in {path.name}; the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def compute(study: Study, script: str, path: Path, processes: int = 2, anew: bool = False) -> None:
    """Compute the runs that are not recorded yet, and write their rows as they come.

    Raises:
        CourseError: what is recorded is damaged, or came from other code; or a process was killed.
    """
    from tqdm.auto import tqdm

    rows = [] if anew or not path.exists() else _rows_so_far(study, script, path)
    columns = list(study.settings[0])
    done = {(*(row[key] for key in columns), row["seed"]) for row in rows}
    todo = [(setting, seed) for setting, seed in study.jobs() if (*setting.values(), seed) not in done]
    known = [row["seconds"] for row in rows]
    each = sum(known) / len(known) if known else study.seconds
    print(f"{study.question}")
    print(f"{len(todo)} of {len(study.jobs())} runs to do: about {_minutes(len(todo) * each / processes)}.", flush=True)
    if not todo:
        return
    order = {tuple(setting.values()): i for i, setting in enumerate(study.settings)}
    origin = _origin(study, script)  # of the code that runs, also where somebody edits the script meanwhile

    def keep(new: Sequence[Mapping[str, Any]]) -> None:
        rows.extend(new)
        # A stable sort: a run's metrics stay in the order in which it returned them.
        rows.sort(key=lambda row: (order[tuple(row[key] for key in columns)], row["seed"]))
        save(path, origin | _progress(study, rows), rows, columns)

    with _executor(processes) as submit, tqdm(total=len(todo), unit="run") as bar:
        for setting, seed, found, seconds in submit(study, todo):
            told = {"seed": seed, "seconds": round(seconds, 2)}
            keep([{**setting, **told, "metric": metric, "value": value} for metric, value in found.items()])
            bar.update()


def check(study: Study, script: str, path: Path, sample: int, draw: int) -> int:
    """Compute some runs again and say whether they agree with what is recorded; return 1 where one does not.

    Raises:
        CourseError: nothing is recorded, or it came from other code.
    """
    recorded = load(study.name, folder=path.parent)
    _require_same_code(study, script, recorded.header)
    wrong = 0
    for setting, seed in random.Random(draw).sample(study.jobs(), min(sample, len(study.jobs()))):
        found = study.run(seed=seed, **setting)
        for metric, value in found.items():
            was = float(recorded.values(metric, **setting)[seed])
            allowed = study.tolerance.get(metric, study.tolerance.get("", 0.0))
            same = abs(value - was) <= allowed or (math.isnan(value) and math.isnan(was))
            wrong += not same
            mark = "same" if same else f"DIFFERENT by more than {allowed:g}"
            print(f"{study.name} {setting} seed {seed}: {metric} {was:.6g} recorded, {value:.6g} now: {mark}")
    return int(wrong > 0)


def code_digest(script: str | Path) -> str:
    """Return a digest of a script that its comments, docstrings and layout have no part in."""
    tree = ast.parse(Path(script).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _rows_so_far(study: Study, script: str, path: Path) -> list[dict[str, Any]]:
    recorded = parse(path.read_text(encoding="utf-8"), study.name, partial=True)
    _require_same_code(study, script, recorded.header)
    whole = recorded.rows.to_dict("records")
    types = {key: type(value) for key, value in study.settings[0].items()}
    return [{key: types[key](value) if key in types else value for key, value in row.items()} for row in whole]


def _require_same_code(study: Study, script: str, header: Mapping[str, str]) -> None:
    if header["code"] != code_digest(script):
        raise CourseError(
            f"{study.name}.csv came from another version of {Path(script).name}.",
            "put the script back, or compute all of it again with --anew.",
        )


def _origin(study: Study, script: str) -> dict[str, Any]:
    return {
        "study": study.name,
        "question": study.question,
        "script": f"studies/{Path(script).name}",
        "code": code_digest(script),
        "date": date.today().isoformat(),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{n} {metadata.version(n)}" for n in PACKAGES)]
        ),
        "processor": _processor(),
    }


def _progress(study: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = {(*(row[key] for key in study.settings[0]), row["seed"]): row["seconds"] for row in rows}
    return {
        "runs": f"{len(seconds)} of {len(study.jobs())}",
        "total seconds": f"{sum(seconds.values()):.0f}, in one thread each",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _timed(run: Callable[..., Mapping[str, float]], setting: Mapping[str, Any], seed: int) -> tuple:
    start = time.perf_counter()
    found = dict(run(seed=seed, **setting))
    return setting, seed, found, time.perf_counter() - start


@contextmanager
def _executor(processes: int) -> Iterator[Callable[[Study, Sequence[tuple[dict, int]]], Iterator[tuple]]]:
    """Yield a function that does jobs and hands over each as it ends: in this process, or in several."""
    if processes == 1:
        yield lambda study, jobs: (_timed(study.run, setting, seed) for setting, seed in jobs)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:

        def submit(study: Study, jobs: Sequence[tuple[dict, int]]) -> Iterator[tuple]:
            try:
                for future in as_completed([pool.submit(_timed, study.run, setting, seed) for setting, seed in jobs]):
                    yield future.result()
            except BrokenProcessPool as error:
                raise CourseError(
                    "a process was killed, most likely for want of memory; the rows so far are kept.",
                    "start the same command again, with --processes 1 if it happens twice.",
                ) from error

        try:
            yield submit
        except BaseException:
            pool.shutdown(cancel_futures=True, wait=False)
            for process in list((pool._processes or {}).values()):  # those at work would go on for minutes
                process.terminate()
            raise
