"""Published findings about meta-learning, and whether the studies of lessons 5 to 7 agree.

The README shows the first row of each lesson.
"""

from __future__ import annotations

from claim import Claim
from finding import Finding, lesson_claim
from meta_claims import answered, read

# Lesson 5, the mathematics of MAML

MATH_FINDINGS: tuple[Finding, ...] = ()

# Lesson 6, MAML from scratch

SINUSOID_FINDINGS = (
    Finding(
        "Finn et al. 2017",
        "figure 3",
        "One gradient step from MAML's start fits a new sinusoid better than ten from a pretrained start.",
        lesson_claim("one-maml-step-beats-ten"),
        "mean squared error of the pretrained start after ten steps minus MAML's after one",
        note="10,000 iterations here; the authors' code uses 70,000, both with 25 tasks.",
    ),
)

# Lesson 7, meta-learning at work

WORK_FINDINGS = (
    Finding(
        "Chen et al. 2019; Tian et al. 2020",
        "abstracts",
        "A classifier pretrained in the ordinary way has features that compete with meta-learning on new classes.",
        lesson_claim("classifier-beats-maml"),
        "accuracy of class means of the classifier's features minus MAML's, from one picture of each letter",
        note="Printed letters and a small network here; they use photographs, and train a new layer on the features.",
    ),
    Finding(
        "Snell et al. 2017",
        "tables 1 and 2",
        "Without a gradient step on the new task, prototypical networks read new classes as well as MAML or better.",
        Claim(
            "protonet-against-maml",
            "7.2",
            "ProtoNet reads better than MAML from one picture.",
            "letters",
            lambda records: read(records, "ProtoNet", 1) - read(records, "MAML", 1),
            above=0.0,
        ),
        "accuracy of ProtoNet minus MAML's, from one picture of each letter",
        note="Their lead over MAML is 0.1 points on Omniglot and under one on miniImageNet; here it is larger.",
    ),
    Finding(
        "Min et al. 2022, MetaICL",
        "abstract",
        "Meta-training beats multi-task training on the same tasks.",
        Claim(
            "meta-start-against-joint",
            "7.5",
            "The meta-learned start adapts better than the jointly trained one.",
            "meta_lora_start",
            lambda records: (
                answered(records, "meta-learned", 1, 5, 10) - answered(records, "jointly trained", 1, 5, 10)
            ),
            above=0.0,
        ),
        "exact match of the meta-learned start minus the jointly trained one's, mean of 1, 5 and 10 steps",
        note="They meta-train a model to read examples, on 142 data sets; here Reptile learns a start, on 49 small "
        "tasks whose prompts name the task.",
    ),
)
