"""Published findings about meta-learning, and whether the studies of lessons 5 to 7 agree.

The README shows the first row of each lesson.
"""

from __future__ import annotations

from claim import Claim
from finding import Finding, lesson_claim
from meta_claims import during_maml

# Lesson 5, the mathematics of MAML

MATH_FINDINGS = (
    Finding(
        "Nichol et al. 2018",
        "section 5.1",
        "MAML, first-order MAML and Reptile make gradients on different examples of one task agree.",
        lesson_claim("meta-learning-aligns-gradients"),
        "cosine of a new sinusoid's two gradients after 1,000 steps, the lowest of the three minus joint training's",
        note="They derive it for small steps. Here the cosine is measured in Finn et al.'s network, with three inner "
        "steps at 0.01.",
    ),
    Finding(
        "Finn et al. 2017",
        "section 5.2",
        "Without second derivatives, MAML does nearly as well.",
        lesson_claim("first-order-is-as-good"),
        "loss on fresh lines after three steps, first-order MAML's minus MAML's",
        note="They compare on images (MiniImagenet), here it is lines, each method at its best inner rate.",
    ),
    Finding(
        "Finn et al. 2017",
        "section 5.2",
        "Networks of ReLUs are locally almost linear, so the second derivatives may be close to zero.",
        Claim(
            "second-derivatives-small",
            "5.8",
            "What first-order MAML drops is less than a fifth of MAML's gradient, task by task.",
            "meta_gradients",
            lambda records: (
                during_maml(records, "dropped term, norm per task", 1000)
                / during_maml(records, "gradient, norm per task", 1000)
            ),
            below=0.2,
        ),
        "norm of what first-order MAML drops over that of MAML's gradient, per task, after 1,000 steps",
        note="A squared error is curved even where the network is linear, and after meta-learning a few steps change "
        "much.",
    ),
)

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

WORK_FINDINGS: tuple[Finding, ...] = ()
