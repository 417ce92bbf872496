"""What a run of one or several processes leaves on disk beside its adapter: written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import CourseError
from ..training.team import Team


@dataclass(frozen=True)
class RunReport:
    """What a run tells of itself.

    Attributes:
        processes: how many shared it.
        losses: of each update, before it.
        bytes_per_update: of gradients and loss that each process handed to the others; 0 for one process alone.
    """

    processes: int
    losses: tuple[float, ...]
    bytes_per_update: int


def write_report(path: str | Path, team: Team, losses: Sequence[float]) -> None:
    """Write a run's report as JSON. Only one process may call this."""
    each = team.handed_over // team.exchanges if team.exchanges else 0
    text = json.dumps({"processes": team.size, "losses": list(losses), "bytes_per_update": each}, indent=1)
    write_bytes(path, text.encode("utf-8"))


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

    write_bytes(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it: a kill at any moment leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
