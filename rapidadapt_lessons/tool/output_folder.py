"""The folder that `adapt` writes: refused at once where it cannot be written, and put in place whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from ..errors import CourseError, NotEnoughDisk

ROOM = 64_000_000  # bytes that a result may need


def require_new(out: Path) -> None:
    """Raise CourseError where the output folder is there and not empty, or cannot be made or replaced."""
    if out.is_symlink():
        raise CourseError(f"{out.name} is a link, and the output is a folder.", "name the folder itself with --out.")
    if out.is_dir():
        if any(out.iterdir()):
            raise CourseError(f"the output folder {out.name} is not empty.", "name another with --out, or empty it.")
    elif out.exists():
        raise CourseError(f"{out.name} is a file, and the output is a folder.", "name another with --out.")
    above = next(p for p in out.parents if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise CourseError(f"nothing can be written to the folder {above.name or above}.", "name another with --out.")
    if (free := shutil.disk_usage(above).free) < ROOM:
        problem = f"the disk of {out.name} has {free / 1e6:.0f} MB free; {ROOM / 1e6:.0f} MB are needed."
        raise NotEnoughDisk(problem, "free some space, or name a folder elsewhere with --out.")
    if not out.is_dir():
        return
    if out.samefile(os.curdir):
        raise CourseError(f"the output folder {out.name} is the current one.", "name a new one, such as --out result.")
    try:  # a mount point cannot give way to the output
        out.replace(out.with_name(f".{out.name}.{uuid4().hex[:12]}")).replace(out)
    except OSError as error:
        problem = f"the output folder {out.name} cannot be replaced ({error.strerror})."
        raise CourseError(problem, f"name a new folder in it, such as {out.name}/result, with --out.") from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out` to write into. It becomes `out` when the block ends well, and else goes.

    What a killed run has left there is deleted. A lock beside it, which the system frees when a run is killed, keeps
    two runs apart. Raises CourseError as `require_new`, or where another run with this output is under way.
    """
    work = out.with_name(f".{out.name}.unfinished")
    lock = FileLock(f"{work}.lock")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            problem = f"a run with the output {out.name} is already under way."
            raise CourseError(problem, "wait for its end, or name another with --out.") from error
    try:
        require_new(out)  # another run may have ended just now
        with disk_errors(out):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
        yield work
        with disk_errors(out):
            if out.is_dir():
                out.rmdir()
            os.replace(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):  # Windows deletes no open file
            os.unlink(lock.lock_file)
        lock.release()


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn what the disk refuses inside the block into a message for people."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"the disk is full; {out.name} was not written."
            raise NotEnoughDisk(problem, "free some space and give the same command again.") from error
        raise CourseError(f"{out.name} cannot be written ({error.strerror}).", "name another with --out.") from error
