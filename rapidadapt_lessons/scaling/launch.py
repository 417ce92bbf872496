"""Start a script in several processes of this machine, watch them, and leave none behind.

That is `torchrun --nproc-per-node 2 script.py ...`, with all traffic on 127.0.0.1 and a port that the system picks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ..errors import CourseError
from ..guards import require_at_least
from ..lm import memory
from ..setup import doctor
from .processes import interface_towards


class Launched:
    """A script under way. Leave the `with` block, and every process of it is gone."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._file = Path(self._folder.name) / "output.txt"
        self._kept: bytes | None = None  # what the file held when it was deleted
        # All append, and it is read through another opening of the file: else reading would move where they write.
        with open(self._file, "ab") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            self._process = subprocess.Popen(list(command), env=environment, **streams)
        self._seen: dict[int, psutil.Process] = {}

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the script has not ended yet."""
        self._look()
        return self._process.poll() is None

    def output(self) -> str:
        """Return what all processes have printed so far."""
        printed = self._file.read_bytes() if self._kept is None else self._kept
        return printed.decode("utf-8", errors="replace")

    def workers(self) -> dict[int, int]:
        """Return the process ids of the workers that run now, by rank."""
        found = {}
        for process in self._look():
            # The agent that started them has no RANK; what a worker has started itself inherits its own.
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, KeyError):
                rank = int(process.environ()["RANK"])
                if process.ppid() == self._process.pid:
                    found[rank] = process.pid
        return found

    def kill(self, rank: int) -> None:
        """Kill one worker at once, as `kill -9` does. Raises CourseError where there is no such worker."""
        workers = self.workers()
        if rank not in workers:
            raise CourseError(f"there is no worker {rank} to kill.", f"those that run are {sorted(workers)}.")
        psutil.Process(workers[rank]).kill()

    def wait_until(self, true: Callable[[], bool], seconds: float = 120) -> bool:
        """Return whether something became true before the script ended; stop all with CourseError if out of time."""
        end = time.monotonic() + seconds
        while not true():
            if not self.running:
                return true()
            if time.monotonic() > end:
                self.close()
                problem = f"the processes were stopped after {seconds:g} s.\n{self.output()[-2000:]}"
                raise CourseError(problem, "give them more time.")
            time.sleep(0.02)
        return True

    def wait(self, seconds: float = 120) -> int:
        """Return the exit status, once the script has ended. Raises as `wait_until`."""
        self.wait_until(lambda: self._process.poll() is not None, seconds)
        return self._process.returncode

    def close(self) -> None:
        """Stop what still runs: first politely, then all that was ever seen of it by force."""
        self._look()
        if self._process.poll() is None:
            self._process.terminate()  # torchrun passes it on to its workers
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for process in self._seen.values():
            with suppress(psutil.NoSuchProcess):
                process.kill()  # psutil refuses where the number has gone to another process meanwhile
        if self._kept is None:
            self._kept = self._file.read_bytes()
            self._folder.cleanup()

    def _look(self) -> list[psutil.Process]:
        try:
            now = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            now = []
        self._seen.update({process.pid: process for process in now})
        return now


def launch(
    script: str | Path,
    arguments: Sequence[object] = (),
    *,
    processes: int = 2,
    max_restarts: int = 0,
    command: Sequence[object] | None = None,
) -> Launched:
    """Start a Python script: with one process as plain `python`, with more under `torchrun`, on the CPU.

    Args:
        script: its path. Where there is none, as on Colab, the script of the same name that came with this package.
        max_restarts: how often torchrun starts all workers again when one has died.
        command: what to start the script with, in place of python or torchrun.

    Raises CourseError where there is no such script, a number makes no sense, or Windows would need torchrun.
    """
    script = Path(script)
    if not script.is_file():
        name, script = script.name, doctor.shared_file("scale", script.name)
        if script is None:
            raise CourseError(f"there is no script {name}.", "start the notebook from its own folder.")
    require_at_least(1, "processes", processes)
    require_at_least(0, "max_restarts", max_restarts)
    if processes > 1 and command is None and sys.platform == "win32":
        remedy = "run this section under WSL, on Colab or on Binder."
        raise CourseError("PyTorch's torchrun does not start on Windows.", remedy)
    outer = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # where torchrun started this very process
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if loopback := interface_towards("127.0.0.1"):
        environment["GLOO_SOCKET_IFNAME"] = loopback
    if command is None:
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
            command += ["--nproc-per-node", processes, "--max-restarts", max_restarts]
    memory.give_back()  # what this process no longer uses, the new ones will need
    return Launched([str(word) for word in (*command, script, *arguments)], environment)
