"""Data parallelism with synchronous SGD (Goyal et al. 2017, arXiv 1706.02677, section 3.1).

Every process computes the gradient of its own part, the *sum* of its losses over the count of the *whole* batch; then
all add theirs up and take the same step.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import CourseError
from ..training.team import Team


@contextmanager
def join_team(seconds: float = 600) -> Iterator[Team]:
    """Join the processes that `torchrun` or `accelerate launch` started; alone, be a team of one.

    After `seconds` of waiting for the others it gives up. Raises CourseError where RANK or WORLD_SIZE makes no sense.
    """
    place = {name: os.environ.get(name, usual) for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    if not all(value.isdigit() for value in place.values()):
        raise CourseError(f"RANK and WORLD_SIZE are {place}.", "start the script with torchrun, or leave both unset.")
    rank, world_size = map(int, place.values())
    team = Team(rank, world_size)
    if world_size == 1:
        yield team
        return
    if world_size > int(os.environ.get("LOCAL_WORLD_SIZE", world_size)) and "GLOO_SOCKET_IFNAME" not in os.environ:
        # Left to itself, gloo takes the address of the machine's own name, which is often one that others cannot reach.
        if name := interface_towards(os.environ["MASTER_ADDR"]):
            os.environ["GLOO_SOCKET_IFNAME"] = name
    backend, device = "gloo", local_device()
    if device != "cpu":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    patience = timedelta(seconds=seconds)
    store, _, _ = next(dist.rendezvous("env://", rank, world_size, timeout=patience))
    # After a restart torchrun hands out the same store (torch 2.13), which still holds the dead processes' addresses.
    store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=patience)
    try:
        yield team
    finally:
        dist.destroy_process_group()


def interface_towards(address: str) -> str | None:
    """Return the name of the network interface that leads to an address, if any. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((address, 9))
        except OSError:
            return None
        own = asked.getsockname()[0]
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, addresses in interfaces if any(a.address == own for a in addresses)), None)


def run_as_team(run: Callable[[Team], None]) -> int:
    """Run a script's work as a member of its team, and return the exit status: 1 after a CourseError, printed once."""
    with join_team() as team:
        try:
            run(team)
        except CourseError as error:
            if team.is_main:
                print(error, file=sys.stderr)
            return 1
    return 0


def local_device() -> str:
    """Return "cuda:i" where every process of this machine has a GPU of its own, else "cpu"."""
    local, processes = (int(os.environ.get(k, usual)) for k, usual in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")))
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" or torch.cuda.device_count() < processes:
        return "cpu"
    return f"cuda:{local}"


def weighted_mean_gradient(gradients: Sequence[Mapping[str, Tensor]], counts: Sequence[float]) -> dict[str, Tensor]:
    """Return sum_k counts[k] g_k / sum_k counts[k], name by name: the gradient of the mean over all counted tokens.

    Each g_k is that of one process's own mean loss. Raises CourseError without a count for each, or where all are 0.
    """
    if len(gradients) != len(counts) or not gradients or sum(counts) <= 0 or min(counts) < 0:
        raise CourseError(f"{len(gradients)} gradients came with the counts {list(counts)}.", "give a count to each.")
    total = sum(counts)
    return {name: sum(n / total * g[name] for n, g in zip(counts, gradients)) for name in gradients[0]}


def ring_all_reduce(vectors: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Add up one vector of each process by passing pieces round a ring, played in one process.

    Each vector is cut into n pieces. In n - 1 rounds every process sends one piece to the next, which adds it to its
    own: then each process holds one piece that is complete. In n - 1 more rounds the complete pieces go round
    (Patarasuk and Yuan 2009, Journal of Parallel and Distributed Computing 69, section 4).

    Returns the sum, once for each process, and the bytes that each sent. CourseError unless all have one shape, [m].
    """
    if not vectors or len({v.shape for v in vectors}) > 1 or vectors[0].dim() != 1:
        raise CourseError(f"the shapes are {[tuple(v.shape) for v in vectors]}.", "give vectors of one length.")
    n = len(vectors)
    pieces = [list(v.clone().tensor_split(n)) for v in vectors]
    sent = [0] * n
    for turn in range(2 * (n - 1)):
        adding = turn < n - 1
        for process in range(n):
            place = (process - turn) % n if adding else (process + 1 - (turn - (n - 1))) % n
            following, message = pieces[(process + 1) % n], pieces[process][place]
            sent[process] += message.nbytes
            following[place] = following[place] + message if adding else message
    return [torch.cat(own) for own in pieces], sent
