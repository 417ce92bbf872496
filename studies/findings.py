"""Published findings, and whether the course's recorded studies agree: the rows of docs/reproductions.md.

A row is a `Finding` at the end of this file. What a study gives for it is a claim: a lesson's own, by its id, or one
that is written here because no lesson draws it. After a change: `make reproductions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from claim import Claim
from finding import Finding, lesson_claim
from lora_findings import LORA_FINDINGS
from meta_findings import MATH_FINDINGS, SINUSOID_FINDINGS, WORK_FINDINGS
from prompt_claims import ORDERED, labelled, nearest_gain, order_gain, rare_label_gain

from rapidadapt_lessons.studies.records import Records

if TYPE_CHECKING:
    import pandas as pd


def _least_gain(records: Records) -> pd.Series:
    """Return what contextual calibration adds to an average order's accuracy, on the task where it adds least."""
    import pandas as pd

    return pd.DataFrame(
        {task: order_gain(records, "mean order, contextual", "mean order, none", (task,)) for task in ORDERED}
    ).min(axis=1)


def _best_less_worst_format(records: Records) -> pd.Series:
    """Return how far apart the best and the worst format are on a draw, mean over the tasks.

    They are chosen on the other draws: best and worst of the same draw would lie apart by luck too.
    """
    import pandas as pd

    found = {seed: [] for seed in records.seeds}
    for by_format in records.nested("exact match", "task", "format", shots=4).values():
        frame = pd.DataFrame(by_format, records.seeds)
        for seed, others in found.items():
            means = frame.drop(seed).mean()
            others.append(frame.loc[seed, means.idxmax()] - frame.loc[seed, means.idxmin()])
    return pd.DataFrame(found).mean()


