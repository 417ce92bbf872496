"""What lesson 2's claims and findings read off their studies: one number for each seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from rapidadapt_lessons.studies.records import Records

ATTACKS = ("attack: ignore the examples", "attack: instead")  # of `injection`
ORDERED = ("sentiment", "continents", "question_topic")  # the tasks of `example_order`


def order_gain(records: Records, better: str, than: str, tasks: tuple[str, ...] = ORDERED) -> pd.Series:
    """Return by how much one column of `example_order` lies above another, on average over tasks."""
    return sum(records.values(better, task=task) - records.values(than, task=task) for task in tasks) / len(tasks)


def rare_label_gain(records: Records) -> pd.Series:
    """Return by how much batch calibration beats contextual calibration where one label is rare: the label it does
    better with."""
    few, many = (
        records.values("accuracy, batch", positive=p) - records.values("accuracy, contextual", positive=p)
        for p in (0.05, 0.95)
    )
    return few.combine(many, max)


def planted(records: Records, prompt: str) -> pd.Series:
    """Return the share of answers with HACKED in them, in any case, on average over the attacks of `injection`."""
    metric = "says it in any case"
    return sum(records.values(metric, prompt=prompt, planted="HACKED", data=data) for data in ATTACKS) / len(ATTACKS)


def lost_to_the_wrong_label(records: Records) -> pd.Series:
    """Return by how much accuracy on a choice of two labels falls where the data ask for the wrong one, on average
    over the attacks of `injection`."""
    none, *attacked = (
        records.values("still right", prompt="choice of a label", planted="wrong label", data=data)
        for data in ("no attack", *ATTACKS)
    )
    return none - sum(attacked) / len(ATTACKS)


def nearest_gain(records: Records, task: str) -> pd.Series:
    """Return by how much nearest examples beat random ones, on average over one example and four."""
    near, drawn = (
        sum(records.values("accuracy", task=task, examples=way, shots=k) for k in (1, 4)) / 2
        for way in ("nearest", "random")
    )
    return near - drawn
