"""How much less memory evaluation and training take when memory is short, and what that costs in time.

    python benchmarks/little_memory.py

Each case runs in a process of its own, since memory that was freed may be used again without showing. "Short" is played
by the variable MEM_LIMIT, as JupyterHub sets it: what the loaded model takes, and 0.3 GB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

SHORT = 300_000_000


def case(what: str, short: bool) -> dict[str, float]:
    """Do the work once and return its seconds, peak memory in MB above the loaded model's, and its result."""
    import psutil

    from rapidadapt_lessons.lm import texts
    from rapidadapt_lessons.lm.model import load_model
    from rapidadapt_lessons.lora import layers as lora
    from rapidadapt_lessons.training import cost, rows
    from rapidadapt_lessons.training import loop as training

    model, tokenizer = load_model()
    text = "\n".join(texts.load_domain("python_reference").held_out)
    some = rows.text_rows(tokenizer, text[:20_000], 128)[:8]
    rows.perplexity(model, some[:1])  # warm
    if short:
        used = psutil.Process().memory_info()
        os.environ["MEM_LIMIT"] = str(used.rss - getattr(used, "shared", 0) + SHORT)
    if what == "perplexity":
        result, spent = cost.measure(lambda: rows.perplexity(model, some))
    else:
        lora.inject(model, lora.LoRAConfig(rank=8), seed=0)
        plan = training.TrainConfig(steps=2, batch_size=8)
        result, spent = cost.measure(lambda: training.train(model, some, plan, progress=False).losses[-1])
    return {"seconds": spent.seconds, "megabytes": spent.peak_bytes / 1e6, "result": result}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(case(sys.argv[1], sys.argv[2] == "short")))
        return
    print(f"{'8 rows of 128 tokens':<24}{'MB':>8}{'short: MB':>12}{'ratio':>8}{'time':>8}   results")
    for what in ("perplexity", "two updates"):
        enough, short = (
            json.loads(subprocess.check_output([sys.executable, __file__, what, how]).splitlines()[-1])
            for how in ("enough", "short")
        )
        ratio, time = short["megabytes"] / enough["megabytes"], short["seconds"] / enough["seconds"]
        print(
            f"{what:<24}{enough['megabytes']:>8.0f}{short['megabytes']:>12.0f}{ratio:>8.2f}{time:>8.2f}"
            f"   {enough['result']:.6f}, {short['result']:.6f}"
        )


if __name__ == "__main__":
    main()
