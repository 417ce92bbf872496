"""What a run of one or several processes leaves on disk beside its adapter: written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from ..errors import CourseError
from ..files import write_whole
from ..training.team import Team


@dataclass(frozen=True)
class RunReport:
    """What a run tells of itself.

    Attributes:
        processes: how many shared it.
        losses: of each update, before it.
        bytes_per_update: of gradients and loss that each process sent to the others; 0 for one process alone.
    """

    processes: int
    losses: tuple[float, ...]
    bytes_per_update: int


def write_report(path: str | Path, team: Team, losses: Sequence[float]) -> None:
    """Write a run's report as JSON. Only one process may call this."""
    report = RunReport(team.world_size, tuple(losses), team.bytes_sent // max(1, team.messages))
    _write(path, json.dumps(asdict(report), indent=1))


def read_report(path: str | Path) -> RunReport:
    """Read a run's report.

    Raises:
        CourseError: there is none, or it is not one.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return RunReport(found["processes"], tuple(found["losses"]), found["bytes_per_update"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{path.name} is not the report of a run ({type(error).__name__})."
        raise CourseError(problem, "let the run end, or look at what it printed.") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in safetensors' format. Only one process may call this."""
    from safetensors.torch import save

    _write(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def _write(path: str | Path, data: str | bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data, sync=True)
