"""Published findings about meta-learning, and whether the studies of lessons 5 to 7 agree.

The README shows the first row of each lesson.
"""

from __future__ import annotations

from claim import Claim
from finding import Finding, lesson_claim
from meta_claims import answered, during_maml, layer_error, method_error, read

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
        note="1,000 iterations here; the authors' code uses 70,000, both with 25 tasks.",
    ),
    Finding(
        "Finn et al. 2017",
        "section 5.2",
        "First-order MAML does nearly as well as MAML.",
        Claim(
            "fomaml-is-level",
            "6.6",
            "FOMAML's error after one step is within a tenth of MAML's.",
            "meta_methods",
            lambda records: method_error(records, "FOMAML", 1, 1) / method_error(records, "MAML", 1, 1),
            below=1.1,
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
