"""The text of a prompt: templates, zero- and few-shot, chat turns, choosing and ordering examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadPrompt, NotEnoughExamples
from ..guards import require_one_of
from ..lm.tasks import Example, Task
from ..lm.types import Tokenizer


@dataclass(frozen=True)
class Template:
    """How one example is written, and how several are joined.

    Attributes:
        pattern: one example, with {x} for the input and, at the end, {y} for the answer.
        separator: what stands between examples, beginning with a line break, which ends an answer.
        header: text before the first example, for instance an instruction.

    Raises BadPrompt for a pattern or a separator that is not like this.
    """

    pattern: str = "{x} -> {y}"
    separator: str = "\n"
    header: str = ""

    def __post_init__(self) -> None:
        once = self.pattern.count("{x}") == 1 and self.pattern.count("{y}") == 1
        if not once or not self.pattern.endswith("{y}"):
            raise BadPrompt(
                f"the template {self.pattern!r} needs {{x}} once and {{y}} once, with {{y}} at its very end.",
                'write it like "{x} -> {y}": the model continues the text, so the answer has to come last.',
            )
        if not self.separator.startswith("\n"):
            raise BadPrompt(
                f"the separator {self.separator!r} does not begin with a line break.",
                'use "\\n" or "\\n\\n": a line break is what tells the model, and us, where an answer ends.',
            )

    def shot(self, x: str, y: str) -> str:
        """Return one worked example: "cat -> cats". Raises BadPrompt where x is empty or only white space."""
        return self._fill(x) + self.answer(y)

    def query(self, x: str) -> str:
        """Return a query up to where the answer belongs, without trailing space: "cat ->". Raises as `shot`."""
        return self._fill(x).rstrip(" ")

    def answer(self, y: str) -> str:
        """Return the answer as it continues `query`, with the space that the pattern puts before it."""
        before = self.pattern.removesuffix("{y}")
        return " " * (len(before) - len(before.rstrip(" "))) + y

    def _fill(self, x: str) -> str:
        if not x.strip():
            raise BadPrompt(f"the query is empty ({x!r}).", "give the model something to answer.")
        # str.replace and not str.format: a learner's text may hold braces of its own.
        return self.pattern.removesuffix("{y}").replace("{x}", x).rstrip(" ")


@dataclass(frozen=True)
class Prompt:
    """A prompt ready for `scoring`.

    Attributes:
        text: what the model reads.
        answer_prefix: what comes before an answer when it continues `text` (a space, mostly).
        stop: the text that ends an answer.
    """

    text: str
    answer_prefix: str = " "
    stop: str = "\n"


ARROW = Template("{x} -> {y}")
QA = Template("Q: {x}\nA: {y}", separator="\n\n")
INPUT_OUTPUT = Template("Input: {x}\nOutput: {y}", separator="\n\n")
CHAT = "chat"


def template_of(task: Task) -> Template:
    """Return the task's own sentence: "The plural of {x} is {y}". Of several lines, its examples stand a line apart."""
    return Template(task.cue, separator="\n\n" if "\n" in task.cue else "\n")


def templates_for(task: Task) -> dict[str, Template]:
    """Return the templates that the lessons compare, by name."""
    return {
        "arrow": ARROW,
        "cue": template_of(task),
        "question and answer": QA,
        "input and output": INPUT_OUTPUT,
        "instruction, then arrow": Template(ARROW.pattern, header=task.instruction + "\n"),
    }


def build_prompt(query: str, support: Sequence[Example] = (), template: Template = ARROW) -> Prompt:
    """Write a zero-shot (no support) or few-shot prompt for one query. Raises BadPrompt where it is empty."""
    shots = [template.shot(x, y) for x, y in support]
    text = template.header + template.separator.join([*shots, template.query(query)])
    # The first line break alone: at the end of a text "\n\n" is one token, before an example it is two.
    return Prompt(text, answer_prefix=template.answer(""), stop="\n")


def build_prompts(
    queries: Sequence[Example], support: Sequence[Example] = (), template: Template = ARROW
) -> list[Prompt]:
    """Write one prompt for each query, all with the same support."""
    return [build_prompt(query.x, support, template) for query in queries]


