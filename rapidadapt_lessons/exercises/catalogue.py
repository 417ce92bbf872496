"""The exercises, in the order in which they are meant to be done: names and words only, quick to import."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..errors import CourseError


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        name: what `check` is called with, such as "lora.scaling".
        title: what the learner does, in a few words.
        notebook: its file in exercises/, and that of its solution in solutions/.
        minutes: about how long it takes.
        points: what a grader gives for it.
        begin: the first step, for somebody who has not begun.
    """

    name: str
    title: str
    notebook: str
    minutes: int
    points: int
    begin: str


_PROMPTING, _PROMPTS = "ex01_prompting.ipynb", "ex02_prompts.ipynb"
_LORA, _MATHS = "ex03_lora.ipynb", "ex05_maml_math.ipynb"
_MAML, _CONTINUAL, _BUGS = "ex06_maml_from_scratch.ipynb", "ex08_continual.ipynb", "ex09_bug_hunts.ipynb"
_SCALING = "ex11_scaling_out.ipynb"

LESSONS = {
    _PROMPTING: "1 Prompting",
    _PROMPTS: "2 Prompts that hold up",
    _LORA: "3 LoRA",
    _MATHS: "5 The mathematics of MAML",
    _MAML: "6 MAML from scratch",
    _CONTINUAL: "8 Continual learning",
    _BUGS: "Bug hunts",
    _SCALING: "11 Scaling out",
}

EXERCISES = (
    Exercise(
        "prompting.template", "Write a few-shot prompt", _PROMPTING, 5, 1,
        'make one line of one example first: for ("cat", "cats") it is "cat -> cats".',
    ),
    Exercise(
        "prompting.exact_match", "Score what a model wrote", _PROMPTING, 8, 2,
        "take a single text first, and cut it at its first line break.",
    ),
    Exercise(
        "prompting.calibrate", "Divide a bias out", _PROMPTS, 10, 3,
        "divide the probabilities by the prior first; then look at what each row sums to.",
    ),
    Exercise(
        "prompts.examples", "A prompt of examples", _PROMPTS, 8, 1,
        'write two lines like "walk -> walked" first, then a line that ends where the answer belongs.',
    ),
    Exercise(
        "prompts.unbiased", "A prompt that takes no side", _PROMPTS, 8, 2,
        "begin a sentence with {x} in it that somebody could end with either label.",
    ),
    Exercise(
        "prompts.capitals", "A prompt within fourteen tokens", _PROMPTS, 8, 2,
        "begin with one example, and count its tokens.",
    ),
    Exercise(
        "prompts.orders", "A prompt that survives orders", _PROMPTS, 12, 3,
        "write down one practice query, order and all, and below it the plural alone.",
    ),
    Exercise(
        "lora.scaling", "How much the update counts", _LORA, 3, 1,
        "write the plain scaling first: lora_alpha over the rank.",
    ),
    Exercise(
        "lora.parameter_count", "Count what is trained", _LORA, 3, 1,
        "write down the shapes of A and of B, and count the numbers in each.",
    ),
    Exercise(
        "lora.forward", "A layer with LoRA", _LORA, 10, 2,
        "compute what the frozen layer gives on its own first: it is what you get when B is zero.",
    ),
    Exercise(
        "lora.merge", "Merge an adapter", _LORA, 8, 2,
        "find the one weight matrix that does what the frozen weight and the update do together.",
    ),
    Exercise(
        "maml.inner_step", "One inner step", _MATHS, 5, 1,
        "write down the gradient of the loss with respect to theta; on paper first.",
    ),
    Exercise(
        "maml.meta_gradient", "The meta-gradient by hand", _MATHS, 15, 3,
        "take the inner step first. Then ask how far the adapted parameters move when theta moves a little.",
    ),
    Exercise(
        "maml.task_weight", "What a task counts for", _MATHS, 12, 2,
        "write how far theta is from the centre after one step, as a multiple of how far it was before.",
    ),
    Exercise(
        "maml.reptile_step", "Reptile's step", _MAML, 6, 1,
        "for one parameter and one task: where does it stand, and where did adapting take it?",
    ),
    Exercise(
        "maml.meta_loss", "MAML's loss, differentiable", _MAML, 15, 3,
        "write it for one task: adapt on its support, then take the loss on its query.",
    ),
    Exercise(
        "continual.backward_transfer", "Measure forgetting", _CONTINUAL, 6, 1,
        "for one part: what was its score just after it was learned, and what is it at the end?",
    ),
    Exercise(
        "continual.ewc_penalty", "Springs on the weights", _CONTINUAL, 8, 2,
        "write it for one parameter tensor, then add up over all of them.",
    ),
    Exercise(
        "continual.reservoir", "A fair sample in fixed room", _CONTINUAL, 12, 3,
        "fill the buffer first: while there is room, every item is kept.",
    ),
    Exercise(
        "maml.bug_hunt", "Three bugs in MAML", _BUGS, 20, 3,
        "copy the body of the broken function into yours, run this check, and repair what it names.",
    ),
    Exercise(
        "ewc.bug_hunt", "Three bugs in EWC", _BUGS, 20, 3,
        "copy the body of the broken function into yours, run this check, and repair what it names.",
    ),
    Exercise(
        "scaling.mean_over_team", "The mean over a team", _SCALING, 6, 1,
        "take two processes and one parameter: with which weight does each gradient enter the mean over all tokens?",
    ),
    Exercise(
        "scaling.my_share", "A process's share", _SCALING, 6, 2,
        "write down on paper who takes which of eight rows when there are three processes.",
    ),
    Exercise(
        "scaling.ring_all_reduce", "An all-reduce by hand", _SCALING, 15, 3,
        "cut each vector into n pieces, and play a single round: which piece does each process pass on?",
    ),
    Exercise(
        "scaling.training_bytes_on_paper", "A cost on paper", _SCALING, 10, 2,
        "take one trained weight: how many bytes are kept for it, and for what?",
    ),
)  # fmt: skip


def find_exercise(name: str) -> Exercise:
    """Return the exercise of that name.

    Raises:
        CourseError: there is none.
    """
    names = [exercise.name for exercise in EXERCISES]
    if name in names:
        return EXERCISES[names.index(name)]
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise CourseError(f"there is no exercise called {name!r}.", f"{hint}The exercises are {', '.join(names)}.")
