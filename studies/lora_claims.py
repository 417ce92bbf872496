"""What lessons 3 and 4, on LoRA, conclude from their studies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from claim import Claim

from rapidadapt_lessons.studies.records import load

if TYPE_CHECKING:
    import pandas as pd

    from rapidadapt_lessons.studies.records import Records


FULL, LORA = "full fine-tuning", "LoRA, all linear"
RELATIVES = ("rsLoRA", "DoRA", "PiSSA", "LoRA+", "IA3", "bottleneck", "prefix tuning", "prompt tuning")


def kept_less_whole(records: Records, metric: str, kept: str) -> pd.Series:
    """Return what is lost of a full update where only a part of it is kept, mean over the tasks of `update_rank`."""
    return records.means(f"{metric}, {kept}") - records.means(f"{metric}, whole")


def valley(records: Records, method: str, rank: int = 8) -> pd.Series:
    """Return where the test loss is lowest for each seed of `lora_rate`: the learning rate, as a power of ten.

    That is the lowest point of the parabola through the losses at four rates, which are a factor of three apart.
    """
    import numpy as np
    import pandas as pd

    losses = records.nested("test loss", "lr", method=method, rank=rank)
    square, slope, _ = np.polyfit(np.log10(list(losses)), np.array(list(losses.values())), 2)
    return pd.Series(-slope / (2 * square), records.seeds)


def best_rates(records: Records) -> Records:
    """Return the runs of each method, and each rank, at the rate that validation chose."""
    return records.tuned("validation loss", over=("lr",))


def on_task(rates: Records, metric: str, method: str) -> pd.Series:
    """Return a metric of full fine-tuning, or of LoRA at rank 8, at the rate that validation chose (`lora_rate`)."""
    return best_rates(rates).values(metric, method=method, rank=0 if method == FULL else 8)


def task_elsewhere(records: Records, method: str, other: str) -> pd.Series:
    """Return how much higher one method leaves a manual's perplexity than another, after learning a task."""
    return on_task(records, "perplexity elsewhere", method) - on_task(records, "perplexity elsewhere", other)


def placed(records: Records, method: str, metric: str) -> pd.Series:
    """Return a metric of LoRA on some layers, with about 80,000 numbers per block and the rate that validation chose.

    Attention and feed-forward come from `lora_parts`, all linear layers from `lora_rate`: the same words and seeds.
    """
    if method == LORA:
        return on_task(load("lora_rate"), metric, LORA)
    return best_rates(records).values(metric, method=method)


def forgotten(records: Records, method: str, updates: int = 30, **where) -> pd.Series:
    """Return how much of two other domains is lost, nats per token: the loss's mean rise on them (`learns_less`)."""
    import numpy as np

    def loss(text: str, after: int) -> pd.Series:
        return np.log(records.values(f"{text} after {after}", method=method, **where))

    return sum(loss(text, updates) - loss(text, 0) for text in ("manual", "dialogue")) / 2


def forgotten_at_equal_loss(records: Records) -> pd.Series:
    """Return what LoRA has forgotten less what full fine-tuning has, where both have learned the domain equally well.

    That is the lowest test loss which both reach; between two evaluations, forgetting is linear in it.
    """
    import numpy as np
    import pandas as pd

    best, steps = best_rates(records), (0, 10, 20, 30)
    losses, lost = {}, {}
    for method in (FULL, LORA):
        losses[method] = pd.DataFrame({n: best.values(f"test loss after {n}", method=method) for n in steps})
        lost[method] = pd.DataFrame({n: forgotten(best, method, n) for n in steps})
    found = {}
    for seed in records.seeds:
        level = max(losses[method].loc[seed].min() for method in (FULL, LORA))
        at = {m: np.interp(-level, -losses[m].loc[seed], lost[m].loc[seed]) for m in (FULL, LORA)}
        found[seed] = at[LORA] - at[FULL]
    return pd.Series(found)


