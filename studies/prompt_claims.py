"""What lessons 0 to 2, on prompting, conclude from their studies."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from claim import Claim

if TYPE_CHECKING:
    import pandas as pd

    from rapidadapt_lessons.studies.records import Records

ATTACKS = ("attack: ignore the examples", "attack: instead")  # of `injection`
ORDERED = ("sentiment", "continents", "question_topic")  # the tasks of `example_order`


def order_gain(records: Records, better: str, than: str, tasks: tuple[str, ...] = ORDERED) -> pd.Series:
    """Return by how much one column of `example_order` lies above another, on average over tasks."""
    return records.means(better, task=tasks) - records.means(than, task=tasks)


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
    return records.means("says it in any case", prompt=prompt, planted="HACKED", data=ATTACKS)


def lost_to_the_wrong_label(records: Records) -> pd.Series:
    """Return by how much accuracy on a choice of two labels falls where the data ask for the wrong one, on average
    over the attacks of `injection`."""
    none, attacked = (
        records.means("still right", prompt="choice of a label", planted="wrong label", data=data)
        for data in ("no attack", ATTACKS)
    )
    return none - attacked


def nearest_gain(records: Records, task: str) -> pd.Series:
    """Return by how much nearest examples beat random ones, on average over one example and four."""
    near, drawn = (records.means("accuracy", task=task, examples=way, shots=(1, 4)) for way in ("nearest", "random"))
    return near - drawn


def _sums(records: Records, method: str, votes: int) -> pd.Series:
    """Return the share of right sums: greedy without a vote, otherwise sampled."""
    return records.values("accuracy", method=method, votes=votes)


def _masked_less_free(records: Records) -> pd.Series:
    """Return the share of right masked answers less that of free ones, after two examples, the mean of all tasks."""
    masked, free = (records.means(f"right, {how}", prompt="two examples") for how in ("masked", "free"))
    return masked - free


def _more_than_rule(records: Records, task: str) -> pd.Series:
    """Return the accuracy with eight examples less that of the spelling rule."""
    return records.values("exact match", task=task, shots=8) - records.values("rule", task=task, shots=8)


def labelled(records: Records, shown: str) -> pd.Series:
    """Return the accuracy with examples of a kind, the mean over the tasks of `example_labels`."""
    return records.means("accuracy", shown=shown)


def _exact(records: Records, task: str, format: str) -> pd.Series:
    """Return the share of exact matches with four examples."""
    return records.values("exact match", task=task, format=format, shots=4)


def _lenient(records: Records, task: str, shots: int) -> pd.Series:
    """Return the share of replies in chat that contain the answer."""
    return records.values("lenient match", task=task, format="chat", shots=shots)


def _cue_less_question(records: Records, task: str) -> pd.Series:
    return _exact(records, task, "cue") - _exact(records, task, "question and answer")


def _least_gain_over_system_prompt(records: Records) -> pd.Series:
    """Return what four examples in chat gain over a system prompt without any, on the task where that is least."""
    asked = {"format": "chat, system prompt", "shots": 0}
    tasks = records.rows["task"].unique()
    gains = [_exact(records, task, "chat") - records.values("exact match", task=task, **asked) for task in tasks]
    return reduce(lambda a, b: a.combine(b, min), gains)


PROMPT_CLAIMS = (
    Claim(
        "more-examples-more-verbs",
        "How every lesson works",
        "Eight examples get more verbs right than one.",
        "few_shot",
        lambda records: (
            records.values("exact match", task="past_tense", shots=8)
            - records.values("exact match", task="past_tense", shots=1)
        ),
        above=0.0,
    ),
    # Lesson 1
    Claim(
        "few-shot-plurals",
        "1.3",
        "Four examples are enough for plurals: over 80% of the answers are right.",
        "few_shot",
        lambda records: records.values("exact match", task="plurals", shots=4),
        above=0.8,
        queries=66,
    ),
    Claim(
        "few-shot-beats-spelling",
        "1.4",
        "With eight examples, the model gets more plurals and more past tenses right than a spelling rule.",
        "few_shot",
        lambda records: _more_than_rule(records, "plurals").combine(_more_than_rule(records, "past_tense"), min),
        above=0.0,
    ),
    Claim(
        "random-labels-cost",
        "1.5",
        "Random labels cost more than five points of accuracy, averaged over the four tasks.",
        "example_labels",
        lambda records: labelled(records, "correct labels") - labelled(records, "random labels"),
        above=0.05,
    ),
    Claim(
        "labels-need-their-words",
        "1.5",
        "Correct labels on unrelated words gain less than five points over no examples.",
        "example_labels",
        lambda records: labelled(records, "correct labels, unrelated words") - labelled(records, "nothing"),
        below=0.05,
    ),
    Claim(
        "format-spread",
        "1.6",
        "With the same examples, the question-and-answer format beats chat on past tenses by over 20 points.",
        "prompt_formats",
        lambda records: _exact(records, "past_tense", "question and answer") - _exact(records, "past_tense", "chat"),
        above=0.2,
    ),
    Claim(
        "no-format-wins",
        "1.6",
        "Question and answer beats the cue on past tenses, but the cue beats question and answer on capitals.",
        "prompt_formats",
        lambda records: _cue_less_question(records, "capitals").combine(
            -_cue_less_question(records, "past_tense"), min
        ),
        above=0.0,
    ),
    Claim(
        "chat-says-plurals",
        "1.7",
        "In chat with no examples, the model gives over 70% of the plurals, but in replies that aren't exact matches.",
        "prompt_formats",
        lambda records: (
            _lenient(records, "plurals", 0) - records.values("exact match", task="plurals", format="chat", shots=0)
        ),
        above=0.7,
        queries=66 // 5,  # nothing is drawn: all five seeds are one run over 66 words
    ),
    Claim(
        "examples-beat-system-prompt",
        "1.7",
        "With no examples, the system prompt gets no exact match; four examples in chat gain over 20 points on "
        "each task.",
        "prompt_formats",
        _least_gain_over_system_prompt,
        above=0.2,
    ),
    Claim(
        "examples-cost-capitals",
        "1.7",
        "In chat, the share of replies that contain the correct capital falls by over 20 points with four examples.",
        "prompt_formats",
        lambda records: _lenient(records, "capitals", 0) - _lenient(records, "capitals", 4),
        above=0.2,
    ),
    Claim(
        "paired-arrow-beats-chat",
        "1.8",
        "On the same draws, the arrow beats chat on past tenses by over ten points.",
        "prompt_formats",
        lambda records: _exact(records, "past_tense", "arrow") - _exact(records, "past_tense", "chat"),
        above=0.1,
    ),
    Claim(
        "few-shot-sixteen-beat-one",
        "1.4",
        "For past tenses, sixteen examples beat one by more than 40 points.",
        "few_shot",
        lambda records: (
            records.values("exact match", task="past_tense", shots=16)
            - records.values("exact match", task="past_tense", shots=1)
        ),
        above=0.4,
    ),
    # Lesson 2
    Claim(
        "order-alone-moves-accuracy",
        "2.1",
        "Averaged over three tasks, the best and worst orders of the same four examples are more than "
        "25 percentage points apart.",
        "example_order",
        lambda records: order_gain(records, "best order, none", "worst order, none"),
        above=0.25,
    ),
    Claim(
        "contextual-calibration-helps",
        "2.2",
        "Dividing out the prompt's own preference raises accuracy by more than 15 points, averaged over "
        "orders and tasks.",
        "example_order",
        lambda records: order_gain(records, "mean order, contextual", "mean order, none"),
        above=0.15,
    ),
    Claim(
        "batch-calibration-needs-balance",
        "2.2",
        "When one query in twenty has the rare label, batch calibration is less accurate than contextual calibration.",
        "skewed_calibration",
        rare_label_gain,
        below=0.0,
    ),
    Claim(
        "nearest-examples-help-topics",
        "2.3",
        "For the topic of a question, nearest examples beat random ones by more than 10 points.",
        "nearest_examples",
        lambda records: nearest_gain(records, "question_topic"),
        above=0.1,
    ),
    Claim(
        "balanced-and-calibrated-beats-nearest",
        "2.3",
        "With calibration, one example of each label beats the four nearest examples.",
        "nearest_examples",
        lambda records: (
            records.values("accuracy, calibrated", task="question_topic", examples="as many of each label", shots=4)
            - records.values("accuracy", task="question_topic", examples="nearest", shots=4)
        ),
        above=0.0,
    ),
    Claim(
        "steps-before-the-answer",
        "2.4",
        "Steps before the answer more than double the share of correct sums.",
        "chain_of_thought",
        lambda records: _sums(records, "chain of thought", 0) - 2 * _sums(records, "direct", 0),
        above=0.0,
    ),
    Claim(
        "vote-beats-one-sample",
        "2.5",
        "A vote of ten sampled chains is right more often than a single sampled chain.",
        "chain_of_thought",
        lambda records: _sums(records, "chain of thought", 10) - _sums(records, "chain of thought", 1),
        above=0.0,
    ),
    Claim(
        "mask-makes-more-right",
        "2.6",
        "A token mask keeps every reply on the list and, averaged over five tasks, makes more of them correct.",
        "constrained_decoding",
        _masked_less_free,
        above=0.05,
    ),
    Claim(
        "mask-is-not-likeliest",
        "2.6",
        "In a chat, the likeliest capital is correct far more often than the masked one.",
        "constrained_decoding",
        lambda records: (
            records.values("right, likeliest", task="capitals", prompt="chat")
            - records.values("right, masked", task="capitals", prompt="chat")
        ),
        above=0.3,
    ),
    Claim(
        "data-decide-the-answer",
        "2.7",
        "A command in the data puts its word into more than three answers out of four.",
        "injection",
        lambda records: planted(records, "arrow"),
        above=0.75,
    ),
    Claim(
        "forbidding-plants-the-word",
        "2.7",
        "A line that forbids the word plants it too, in more than two answers out of three.",
        "injection",
        lambda records: records.values(
            "says it in any case", prompt="arrow", planted="HACKED", data="control: forbidden"
        ),
        above=2 / 3,
    ),
    Claim(
        "repeating-the-task-holds",
        "2.7",
        "Repeat the task after the data, and fewer than one answer in ten holds the planted word.",
        "injection",
        lambda records: planted(records, "arrow, task repeated"),
        below=0.1,
    ),
    Claim(
        "attack-picks-the-label",
        "2.7",
        "A command that names the wrong label costs a choice between two labels more than 20 points of accuracy.",
        "injection",
        lost_to_the_wrong_label,
        above=0.2,
    ),
    Claim(
        "examples-cost-every-time",
        "2.8",
        "Without the cache, a query with sixteen examples takes at least five times as long as one with none.",
        "prompt_cost",
        lambda records: records.values("times slower than no examples", shots=16),
        above=5.0,
    ),
    Claim(
        "prefix-cache-three-times-faster",
        "2.8",
        "With the cache, the same query is at least three times faster.",
        "prompt_cost",
        lambda records: records.values("times faster with the cache", shots=16),
        above=3.0,
    ),
    Claim(
        "prefix-cache-ten-times-fewer-tokens",
        "2.8",
        "With sixteen examples and 32 queries, a prefix cache cuts the tokens read to a tenth or less.",
        "prompt_cost",
        lambda records: (
            records.values("tokens per query, plain", shots=16) / records.values("tokens per query, cached", shots=16)
        ),
        above=10.0,
    ),
)
