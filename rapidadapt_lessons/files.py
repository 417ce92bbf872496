"""Files that are written whole or not at all, also when the process is killed or the disk is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: str | Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a file to write under another name beside its place, and rename it at the end of the block.

    So nobody ever reads half of it; after an error what was there before is there still, and nothing else.

    Args:
        sync: wait until the disk has it (`os.fsync`), for a file that must outlive a power cut.

    Raises:
        OSError: as `open`, `write` and `os.replace`.
    """
    path = Path(path)
    work = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(work, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(work, path)
    finally:
        work.unlink(missing_ok=True)


def write_whole(path: str | Path, data: str | bytes, *, sync: bool = False) -> None:
    """Write a file at one stroke, text as UTF-8; see `whole_file`."""
    with whole_file(path, sync=sync) as file:
        file.write(data.encode() if isinstance(data, str) else data)
