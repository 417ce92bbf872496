"""What lessons 3 and 4, on LoRA, conclude from their studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from claim import Claim

if TYPE_CHECKING:
    import pandas as pd

    from rapidadapt_lessons.studies.records import Records


def kept_less_whole(records: Records, metric: str, kept: str) -> pd.Series:
    """Return what is lost of a full update where only a part of it is kept, mean over the tasks of `update_rank`."""
    return records.means(f"{metric}, {kept}") - records.means(f"{metric}, whole")


LORA_CLAIMS = (
    Claim(
        "four-directions-keep-accuracy",
        "3.7",
        "Of a full update, four directions per matrix keep all of the accuracy, to within two points.",
        "update_rank",
        lambda records: kept_less_whole(records, "exact match", "rank 4"),
        above=-0.02,
        below=0.02,
    ),
    Claim(
        "one-direction-nearly-enough",
        "3.7",
        "A single direction per matrix is less than eight points behind the whole update.",
        "update_rank",
        lambda records: kept_less_whole(records, "exact match", "rank 1"),
        above=-0.08,
    ),
    Claim(
        "rest-of-update-does-nothing",
        "3.7",
        "Without its four largest directions per matrix, the update answers nothing right.",
        "update_rank",
        lambda records: records.means("exact match, without 4"),
        below=0.05,
        queries=96,
    ),
    Claim(
        "four-directions-squared-length",
        "3.7",
        "Four of up to 576 directions hold more than 70% of an update's squared length.",
        "update_rank",
        lambda records: records.means("share of squared length, rank 4"),
        above=0.7,
    ),
)
