"""What lessons say in bold, or as a claim, is held by it or by a proof, in its words, and no claim goes unsaid.

That the claims hold is in test_claims.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from claim import Claim
from claims import CLAIMS
from lesson_parts import Takeaway, plain, takeaways, tokens

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def said() -> list[Takeaway]:
    """Return the takeaways of all lessons."""
    return [takeaway for path in sorted(ROOT.glob("notebooks/*.ipynb")) for takeaway in takeaways(path)]


def same_words(claimed: str, said: str) -> bool:
    """Return whether a claim, in Markdown, says what a lesson says, but for spaces and punctuation at the end."""
    claimed = " ".join(plain(token) for token in tokens(claimed) if token.type == "inline")
    return claimed.rstrip(" .!") == said.rstrip(" .!")


def defines(proof: str, root: Path = ROOT) -> bool:
    """Return whether FILE::test_name is a test function of a file."""
    name, _, test = proof.partition("::")
    path = root / name
    if not test.startswith("test_") or not path.is_file():
        return False
    return any(
        isinstance(node, ast.FunctionDef) and node.name == test
        for node in ast.parse(path.read_text(encoding="utf-8")).body
    )


def fault(takeaway: Takeaway, claims: Iterable[Claim] = CLAIMS) -> str | None:
    """Return what is wrong with a takeaway, and what to do, or None."""
    if takeaway.proof and not defines(takeaway.proof):
        return f"{takeaway.proof} is no test. What to do: name one, as FILE::TEST."
    if not takeaway.claim:
        nothing = "nothing holds it. What to do: add <!-- claim: ID --> or <!-- proof: FILE::TEST --> on its line."
        return None if takeaway.proof else nothing
    claim = next((claim for claim in claims if claim.id == takeaway.claim), None)
    if claim is None:
        return f"there is no claim {takeaway.claim}. What to do: add it to studies/claims.py."
    if claim.section != takeaway.section:
        return f"the claim names section {claim.section}. What to do: correct it in studies/claims.py."
    if not same_words(claim.sentence, takeaway.sentence):
        return f"the claim says {claim.sentence!r}. What to do: make both say the same, and no more than is measured."
    return None


def test_what_lessons_say_in_bold_is_held(said):
    faults = [f"{one.lesson}, {one.section}: {one.sentence!r}: {told}" for one in said if (told := fault(one))]
    assert not faults, "\n".join(faults)


def test_a_table_of_rules_names_claims_of_the_sections_it_names():
    sections = {claim.id: claim.section for claim in CLAIMS}
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("notebooks/*.ipynb")))
    named = re.findall(r"(\d+\.\d+) <!-- see: ([\w-]+) -->", text)
    assert named and [(section, sections.get(claim)) for section, claim in named] == [(s, s) for s, _ in named]


def test_lessons_say_every_claim(said):
    unsaid = [claim for claim in CLAIMS if claim.id not in {takeaway.claim for takeaway in said}]
    told = [f"section {one.section}: **{one.sentence}** <!-- claim: {one.id} -->" for one in unsaid]
    assert not unsaid, "write it into the lesson, or remove the claim:\n" + "\n".join(told)


CLAIM = Claim("rate-ten", "4.1", "LoRA wants *ten* times the rate, $10 \\eta$.", "lora_rate", lambda records: None)
HELD = Takeaway("04_tuning", "4.1", "LoRA wants ten times the rate, 10 \\eta", claim="rate-ten")
PROVED = Takeaway("05_maml", "5.2", "It is a product.", proof="tests/studies/test_takeaways.py::test_what_is_held")


def test_what_is_held():
    assert fault(HELD, [CLAIM]) is None and fault(PROVED, []) is None


@pytest.mark.parametrize(
    ("takeaway", "told"),
    [
        (replace(HELD, claim=None), "nothing holds it"),
        (replace(HELD, claim="rate-nine"), "no claim rate-nine"),
        (replace(HELD, section="4.2"), "names section 4.1"),
        (replace(HELD, sentence="LoRA wants nine times the rate, 10 \\eta."), "make both say the same"),
        (replace(HELD, sentence="LoRA wants ten times the rate, 10 \\eta, always."), "make both say the same"),
        (replace(PROVED, proof="tests/studies/test_takeaways.py::test_gone"), "is no test"),
        (replace(PROVED, proof="tests/studies/test_takeaways.py::fault"), "is no test"),
        (replace(PROVED, proof="tests/gone.py::test_what_is_held"), "is no test"),
    ],
)
def test_what_is_not_held_is_told(takeaway, told):
    assert told in (fault(takeaway, [CLAIM]) or "")
