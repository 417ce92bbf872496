"""A study's rows on disk: one CSV file that pandas reads, with a header that says where the numbers come from.

    # study: lora_rate
    # script: studies/lora_rate.py
    # ...
    method,lr,seed,metric,value,seconds
    LoRA,0.001,0,test loss,0.4417,17.2

Rows are tidy: one number each. What a run was set to comes first, then its seed. `seconds` is how long the run took
that the number came out of.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CourseError
from ..files import write_whole
from ..show.intervals import interval

if TYPE_CHECKING:
    import pandas as pd

CSV_FORMAT = 1
AFTER_SETTINGS = ("seed", "metric", "value", "seconds")
HEADER_KEYS = ("format", "study", "script", "code", "date", "versions", "processor", "runs", "total seconds", "rows")
DAMAGED = "run `git checkout` on it, or compute the study again: python studies/{name}.py --anew"


@dataclass(frozen=True)
class Records:
    """The recorded runs of one study.

    Attributes:
        header: what the file says of itself, by name; see `HEADER_KEYS`.
        rows: a data frame with the settings' columns, then seed, metric, value, seconds.
    """

    header: Mapping[str, str]
    rows: pd.DataFrame = field(repr=False)

    @property
    def name(self) -> str:
        return self.header["study"]

    @property
    def settings(self) -> list[str]:
        """The columns that say what a run was set to."""
        return [column for column in self.rows.columns if column not in AFTER_SETTINGS]

    @property
    def seeds(self) -> list[int]:
        return sorted(self.rows["seed"].unique().tolist())

    def values(self, metric: str, **where: Any) -> pd.Series:
        """Return one metric's values by seed, with the settings given.

        Example: `load("lora_rate").values("test loss", method="LoRA", lr=1e-3)` has one value for each seed.

        Raises:
            CourseError: no row has this metric and these settings, or several of one seed have.
        """
        rows = self._rows_of(metric, where)
        if rows.empty or rows["seed"].duplicated().any():
            raise self._unclear("no row" if rows.empty else "several rows of one seed", metric, where)
        return rows.set_index("seed")["value"].sort_index()

    def means(self, metric: str, **where: Any) -> pd.Series:
        """Return one metric's mean by seed, over all runs with the settings given: over tasks, for instance.

        Example: `load("example_labels").means("accuracy", shown="random labels")` is the mean over its tasks. A tuple
        lets several values of a setting through. A run that diverged makes its seed's mean NaN.

        Raises:
            CourseError: no row has this metric and these settings.
        """
        rows = self._rows_of(metric, where)
        if rows.empty:
            raise self._unclear("no row", metric, where)
        return rows.groupby("seed")["value"].agg(lambda runs: runs.mean(skipna=False))

    def nested(self, metric: str, *columns: str, **where: Any) -> dict:
        """Return one metric's values over the seeds, by one or two settings: what `plots.curves` and `strips` draw.

        Example: `load("lora_rate").nested("test loss", "method", "lr", rank=(0, 8))` is {method: {lr: [one per seed]}}.
        A tuple lets several values of a setting through.

        Raises:
            CourseError: as `values`, for each combination that occurs.
        """
        self._require_settings(columns)
        rows = self._rows_of(metric, where)
        found: dict = {}
        for keys in rows[list(columns)].drop_duplicates().itertuples(index=False, name=None):
            inner = found
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
            inner[keys[-1]] = self.values(metric, **where | dict(zip(columns, keys))).tolist()
        if not found:
            self.values(metric, **where)  # says what there is
        return found

    def tuned(self, metric: str, over: Sequence[str], lowest: bool = True) -> Records:
        """Return the tuned runs alone: for all that is set besides, those whose settings `over` do best on validation.

        Example: `load("digit_scenarios").tuned("validation ACC", over=("lr", "strength"), lowest=False)` keeps one rate
        and strength for each scenario and method. Best is the mean over the seeds; one seed that diverged rules out.
        Raises CourseError for a setting that the study does not have.
        """
        self._require_settings(over)
        others = [column for column in self.settings if column not in over]
        values = self._rows_of(metric, {}).groupby([*others, *over], sort=False)["value"]
        means = values.agg(lambda seeds: seeds.mean(skipna=False)) * (1 if lowest else -1)
        best = means.loc[means.groupby(others or (lambda _: 0)).idxmin()].index.to_frame(index=False)
        return replace(self, rows=self.rows.merge(best))

    def _unclear(self, found: str, metric: str, where: Mapping[str, Any]) -> CourseError:
        known = "; ".join(f"{c}: {', '.join(map(str, self.rows[c].unique()))}" for c in [*self.settings, "metric"])
        return CourseError(f"{found} of {self.name!r} with {metric!r} and {where}.", f"there are {known}.")

    def _rows_of(self, metric: str, where: Mapping[str, Any]) -> pd.DataFrame:
        self._require_settings(where)
        rows = self.rows[self.rows["metric"] == metric]
        for column, value in where.items():
            rows = rows[rows[column].isin(value if isinstance(value, tuple) else (value,))]
        return rows

    def _require_settings(self, columns: Iterable[str]) -> None:
        for column in columns:
            if column not in self.settings:
                raise CourseError(
                    f"the study {self.name!r} has no setting {column!r}.", f"choose among {', '.join(self.settings)}."
                )


def gain(after: pd.Series, before: pd.Series) -> str:
    """Return what one method has over another, with its sign: the mean of the differences seed by seed, and its 95%
    interval. Example: `gain(found.values("accuracy", examples=8), found.values("accuracy", examples=0))` may be
    "+0.31 (+0.25 to +0.37)".

    Raises:
        CourseError: they do not have the same seeds.
    """
    if list(after.index) != list(before.index):
        raise CourseError(f"the seeds are {list(after.index)} and {list(before.index)}.", "compare the same seeds.")
    found = interval((after - before).tolist(), bounds=(-math.inf, math.inf))
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def recorded(folder: Path | None = None) -> list[str]:
    """Return the names of the studies that are recorded."""
    place = folder or resources.files(__package__)
    return sorted(path.name.removesuffix(".csv") for path in place.iterdir() if path.name.endswith(".csv"))


def load(name: str, *, folder: Path | None = None, partial: bool = False) -> Records:
    """Return a recorded study.

    Args:
        folder: where its file is; None for the package's own.
        partial: also one that is not complete yet.

    Raises:
        CourseError: there is no such study, or its file is incomplete, damaged, altered or of another version.
    """
    place = (folder or resources.files(__package__)) / f"{name}.csv"
    if not isinstance(name, str) or name not in (known := recorded(folder)):
        raise CourseError(f"no study {name!r} is recorded.", f"choose one of {', '.join(known) or '(there are none)'}.")
    return parse(place.read_text(encoding="utf-8"), name, partial)


def parse(text: str, name: str, partial: bool = False) -> Records:
    """Return what a study's file holds. Raises as `load`."""
    import pandas as pd

    lines = text.splitlines(keepends=True)
    above = [line for line in lines if line.startswith("# ")]
    header = dict(line[2:].strip().split(": ", 1) for line in above if ": " in line)
    remedy = DAMAGED.format(name=name)
    if header.get("format") != str(CSV_FORMAT):
        found = f"of format {header['format']}" if "format" in header else "without a header"
        raise CourseError(f"{name}.csv is {found}; this package reads format {CSV_FORMAT}.", remedy)
    if lacking := [key for key in HEADER_KEYS if key not in header]:
        raise CourseError(f"the header of {name}.csv lacks {', '.join(lacking)}.", remedy)
    body = "".join(lines[len(above) :])
    if header["rows"] != digest(body):
        raise CourseError(f"{name}.csv has been altered: its rows are not those that were written.", remedy)
    done, _, wanted = header["runs"].partition(" of ")
    if done != wanted and not partial:
        raise CourseError(
            f"{name}.csv has {done} of {wanted} runs.", f"let it finish: python studies/{name}.py goes on from there."
        )
    rows = pd.read_csv(io.StringIO(body), keep_default_na=False, na_values={"value": ["nan"]})
    return Records(header, rows)


def dump(header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> str:
    """Return a study's file: the header, and the rows in the order of settings, seed and metric."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=[*settings, *AFTER_SETTINGS])
    body = frame.to_csv(index=False, lineterminator="\n", na_rep="nan")
    told = {"format": CSV_FORMAT, **header, "rows": digest(body)}
    return "".join(f"# {key}: {' '.join(str(value).split())}\n" for key, value in told.items()) + body


def save(path: Path, header: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> None:
    """Write a study's file at one stroke: after a kill or on a full disk the file is the old one, whole."""
    write_whole(path, dump(header, rows, settings), sync=True)


def digest(body: str) -> str:
    """Return the first 16 hexadecimal digits of the rows' SHA-256."""
    return hashlib.sha256(body.encode()).hexdigest()[:16]
