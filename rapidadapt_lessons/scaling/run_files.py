"""The report that a run leaves on disk beside its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import CourseError
from ..files import write_whole
from ..training.team import Team


@dataclass(frozen=True)
class RunReport:
    """What a run says of itself."""

    processes: int  # how many shared it
    losses: tuple[float, ...]  # of each update, before it
    bytes_per_update: int  # of gradients and loss that each process sent; 0 for one process alone


def write_report(path: str | Path, team: Team, losses: Sequence[float]) -> None:
    """Write a run's report as JSON. Only one process may call this."""
    report = RunReport(team.world_size, tuple(losses), team.bytes_sent // max(1, team.messages))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(report), indent=1), sync=True)


def read_report(path: str | Path) -> RunReport:
    """Read a run's report. Raises CourseError where there is none, or it is not one."""
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return RunReport(found["processes"], tuple(found["losses"]), found["bytes_per_update"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{path.name} is not the report of a run ({type(error).__name__})."
        raise CourseError(problem, "let the run end, or look at what it printed.") from error