def chat_prompt(
    tokenizer: Tokenizer, query: str, support: Sequence[Example] = (), template: str = "{x}", system: str | None = None
) -> Prompt:
    """Write the same prompt as a conversation, in the format the model was instruction-tuned on.

    Each support example becomes a question by the user and an answer by the assistant.
    The template is the user's turn, with {x} for the input: "What is the plural of {x}?". The system prompt comes
    first; None leaves the one that the tokenizer's chat template puts there, if any.
    Raises BadPrompt where the query is empty, {x} is missing, or the tokenizer has no chat template.
    """
    if not query.strip():
        raise BadPrompt(f"the query is empty ({query!r}).", "give the model something to answer.")
    if "{x}" not in template:
        raise BadPrompt(f"the user's turn {template!r} has no {{x}}.", 'write it like "What is the plural of {x}?".')
    if tokenizer.chat_template is None:
        raise BadPrompt(
            f"{tokenizer.name_or_path} has no chat template: it was not tuned for conversation.",
            "use build_prompt, or an instruction-tuned model.",
        )
    messages = [] if system is None else [{"role": "system", "content": system}]
    for x, y in support:
        messages.append({"role": "user", "content": template.replace("{x}", x)})
        messages.append({"role": "assistant", "content": y})
    messages.append({"role": "user", "content": template.replace("{x}", query)})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return Prompt(text, answer_prefix="", stop=tokenizer.eos_token)


def task_prompts(
    tokenizer: Tokenizer,
    task: Task,
    queries: Sequence[Example],
    support: Sequence[Example],
    template: str | Template,
    system: str | None = None,
) -> list[Prompt]:
    """Write a prompt for each query, by a template, a template's name, or CHAT, which alone has a system prompt.

    Raises CourseError for another name.
    """
    if template == CHAT:
        return [chat_prompt(tokenizer, q.x, support, task.question, system) for q in queries]
    if isinstance(template, str):
        known = templates_for(task)
        require_one_of([*known, CHAT], "template", template)
        template = known[template]
    return build_prompts(queries, support, template)


def reorder(support: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """Return the same examples in another order; seed 0 keeps the order."""
    shuffled = list(support)
    if seed:
        random.Random(seed).shuffle(shuffled)
    return tuple(shuffled)


class NearestExamples:
    """Choose, for each query, the pool's most similar examples (Liu et al. 2022, "What makes good
    in-context examples for GPT-3?", section 3).

    Similarity is the cosine between TF-IDF vectors (scikit-learn): of words, or with analyzer "char" of
    n-grams of 2 to 4 letters, which suits single words. Of equally similar ones, the pool's first is the nearest.

    Raises NotEnoughExamples where the pool is empty; BadPrompt where the analyzer is unknown, or finds nothing.
    """

    def __init__(self, pool: Sequence[Example], analyzer: str = "word"):
        from sklearn.feature_extraction.text import TfidfVectorizer

        kinds = {"word": {"token_pattern": r"(?u)\w+"}, "char": {"analyzer": "char_wb", "ngram_range": (2, 4)}}
        if analyzer not in kinds:
            raise BadPrompt(f"analyzer {analyzer!r} is not one of {', '.join(kinds)}.", 'use "word" or "char".')
        self.pool = tuple(pool)
        self._vectorizer = TfidfVectorizer(**kinds[analyzer])
        if not self.pool:
            raise NotEnoughExamples("the pool is empty: 0 examples to choose from.", "give it at least one example.")
        try:
            self._vectors = self._vectorizer.fit_transform([example.x for example in self.pool])
        except ValueError as error:  # scikit-learn found nothing to count
            raise BadPrompt(
                f"no input of the pool holds a {analyzer} (the first is {self.pool[0].x!r}).",
                'use analyzer="char", or inputs with letters in them.',
            ) from error

    def select(self, query: str, k: int) -> tuple[Example, ...]:
        """Return the k nearest examples, the nearest last, so that it stands next to the query.

        Raises NotEnoughExamples where k is more than the pool holds, or negative.
        """
        if not 0 <= k <= len(self.pool):
            raise NotEnoughExamples(
                f"{k} examples were asked for; the pool holds {len(self.pool)}.", f"ask for 0 to {len(self.pool)}."
            )
        similarity = (self._vectors @ self._vectorizer.transform([query]).T).toarray().ravel()
        nearest = sorted(range(len(self.pool)), key=lambda i: (-similarity[i], i))[:k]
        return tuple(self.pool[i] for i in reversed(nearest))
