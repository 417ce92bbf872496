"""All claims of the lessons: see claim.py for what one is, prompt_claims.py for those of lessons 0 to 2,
lora_claims.py for those of lessons 3 and 4, and meta_claims.py for those of lessons 5 to 7."""

from __future__ import annotations

from typing import TYPE_CHECKING

from claim import Claim
from lora_claims import LORA_CLAIMS
from meta_claims import MATH_CLAIMS, SINUSOID_CLAIMS, WORK_CLAIMS
from prompt_claims import PROMPT_CLAIMS

if TYPE_CHECKING:
    import pandas as pd

    from rapidadapt_lessons.studies.records import Records


def digits(records: Records, scenario: str, metric: str = "ACC") -> pd.DataFrame:
    """Return a row for each seed and a column for each method, at the rate and strength that validation chose for it.

    Args:
        scenario: "task", "domain" or "class", of the study `digit_scenarios`.
    """
    import pandas as pd

    tuned = records.tuned("validation ACC", over=("lr", "strength"), lowest=False)
    return pd.DataFrame(tuned.nested(metric, "scenario", "method")[f"{scenario}-incremental"])


def _calibrated_less_lora(records: Records, examples: int) -> pd.Series:
    """Return the accuracy on continents of the calibrated prompt less that of LoRA, from the same examples."""
    prompt, lora = (records.values("accuracy", method=m, examples=examples) for m in ("calibrated few-shot", "LoRA"))
    return prompt - lora


CLAIMS = (
    *PROMPT_CLAIMS,
    *LORA_CLAIMS,
    *MATH_CLAIMS,
    *SINUSOID_CLAIMS,
    *WORK_CLAIMS,
    Claim(
        "class-incremental-ewc-forgets",
        "8.12",
        "When all ten classes compete, EWC and LwF barely beat fine-tuning.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "class"))[["EWC", "LwF"]].max(axis=1) - acc["fine-tuning"],
        below=0.1,
    ),
    Claim(
        "class-incremental-replay-beats-ewc",
        "8.12",
        "Replay of 50 images ends more than 0.5 above EWC.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "class"))["replay"] - acc["EWC"],
        above=0.5,
    ),
    Claim(
        "class-incremental-means-beat-replay",
        "8.12",
        "One stored mean per class beats replay of 50 images.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "class"))["nearest class mean"] - acc["replay"],
        above=0.0,
    ),
    Claim(
        "task-incremental-all-hold",
        "8.12",
        "When the model is told which pair an image is from, all six methods end above 0.9.",
        "digit_scenarios",
        lambda records: digits(records, "task").min(axis=1),
        above=0.9,
    ),
    Claim(
        "domain-incremental-forgets",
        "8.12",
        "When the question is only even or odd, fine-tuning ends more than 0.1 below joint training.",
        "digit_scenarios",
        lambda records: (acc := digits(records, "domain"))["joint"] - acc["fine-tuning"],
        above=0.1,
    ),
    Claim(
        "two-processes-one-run",
        "11.1",
        "Two processes that share the rows of each update do what one process does, up to rounding.",
        "two_processes",
        lambda records: records.values("largest difference", processes=2),
        below=1e-4,
    ),
    Claim(
        "calibrate-before-training",
        "10.3",
        "With 4 examples as with 16, the calibrated prompt is at most one answer in twenty behind LoRA.",
        "choose_continents",
        lambda records: _calibrated_less_lora(records, 4).combine(_calibrated_less_lora(records, 16), min),
        above=-1 / 20,
    ),
)
