"""Published findings about meta-learning, and whether the studies of lessons 5 to 7 agree.

The README shows the first row of each lesson.
"""

from __future__ import annotations

from claim import Claim
from finding import Finding, lesson_claim
from meta_claims import layer_error, method_error

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
        note="1,000 iterations here; the authors' code uses 70,000, both with 25 tasks.",
    ),
    Finding(
        "Finn et al. 2017",
        "section 5.2",
        "First-order MAML does nearly as well as MAML.",
        Claim(
            "fomaml-is-level",
            "6.6",
            "FOMAML's error after one step is within a twentieth of MAML's.",
            "meta_methods",
            lambda records: method_error(records, "FOMAML", 1, 1) / method_error(records, "MAML", 1, 1),
            below=1.05,
        ),
        "FOMAML's mean squared error after one step, divided by MAML's",
        note="The paper says it of images. On these curves the Hessian term counts.",
    ),
    Finding(
        "Nichol et al. 2018",
        "section 6.1",
        "Reptile does about as well as MAML.",
        lesson_claim("reptile-is-level"),
        "Reptile's mean squared error after ten steps minus that of MAML trained with five inner steps, too",
        note="The paper says it of Omniglot and Mini-ImageNet; 1,000 iterations here.",
    ),
    Finding(
        "Raghu et al. 2020",
        "table 1",
        "Adapting the head of MAML's start alone does as well as adapting all layers.",
        Claim(
            "head-alone-is-level",
            "6.7",
            "With the head alone the error after one step is within a tenth of that with all layers.",
            "feature_reuse",
            lambda records: layer_error(records, "head", 1) / layer_error(records, "all", 1),
            below=1.1,
        ),
        "mean squared error after one step of the head alone, divided by that of all layers",
        note="On images, classes differ in what the head is to do with the features. These tasks differ in where the "
        "input lies, and it is layer 1 that adapts.",
    ),
)

# Lesson 7, meta-learning at work

WORK_FINDINGS: tuple[Finding, ...] = ()
