"""Many kernels at once on one machine: the memory they share by mapping the weights, and how long an answer takes.

Run: python benchmarks/load.py [--kernels 10] [--training]
Each kernel is a Jupyter kernel of its own, as a learner has. It loads the model, answers a prompt with four examples,
and waits, so that all are there when memory is counted. RSS counts a shared page in every process that has it; PSS
shares it out among all processes of the machine that have it; USS is what only one process has. "Together" is what the
kernels hold whoever else has the same files open: the sum of USS, and once the largest shared part of one kernel.
"Unmapped" copies every weight into memory of the kernel's own after loading, and is otherwise the same. With --training
each kernel also takes three steps with LoRA on four examples, which must leave the mapped weights shared.

Times to the first answer are from the start of the kernels to the answer of the last, beside one kernel alone in the
same run. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import psutil
from jupyter_client import BlockingKernelClient, KernelManager

MB = 1e6
SECONDS = 900  # the longest wait for one kernel's answer

CELL = """
from rapidadapt_lessons import lora, prompting, training
from rapidadapt_lessons.prompting import scoring
from rapidadapt_lessons.training import rows
from rapidadapt_lessons.lm.model import load_model
from rapidadapt_lessons.lm.tasks import load_task
model, tokenizer = load_model()
if not {mapped}:
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
episode = load_task("plurals").episode(4, n_query=1)
prompts = prompting.build_prompts(episode.query, episode.support)
print(scoring.generate_answers(model, tokenizer, prompts, max_new_tokens=6)[0])
"""
TRAINING = """
lora.inject(model, lora.LoRAConfig(rank=8))
texts = [tokenizer(f"The plural of {{x}} is {{y}}.")["input_ids"] for x, y in episode.support]
config = training.TrainConfig(steps=3, batch_size=4)
training.train(model, [rows.Row(tuple(ids)) for ids in texts], config, progress=False)
"""


def start(place: str) -> tuple[KernelManager, BlockingKernelClient]:
    """Start a kernel with one thread for arithmetic, and return it with a client that may still have to connect.

    Args:
        place: a path of its own, for its sockets: of kernels with ports, two may be given the same one.
    """
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=place, connection_file=f"{place}.json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    manager.start_kernel(env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    return manager, client


def answer_of(client: BlockingKernelClient, asked: str) -> None:
    """Wait until a kernel has done what it was asked.

    Raises:
        RuntimeError: its code failed.
    """
    while (reply := client.get_shell_msg(timeout=SECONDS))["parent_header"].get("msg_id") != asked:
        pass
    if reply["content"]["status"] != "ok":
        raise RuntimeError("\n".join(reply["content"].get("traceback", [])))


def measure(kernels: int, mapped: bool, training: bool) -> dict[str, float]:
    """Start so many kernels at once, let each answer, and return seconds, and the sums of their memory in bytes."""
    begun = time.perf_counter()
    folder = tempfile.TemporaryDirectory()
    started = [start(f"{folder.name}/{i}") for i in range(kernels)]
    try:
        for _, client in started:
            client.wait_for_ready(timeout=SECONDS)
        code = CELL.format(mapped=mapped) + (TRAINING.format() if training else "")
        asked = [client.execute(code) for _, client in started]
        for (_, client), message in zip(started, asked):
            answer_of(client, message)
        seconds = time.perf_counter() - begun
        found = [psutil.Process(manager.provisioner.process.pid).memory_full_info() for manager, _ in started]
    finally:
        for manager, client in started:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        folder.cleanup()
    sums = {name: float(sum(getattr(one, name) for one in found)) for name in ("rss", "pss", "uss")}
    together = sums["uss"] + max(one.rss - one.uss for one in found)
    return {"kernels": kernels, "seconds": seconds, "together": together} | sums


def lines(kernels: int, training: bool) -> tuple[list[str], dict]:
    """Measure, and return what to print, with the figures behind it."""
    what = "a prompt answered and three steps of LoRA" if training else "a prompt answered"
    head = f"{'kernels':<18}{'RSS':>9}{'PSS':>9}{'USS':>9}{'together':>10}  last answer after"
    out = [f"{what}, sums over all kernels in MB", head]
    rows: dict[str, dict[str, float]] = {}
    for mapped in (True, False):
        for count in sorted({1, min(3, kernels), kernels}) if mapped else (1, kernels):
            name = f"{count} {'mapped' if mapped else 'unmapped'}"
            rows[name] = row = measure(count, mapped, training)
            ratio = row["seconds"] / rows["1 mapped"]["seconds"]
            widths = {"rss": 9, "pss": 9, "uss": 9, "together": 10}
            sizes = "".join(f"{row[part] / MB:>{width},.0f}" for part, width in widths.items())
            out.append(f"{name:<18}{sizes}  {ratio:.1f} times that of 1 mapped")
    one, many, copied = rows["1 mapped"], rows[f"{kernels} mapped"], rows[f"{kernels} unmapped"]
    shared = (many["together"] - many["uss"]) / MB
    out.append(
        f"{kernels} kernels hold {many['together'] / MB:,.0f} MB together: {many['uss'] / kernels / MB:.0f} MB of its "
        f"own each and {shared:,.0f} MB once. Unmapped they hold {copied['together'] / MB:,.0f} MB, "
        f"{copied['together'] / many['together']:.1f} times as much. One kernel alone: {one['rss'] / MB:,.0f} MB."
    )
    return out, rows


def main() -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("PSS is counted by Linux alone; nothing was measured.")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, default=10)
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--json", help="also write the figures to this file")
    chosen = parser.parse_args()
    out, rows = lines(max(2, chosen.kernels), chosen.training)
    print("\n".join(out))
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump({"training": chosen.training, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
