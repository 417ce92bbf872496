"""`load_model`: a real pretrained language model and its tokenizer, in one call.

The course's own model loads from the local cache, without the network; another, from a folder or the Hugging Face hub.
"""

from __future__ import annotations

import gc
import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import CourseError, ModelNotFound
from . import memory
from .download import DEFAULT_MODEL, ensure_model, quiet_transformers
from .types import Model, Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn


def load_model(
    name: str = DEFAULT_MODEL, device: str = "auto", dtype: str | torch.dtype = "float32"
) -> tuple[Model, Tokenizer]:
    """Load a causal language model, in evaluation mode on the device, and its tokenizer.

    A tokenizer without a pad token pads with its end token (or, without one, with its start or unknown token).

    Args:
        name: the course's model (default), a folder, or a hub name such as "gpt2".
        device: "auto" (a CUDA device where there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32" (bfloat16 is slower on some processors), "bfloat16", "float16", or a `torch.dtype`.

    Raises ModelNotFound where neither a folder, the local hub cache nor the hub gives a model of this name,
    CourseError where the device or dtype is unknown or absent; see also `download.ensure_model`.
    """
    target, weights = pick_device(device), pick_dtype(dtype)
    gc.collect()  # a model that was dropped just before, but that refers to itself, makes room for this one
    memory.give_back()
    model, tokenizer = _load(str(ensure_model()), weights) if name == DEFAULT_MODEL else _load_other(name, weights)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    memory.give_back()  # reading the tokenizer's file leaves some 30 MB of free pieces
    return model.to(target).eval(), tokenizer


def pick_device(device: str = "auto") -> torch.device:
    """Turn a device's name into a `torch.device`. Raises CourseError where this machine has none of that name."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise CourseError(f"{device!r} is not the name of a device.", 'use "auto", "cpu", "cuda" or "mps".') from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cpu": True, "cuda": (chosen.index or 0) < gpus, "mps": torch.backends.mps.is_available()}
    if not there.get(chosen.type):
        raise CourseError(f"this machine has no device {device!r}.", 'use device="auto", which takes what there is.')
    return chosen


def pick_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Turn "float32", "bfloat16" or "float16" into a `torch.dtype`. Raises CourseError for anything else."""
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    for name, value in known.items():
        if dtype in (name, value):
            return value
    raise CourseError(f"dtype {dtype!r} is not one of {', '.join(known)}.", 'leave it out for "float32".')


def context_length(model: Model) -> int:
    """Return the number of tokens the model can read at once."""
    return int(model.config.max_position_embeddings)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block, and put the model back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def hub_reachable(seconds: float = 3.0) -> bool:
    """Say within about `seconds` whether the model hub answers (proxies and HF_ENDPOINT are honoured)."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):  # any failure at all means: not reachable
            get_session().head(constants.ENDPOINT, timeout=seconds)
            answered.set()

    # In a thread, because looking up a host name has no time-out of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def _load(path: str, dtype: torch.dtype, *, offline: bool = True) -> tuple[Model, Tokenizer]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        # The tokenizer first: a download that was cut then lacks weights, and cannot load with a wrong tokenizer.
        # Without `trust_remote_code=False` a model with code of its own is not refused: it is asked about, and run.
        how = {"local_files_only": offline, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(path, **how)
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **how), tokenizer


def _load_other(name: str, dtype: torch.dtype) -> tuple[Model, Tokenizer]:
    """Load a model that is not the course's: from a folder, the local hub cache or the hub, in that order."""
    from safetensors import SafetensorError

    unusable = (OSError, ValueError, ImportError, SafetensorError, pickle.UnpicklingError)
    remedy = f"leave the name out to use {DEFAULT_MODEL}, which works offline; or check the spelling of the name."
    if not isinstance(name, (str, os.PathLike)):
        raise ModelNotFound(f"{name!r} is not the name of a model.", remedy)
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        try:
            return _load(folder, dtype)
        except unusable as error:
            raise ModelNotFound(f"the folder {name!r} holds no usable model{_why(error)}", remedy) from error
    if folder := _in_hub_cache(name, remedy):
        with suppress(*unusable):  # its download was cut: the hub has the rest
            return _load(folder, dtype)
    if not hub_reachable():
        complete = "complete " if folder else ""
        raise ModelNotFound(
            f"{name!r} is not {complete}on this machine and the model hub cannot be reached from here.",
            f"connect and try again (once loaded, it is kept); or {remedy}",
        )
    try:
        return _load(name, dtype, offline=False)
    except unusable as error:
        raise ModelNotFound(f"the model hub did not give a usable model {name!r}{_why(error)}", remedy) from error


def _in_hub_cache(name: str, remedy: str) -> str | None:
    """Return the folder of the local hub cache that holds the model, perhaps incomplete, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        return snapshot_download(name, local_files_only=True)
    except HFValidationError as error:
        raise ModelNotFound(f"{name!r} is neither a folder nor a possible hub name.", remedy) from error
    except IncompleteSnapshotError as error:
        return error.snapshot_path
    except LocalEntryNotFoundError:
        return None


def _why(error: Exception) -> str:
    """Return the first line of an error, to follow a sentence."""
    if isinstance(error, pickle.UnpicklingError):  # PyTorch's own words recommend to run it
        return " (its weights are a pickle with more than tensors in it, which is never run)."
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f" ({first.rstrip(' .:')})."
