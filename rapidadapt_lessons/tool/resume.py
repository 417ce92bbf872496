"""The work of a run that takes minutes, kept beside its output until it is done, so that a killed run goes on.

Beside the output folder OUT lies OUT.unfinished while a run is under way. It holds `options.json`, which says what the
run is of, a file for each part that is done or, for training, under way, and a lock: two runs with one OUT would write
the same files. At the end the output is put in place at one stroke, and the folder goes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from ..errors import CheckpointMismatch, CourseError, NotEnoughDisk
from ..training.checkpoint import load_checkpoint, save_checkpoint

OPTIONS, LOCK = "options.json", "lock"
ROOM = 64_000_000  # bytes that a run may need at once


@dataclass(frozen=True)
class Unfinished:
    """A run's own folder.

    Attributes:
        folder: where it lies.
        identity: what the run is of, in plain values.
        resumed: whether it goes on from an earlier one.
        lock: held until the folder is left. The system frees it when the run is killed.
    """

    folder: Path
    identity: dict[str, Any]
    resumed: bool
    lock: FileLock

    def once(self, name: str, do: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return what `do` returns, tensors and plain values; where an earlier run has done it, what it kept."""
        path = self.folder / f"{name}.pt"
        if (kept := load_checkpoint(path, self.identity)) is None:
            kept = do()
            save_checkpoint(path, self.identity, kept)
        return kept

    def leave(self, *, delete: bool | None = None) -> None:
        """Let go of the folder. It is deleted, if this isn't said, unless something was done that took time."""
        if not self.lock.is_locked:  # it was left before, and may by now be another run's
            return
        place = self.folder
        delete = not any(place.glob("*.pt")) if delete is None else delete
        if delete:
            with suppress(OSError):  # Windows renames no folder with an open file
                place = place.replace(_hidden(place))  # nobody takes up one that is half deleted
            shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            (place / LOCK).unlink()
        self.lock.release()
        if delete:
            shutil.rmtree(place, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Return where a file of the run lies."""
        return self.folder / name


def require_new(out: Path) -> None:
    """Raise CourseError where the output folder is there and not empty, or cannot be made or replaced."""
    if out.is_symlink():
        raise CourseError(f"{out.name} is a link, and the output is a folder.", "name the folder itself with --out.")
    if out.is_dir():
        if any(out.iterdir()):
            raise CourseError(f"the output folder {out.name} is not empty.", "name another with --out, or empty it.")
    elif out.exists():
        raise CourseError(f"{out.name} is a file, and the output is a folder.", "name another with --out.")
    above = next(p for p in out.absolute().parents if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise CourseError(f"nothing can be written to the folder {above.name or above}.", "name another with --out.")
    if (free := shutil.disk_usage(above).free) < ROOM:
        raise NotEnoughDisk(
            f"the disk of {out.name} has {free / 1e6:.0f} MB free; {ROOM / 1e6:.0f} MB are needed.",
            "free some space, or name a folder elsewhere with --out.",
        )
    if out.is_dir():
        _require_replaceable(out)


def _require_replaceable(out: Path) -> None:
    """Raise CourseError where an empty folder cannot give way to the output: a mount point, or the current folder."""
    if out.samefile(os.curdir):
        raise CourseError(f"the output folder {out.name} is the current one.", "name a new one, such as --out result.")
    try:
        out.replace(_hidden(out)).replace(out)
    except OSError as error:
        raise CourseError(
            f"the output folder {out.name} cannot be replaced ({error.strerror}).",
            f"name a new folder in it, such as {out.name}/result, with --out.",
        ) from error


def place_of(out: Path) -> Path:
    """Return where the unfinished work for an output folder lies."""
    return out.with_name(f"{out.name}.unfinished")


def open_unfinished(out: Path, identity: Mapping[str, Any]) -> Unfinished:
    """Make the folder, or go on with the one that is there.

    Raises:
        CheckpointMismatch: the one that is there is of other data or options, or of something else. It is left alone.
        NotEnoughDisk, CourseError: nothing can be written, or another run with the same output is under way.
    """
    folder = place_of(out)
    identity = json.loads(json.dumps(identity))
    resumed = folder.exists()
    if resumed and not (folder / OPTIONS).is_file():  # no place for a lock
        _require_same(folder, identity)
    with disk_troubles(out):
        if not resumed:
            resumed = not _make(folder, identity)
        unfinished = Unfinished(folder, identity, resumed, _hold(folder, out))
    try:
        require_new(out)  # again: another run may have ended just now
        _require_same(folder, identity)
    except BaseException:
        unfinished.leave(delete=not resumed)
        raise
    return unfinished


def _make(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Make the folder, and return whether it was this run that did: another may have been faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = _hidden(folder)
    try:
        work.mkdir()
        (work / OPTIONS).write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
        os.replace(work, folder)
    except OSError:
        if not folder.exists():
            raise
        return False
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _hold(folder: Path, out: Path) -> FileLock:
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except (Timeout, FileNotFoundError) as error:  # it is held, or went together with its folder
        raise CourseError(
            f"a run with the output {out.name} is already under way.", "wait for its end, or name another with --out."
        ) from error
    return lock


def _require_same(folder: Path, identity: Mapping[str, Any]) -> None:
    remedy = f"use the same data and options to go on with it, name another --out, or delete {folder.name}."
    try:
        before = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
        different = sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(f"{folder.name} is there, and is no unfinished run of `adapt`.", remedy) from error
    if different:
        told = "; ".join(f"{k} {_short(before.get(k))} there, {_short(identity.get(k))} here" for k in different)
        raise CheckpointMismatch(f"{folder.name} holds an unfinished run of other data or options: {told}.", remedy)


def _hidden(folder: Path) -> Path:
    """Return a new name beside a folder."""
    return folder.with_name(f".{folder.name}.{uuid4().hex[:12]}")


def put_in_place(unfinished: Unfinished, result: Path, out: Path) -> None:
    """Make the result the output folder, at one stroke, and delete the unfinished work."""
    with disk_troubles(out):
        if out.is_dir():
            out.rmdir()  # it is empty
        os.replace(result, out)
    unfinished.leave(delete=True)


@contextmanager
def disk_troubles(out: Path) -> Iterator[None]:
    """Tell what went wrong with the disk inside the block, in a message for people."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughDisk(
                f"the disk is full; {out.name} was not written.",
                "free some space and give the same command again: it goes on from what was done.",
            ) from error
        raise CourseError(f"{out.name} cannot be written ({error.strerror}).", "name another with --out.") from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:20]}..."