# The first ones stand in the README too.
FINDINGS = (
    Finding(
        "Brown et al. 2020",
        "figure 1.2",
        "A large language model learns a task from examples in its prompt, and more examples teach it more.",
        lesson_claim("few-shot-sixteen-beat-one"),
        "past tenses, accuracy with 16 examples minus accuracy with one",
        note="In their figure 175 billion weights climb steeply and 1.3 billion barely. Here 135 million weights are "
        "enough for a spelling rule, but not for French names.",
    ),
    Finding(
        "Min et al. 2022",
        "section 4",
        "Random labels in place of the correct ones make few-shot answers only 0 to 5 points less accurate.",
        Claim(
            "random-labels-cost-little",
            "1.5",
            "Over four tasks, random labels cost less than five points.",
            "example_labels",
            lesson_claim("random-labels-cost").value,
            below=0.05,
        ),
        "four tasks, accuracy with correct labels minus accuracy with random ones",
        note="Here the labels matter. Their models have 774 million weights or more, and read sixteen longer texts; "
        "these are eight single words or questions.",
    ),
    Finding(
        "Lu et al. 2022",
        "figure 1",
        "The order of the same examples decides between near-perfect accuracy and guessing.",
        Claim(
            "order-from-guessing-to-perfect",
            "2.1",
            "For feelings of words, the best of 24 orders beats the worst by more than 0.4; guessing gives 0.5.",
            "example_order",
            lambda records: order_gain(records, "best order, none", "worst order, none", ("sentiment",)),
            above=0.4,
        ),
        "feelings of words, accuracy of the best of 24 orders minus that of the worst",
        note="Best and worst are picked on the queries they are measured on. Continents and topics of questions move "
        "less: by about 0.15 and 0.25.",
    ),
    Finding(
        "Zhao et al. 2021",
        "figure 1",
        "Correcting for what the prompt alone suggests makes few-shot answers more accurate.",
        Claim(
            "calibration-helps-on-each-task",
            "2.2",
            "On each of three tasks, contextual calibration raises the accuracy of an average order.",
            "example_order",
            _least_gain,
            above=0.0,
        ),
        "accuracy of an average order with contextual calibration minus without, the least of three tasks",
    ),
    Finding(
        "Wei et al. 2022",
        "figure 4",
        "Chain of thought helps only models of about 100 billion weights or more.",
        Claim(
            "chain-of-thought-does-not-help-here",
            "2.4",
            "With 135 million weights, steps before the answer don't help.",
            "chain_of_thought",
            lambda records: (
                records.values("accuracy", method="chain of thought", votes=0)
                - records.values("accuracy", method="direct", votes=0)
            ),
            below=0.05,
        ),
        "sums of three digits, accuracy with steps minus accuracy without",
        note="Their problems are in words, and small models write fluent steps that are wrong. Here each step is a sum "
        "of two numbers, which even this model mostly gets right.",
    ),
    *LORA_FINDINGS[:3],
    *MATH_FINDINGS[:1],
    *SINUSOID_FINDINGS[:1],
    *WORK_FINDINGS[:1],
    Finding(
        "van de Ven et al. 2022",
        "Split MNIST",
        "When classes arrive one after another and all compete, EWC and LwF end barely more accurate than fine-tuning.",
        lesson_claim("class-incremental-ewc-forgets"),
        "final accuracy of the better of EWC and LwF minus fine-tuning's, digits",
        note="8 x 8 digits in place of MNIST.",
    ),
    Finding(
        "Perez and Ribeiro 2022",
        "goal hijacking",
        "A command in the data makes the model drop its task and write what the command asks for.",
        lesson_claim("data-decide-the-answer"),
        "plurals after an arrow, share of answers with the planted word, mean of two commands",
        note="It copies more than it obeys: a line that forbids the word gets it written too.",
    ),
    Finding(
        "Goyal et al. 2017",
        "section 3",
        "If each process divides its loss by the whole batch size, the summed gradients equal those of one process.",
        lesson_claim("two-processes-one-run"),
        "largest difference of the losses of eight updates, nats per token",
        digits=6,
        note="They aren't equal bit for bit, because the sums run in a different order.",
    ),
    Finding(
        "Min et al. 2022",
        "section 5",
        "It matters that the inputs of the examples are of the task's kind.",
        Claim(
            "unrelated-words-cost",
            "1.5",
            "The same labels on words of another task cost more than five points.",
            "example_labels",
            lambda records: labelled(records, "correct labels") - labelled(records, "correct labels, unrelated words"),
            above=0.05,
        ),
        "four tasks, accuracy with the task's own words minus accuracy with unrelated ones",
        note="Here the labels are the correct ones of the words that were replaced; they drew them at random.",
    ),
    Finding(
        "Sclar et al. 2024",
        "figure 2",
        "Few-shot accuracy differs widely between prompt formats that mean the same.",
        Claim(
            "formats-differ",
            "1.6",
            "With four examples, the best of six formats is more than ten points above the worst.",
            "prompt_formats",
            _best_less_worst_format,
            above=0.1,
        ),
        "three tasks, accuracy of the best format minus the worst, both chosen on the other draws",
        note="They vary spaces, separators and capitals; these formats differ by more, and two of them are chats.",
    ),
    Finding(
        "Zhou et al. 2024",
        "table 2",
        "Calibrating by the mean over the queries beats calibrating by a content-free input.",
        Claim(
            "batch-beats-contextual",
            "2.2",
            "Averaged over three tasks, batch calibration beats contextual calibration.",
            "example_order",
            lambda records: order_gain(records, "mean order, batch", "mean order, contextual"),
            above=0.0,
        ),
        "accuracy of an average order, batch minus contextual calibration, mean of three tasks",
        note="The queries are as many of each label, which is its best case, and nearly all of the gain is on one "
        "task. The next row has a rare label.",
    ),
    Finding(
        "Zhou et al. 2024",
        "section 3",
        "Calibrating by the mean over the queries beats calibrating by a content-free input.",
        Claim(
            "batch-beats-contextual-skewed",
            "2.2",
            "With 38 of 40 queries of one label, batch calibration beats contextual calibration.",
            "skewed_calibration",
            rare_label_gain,
            above=0.0,
        ),
        "feelings of words, 38 of 40 queries of one label, accuracy with batch minus contextual calibration, the "
        "better of both labels",
        note="Batch calibration takes labels to be about equally frequent, and moves decisions until they are. At four "
        "to one it wins where positive words are rare and loses where negative ones are, since the prompts lean "
        "towards positive.",
    ),
    Finding(
        "Liu et al. 2022",
        "table 3",
        "Examples that are near the query beat random ones.",
        lesson_claim("nearest-examples-help-topics"),
        "topics of questions, accuracy with nearest minus random examples, mean of one and four",
        note="Near is what shares rare words, in place of a sentence encoder.",
    ),
    Finding(
        "Liu et al. 2022",
        "table 3",
        "Examples that are near the query beat random ones.",
        Claim(
            "nearest-examples-help-past-tenses",
            "2.3",
            "For past tenses, examples that are spelt alike beat random ones.",
            "nearest_examples",
            lambda records: nearest_gain(records, "past_tense"),
            above=0.0,
        ),
        "past tenses, accuracy with nearest minus random examples, mean of one and four",
        note="Verbs that are spelt alike need not be inflected alike: nearness carries little of the answer.",
    ),
    Finding(
        "Wang et al. 2023",
        "figure 2",
        "A majority over several sampled chains is right more often than the greedy chain.",
        Claim(
            "vote-beats-greedy",
            "2.5",
            "A vote of ten sampled chains is right more often than the greedy chain.",
            "chain_of_thought",
            lambda records: (
                records.values("accuracy", method="chain of thought", votes=10)
                - records.values("accuracy", method="chain of thought", votes=0)
            ),
            above=0.0,
        ),
        "sums of three digits, accuracy of a vote of ten minus accuracy of the greedy chain",
        note="A single sampled chain is right less often than the greedy one, and the vote mostly wins that back. "
        "In the paper models have 20 to 540 billion weights, and forty chains vote.",
    ),
    *LORA_FINDINGS[3:],
    *MATH_FINDINGS[1:],
    *SINUSOID_FINDINGS[1:],
    *WORK_FINDINGS[1:],
)
