"""`load_model`: a real pretrained language model and its tokenizer, in one call.

The course's own model (SmolLM2-135M-Instruct) loads from the local cache and never asks the network.
Any other name is taken as a folder or as a name on the Hugging Face hub.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import CourseError, ModelNotFound
from .store import DEFAULT_MODEL, ensure_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    name: str = DEFAULT_MODEL, device: str = "auto", dtype: str | torch.dtype = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, ready for evaluation.

    Args:
        name: the course's model (default), a folder, or a hub name such as "gpt2".
        device: "auto" (a CUDA device where there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32" (default: bfloat16 is faster on some processors and slower on others),
            "bfloat16", "float16", or a `torch.dtype`.

    Returns:
        The model, in evaluation mode on the device, and its tokenizer, which always has a pad token.

    Raises:
        ModelNotFound: the name is not the course's model, not a folder, not in the local hub cache,
            and the hub is not reachable or does not know it.
        CourseError: the device or dtype is unknown or absent; see also `store.ensure_model`.
    """
    target, weights = pick_device(device), pick_dtype(dtype)
    local = name == DEFAULT_MODEL
    path = str(ensure_model()) if local else _locate(name)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=local)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=weights, local_files_only=local)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(target).eval(), tokenizer


def pick_device(device: str = "auto") -> torch.device:
    """Turn a device's name into a `torch.device` that exists on this machine.

    Raises:
        CourseError: the name is not a device, or this machine has none of the kind.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise CourseError(f"{device!r} is not the name of a device.", 'use "auto", "cpu", "cuda" or "mps".') from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(chosen.type, False):
        raise CourseError(f"this machine has no device {device!r}.", 'use device="auto", which takes what there is.')
    return chosen


def pick_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Turn "float32", "bfloat16" or "float16" into a `torch.dtype`.

    Raises:
        CourseError: it is none of these.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in known.values():
        return dtype
    if dtype not in known:
        raise CourseError(f"dtype {dtype!r} is not one of {', '.join(known)}.", 'leave it out for "float32".')
    return known[dtype]


def context_length(model: PreTrainedModel) -> int:
    """Return the number of tokens the model can read at once."""
    return int(model.config.max_position_embeddings)


def hub_reachable(seconds: float = 3.0) -> bool:
    """Say within about `seconds` whether the model hub answers (proxies and HF_ENDPOINT are honoured)."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            answered.set()
        except Exception:  # any failure at all means: not reachable
            pass

    # In a thread, because looking up a host name has no time-out of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


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


def _locate(name: str) -> str:
    """Return a path or hub name that `from_pretrained` will be able to load, or say why there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if os.path.isdir(name):
        return name
    remedy = f'leave the name out to use {DEFAULT_MODEL}, which works offline; or check the spelling of the name.'
    try:
        return snapshot_download(name, local_files_only=True)
    except HFValidationError as error:
        raise ModelNotFound(f"{name!r} is neither a folder nor a possible hub name.", remedy) from error
    except LocalEntryNotFoundError:
        pass
    if not hub_reachable():
        raise ModelNotFound(
            f"{name!r} is not on this machine and the model hub cannot be reached from here.",
            f"connect and try again (once loaded, it is kept), or leave the name out to use {DEFAULT_MODEL}, "
            "which works offline.",
        )
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"the hub has no usable model {name!r}.", remedy) from error
    return name
