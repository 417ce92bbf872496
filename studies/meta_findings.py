"""Published findings about meta-learning, and whether the studies of lessons 5 to 7 agree.

The README shows the first row of each lesson.
"""

from __future__ import annotations

from finding import Finding, lesson_claim

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

WORK_FINDINGS: tuple[Finding, ...] = ()
