"""Steps before the answer (Wei et al. 2022), and the vote of several sampled chains (Wang et al. 2023, figure 2).

python studies/chain_of_thought.py

Form and temperature were chosen on sums that are not among the queries. Of five forms of the chain, this short one and
one that ends in a sentence were ahead, the latter better still after eight examples, and slower. Of the temperatures
0.3, 0.5, 0.7 and 1.0, votes of five were about as often right at 0.3 and 0.5, less often above.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import product

from runner import Study, main

SHOTS, QUERIES, SAMPLES = 4, 100, 10
TEMPERATURE = 0.5
VOTES = (0, 1, 5, SAMPLES)  # 0 is the greedy answer
FORMS = {"direct": "{x} = {y}", "chain of thought": "{x}: {y}"}
TOKENS = {"direct": 4, "chain of thought": 21}
STEPS = {"direct": 0, "chain of thought": 2}  # which result is the total


@cache
def loaded():
    from rapidadapt_lessons.lm import load_model

    return load_model()


def answered(method: str, votes: int, seed: int) -> dict[str, float]:
    """Return the share of sums of three digits that are right: answered greedily, or by a majority of samples.

    The seed draws the four examples and the samples; smaller votes take the first of the same samples. For greedy
    chains also the share of right first steps, and of right totals among those whose first step was right.
    """
    queries, replies = sampled(method, seed) if votes else greedy(method, seed)
    step = STEPS[method]
    totals = [_majority(_results(reply)[step] for reply in some[: max(1, votes)]) for some in replies]
    right = [total == str(sum(query)) for total, query in zip(totals, queries)]
    found = {"accuracy": sum(right) / QUERIES}
    if method == "chain of thought" and not votes:
        first = [_results(some[0])[1] == str(a + b) for some, (a, b, _) in zip(replies, queries)]
        both = sum(one and two for one, two in zip(first, right))
        found |= {"step one": sum(first) / QUERIES, "step two given step one": both / max(1, sum(first))}
    return found


def greedy(method: str, seed: int) -> tuple[list, list[list[str]]]:
    """Return the queries and one reply to each."""
    from rapidadapt_lessons.prompting import scoring

    queries, prompts = asked(method, seed)
    replies = scoring.generate_answers(*loaded(), prompts, max_new_tokens=TOKENS[method])
    return queries, [[reply] for reply in replies]


@cache
def sampled(method: str, seed: int) -> tuple[list, list[list[str]]]:
    """Return the queries and SAMPLES replies to each, which all votes share."""
    from rapidadapt_lessons.prompting import scoring

    queries, prompts = asked(method, seed)
    how = {"temperature": TEMPERATURE, "seed": seed, "max_new_tokens": TOKENS[method]}
    return queries, scoring.sample_answers(*loaded(), prompts, SAMPLES, **how)


def asked(method: str, seed: int) -> tuple[list, list]:
    """Return the sums to ask, always the same, and a prompt for each with four others as examples."""
    from rapidadapt_lessons.lm.tasks import Example
    from rapidadapt_lessons.prompting import Template, build_prompts

    sums = list(product(range(1, 10), repeat=3))
    random.Random("trial").shuffle(sums)  # numbers 300 to 349 were for the trials
    queries, pool = sums[:QUERIES], sums[QUERIES:300]
    write = {"direct": lambda a, b, c: f"{a + b + c}", "chain of thought": _chain}[method]
    support = [Example(_plus(*some), write(*some)) for some in random.Random(seed).sample(pool, SHOTS)]
    return queries, build_prompts([Example(_plus(*some), "") for some in queries], support, Template(FORMS[method]))


def _plus(*numbers: int) -> str:
    return " + ".join(map(str, numbers))


def _chain(a: int, b: int, c: int) -> str:
    return f"{a} + {b} = {a + b}, {a + b} + {c} = {a + b + c}"


def _results(reply: str) -> list[str]:
    """Return what a reply begins with, and the results of its first two steps, empty where there is none."""
    return [part.split(",")[0].strip() for part in [*reply.split("="), "", ""][:3]]


def _majority(totals: Iterable[str]) -> str:
    """Return the total that occurs most often; of several, the one that was sampled first."""
    return Counter(totals).most_common(1)[0][0]


STUDY = Study(
    name="chain_of_thought",
    question="Do steps before the answer help a small model to add, and does a vote of several chains help further?",
    run=answered,
    settings=[{"method": method, "votes": votes} for method in FORMS for votes in VOTES],
    seconds=60,
    tolerance={"step two given step one": 6.5 / QUERIES, "": 4.5 / QUERIES},
)

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__))