def batch_cost(records: Records, method: str) -> pd.Series:
    """Return how much higher a method's test loss is with 40 words in each step (`lora_batch`) than with 8.

    Either way 240 words are read, at the rate that validation chose; the steps of 8 are those of `lora_rate`.
    """
    return best_rates(records).values("test loss", method=method) - on_task(load("lora_rate"), "test loss", method)


def family_loss(records: Records, *methods: str) -> pd.Series:
    """Return the test loss of members of `adapter_family`, each at its best rate: their mean."""
    return best_rates(records).means("test loss", method=methods)


def four_less_32(records: Records, metric: str) -> pd.Series:
    """Return what a run on a base in 4 bits has of a metric, less what the same run on 32 bits has (`four_bits`)."""
    return records.values(metric, bits=4) - records.values(metric, bits=32)


def sum_less_own(records: Records) -> pd.Series:
    """Return the accuracy of the plain sum of two adapters less that of the task's own, mean of six pairs."""
    return records.means("sum at 1") - records.means("own adapter")


LORA_CLAIMS = (
    Claim(
        "adapter-beats-its-examples",
        "3.1",
        "With no examples in its prompt, an adapter trained on 40 verbs beats a prompt that shows all 40.",
        "adapter_or_prompt",
        lambda records: (
            best_rates(records).values("exact match", method="LoRA")
            - records.values("exact match", method="prompt", examples=40)
        ),
        above=0.0,
    ),
    Claim(
        "four-directions-keep-accuracy",
        "3.7",
        "Four directions per matrix match the accuracy of the full update to within two points.",
        "update_rank",
        lambda records: kept_less_whole(records, "exact match", "rank 4"),
        above=-0.02,
        below=0.02,
    ),
    Claim(
        "one-direction-nearly-enough",
        "3.7",
        "A single direction per matrix comes within eight points of the full update.",
        "update_rank",
        lambda records: kept_less_whole(records, "exact match", "rank 1"),
        above=-0.08,
    ),
    Claim(
        "rest-of-update-does-nothing",
        "3.7",
        "Without the four largest directions per matrix, the update gets nothing right.",
        "update_rank",
        lambda records: records.means("exact match, without 4"),
        below=0.05,
        queries=96,
    ),
    Claim(
        "four-directions-squared-length",
        "3.7",
        "Four directions, out of as many as 576, account for more than 70% of an update's squared norm.",
        "update_rank",
        lambda records: records.means("share of squared length, rank 4"),
        above=0.7,
    ),
    Claim(
        "lora-rate-ten-times",
        "4.1",
        "Start LoRA at a learning rate at least ten times full fine-tuning's.",
        "lora_rate",
        lambda records: valley(records, LORA) - valley(records, FULL, rank=0),
        above=math.log10(10),
    ),
    Claim(
        "attention-alone-is-worse",
        "4.2",
        "LoRA on attention alone ends with a slightly higher loss than on all linear layers.",
        "lora_parts",
        lambda records: placed(records, "LoRA, attention", "test loss") - placed(records, LORA, "test loss"),
        above=0.0,
    ),
    Claim(
        "feed-forward-is-enough",
        "4.2",
        "On the feed-forward layers alone, LoRA ends within 0.1 nats per token of LoRA on all linear layers.",
        "lora_parts",
        lambda records: placed(records, "LoRA, feed-forward", "test loss") - placed(records, LORA, "test loss"),
        above=-0.1,
        below=0.1,
    ),
    Claim(
        "feed-forward-harms-least",
        "4.2",
        "Adapting only the feed-forward layers also raises the manual's perplexity less.",
        "lora_parts",
        lambda records: (
            placed(records, "LoRA, feed-forward", "perplexity elsewhere")
            - placed(records, LORA, "perplexity elsewhere")
        ),
        below=0.0,
    ),
    Claim(
        "queries-and-values-harm-more",
        "4.2",
        "Adapting only the queries and values leaves the manual's perplexity higher than adapting all linear layers.",
        "lora_rate",
        lambda records: task_elsewhere(records, "LoRA, q and v", LORA),
        above=0.0,
    ),
    Claim(
        "lora-rank-hardly-matters",
        "4.3",
        "From rank 1 to rank 64 the loss changes by less than 0.1 nats per token.",
        "lora_rate",
        lambda records: (
            best_rates(records).values("test loss", method=LORA, rank=64)
            - best_rates(records).values("test loss", method=LORA, rank=1)
        ),
        above=-0.1,
        below=0.1,
    ),
    Claim(
        "large-batch-costs-lora-little",
        "4.3",
        "One step per 40 words instead of five costs LoRA less than 0.1 nats per token.",
        "lora_batch",
        lambda records: batch_cost(records, LORA),
        below=0.1,
    ),
    Claim(
        "lora-forgets-more-at-its-best-rate",
        "4.4",
        "With each method at its own best rate, LoRA forgets more than full fine-tuning does.",
        "learns_less",
        lambda records: forgotten(best_rates(records), LORA) - forgotten(best_rates(records), FULL),
        above=0.0,
    ),
    Claim(
        "lora-learns-less-of-a-domain",
        "4.4",
        "LoRA also learns slightly less, by at most 0.15 nats per token.",
        "learns_less",
        lambda records: (
            best_rates(records).values("test loss after 30", method=LORA)
            - best_rates(records).values("test loss after 30", method=FULL)
        ),
        above=0.0,
        below=0.15,
    ),
    Claim(
        "lora-forgets-more-at-equal-loss",
        "4.4",
        "Where both have learned the licences equally well, LoRA has forgotten more.",
        "learns_less",
        forgotten_at_equal_loss,
        above=0.0,
    ),
    Claim(
        "lora-forgets-more-on-a-task",
        "4.4",
        "The same happens on superlatives: LoRA leaves the manual with a higher perplexity than full fine-tuning does.",
        "lora_rate",
        lambda records: task_elsewhere(records, LORA, FULL),
        above=0.0,
    ),
    Claim(
        "family-ties-with-lora",
        "4.5",
        "With each at its own best rate, LoRA's eight relatives end on average within 0.1 nats per token of LoRA.",
        "adapter_family",
        lambda records: family_loss(records, *RELATIVES) - family_loss(records, "LoRA"),
        above=-0.1,
        below=0.1,
    ),
    Claim(
        "prompt-tuning-keeps-up",
        "4.5",
        "Prompt tuning trains 530 times fewer numbers, and still ends within 0.15 nats per token of LoRA.",
        "adapter_family",
        lambda records: family_loss(records, "prompt tuning") - family_loss(records, "LoRA"),
        above=-0.15,
        below=0.15,
    ),
    Claim(
        "four-bits-small-gap",
        "4.6",
        "On a 4-bit base, LoRA's loss ends higher, but by no more than 0.2 nats per token.",
        "four_bits",
        lambda records: four_less_32(records, "test loss after"),
        above=0.0,
        below=0.2,
    ),
    Claim(
        "four-bits-third-of-the-memory",
        "4.6",
        "The 4-bit weights take less than a third of the memory.",
        "four_bits",
        lambda records: (
            records.values("megabytes of weights", bits=32) / records.values("megabytes of weights", bits=4)
        ),
        above=3.0,
    ),
    Claim(
        "four-bits-text-elsewhere-stays-worse",
        "4.6",
        "The perplexity of the manual stays more than a third higher than on the 32-bit base.",
        "four_bits",
        lambda records: (
            records.values("perplexity elsewhere after", bits=4) / records.values("perplexity elsewhere after", bits=32)
        ),
        above=4 / 3,
    ),
    Claim(
        "sum-of-adapters-keeps-both",
        "4.7",
        "Averaged over six pairs, the sum of two adapters scores less than ten points below the task's own adapter.",
        "merged_adapters",
        sum_less_own,
        above=-0.1,
    ),
)
