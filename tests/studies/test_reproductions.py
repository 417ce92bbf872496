"""The page of published findings is what the generator writes, and its verdicts follow from the whole interval."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import reproductions
from claim import Claim
from finding import AGREES, DISAGREES, UNDECIDED, Finding, lesson_claim
from findings import FINDINGS

from rapidadapt_lessons.errors import CourseError


@pytest.mark.parametrize("path", [reproductions.PAGE, reproductions.README], ids=lambda path: path.name)
def test_the_page_and_the_readme_are_up_to_date(path):
    assert path.read_text(encoding="utf-8") == reproductions.planned()[path], "run `make reproductions`"


def test_a_stale_page_is_told_and_written_anew(tmp_path, monkeypatch, capsys):
    page, readme = tmp_path / "page.md", tmp_path / "README.md"
    readme.write_text(f"above\n{reproductions.BEGIN}\nold\n{reproductions.END}\nbelow\n", encoding="utf-8")
    for name, value in {"ROOT": tmp_path, "PAGE": page, "README": readme}.items():
        monkeypatch.setattr(reproductions, name, value)
    monkeypatch.setattr(reproductions, "row", lambda finding, root: f"| {finding.paper} |")
    assert reproductions.main(["--check"]) == 1 and "old" in readme.read_text() and not page.exists()
    assert capsys.readouterr().out.count("out of date") == 2
    assert reproductions.main([]) == 0 and reproductions.main(["--check"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    assert text.count(FINDINGS[0].paper) == 1
    page.write_text(page.read_text(encoding="utf-8").replace("agrees", "disagrees", 1), encoding="utf-8")
    assert reproductions.main(["--check"]) == 1


@pytest.mark.parametrize(
    ("above", "below", "verdict"),
    [
        (0.3, 9.0, AGREES),
        (0.5, 9.0, UNDECIDED),  # the mean itself
        (0.7, 9.0, DISAGREES),
        (-1.0, 0.3, DISAGREES),
        (-1.0, 0.5, UNDECIDED),
    ],
)
def test_a_verdict_needs_the_whole_interval(above, below, verdict):
    """Five seeds with the mean 0.5 and the interval 0.35 to 0.65."""
    values = pd.Series([0.4, 0.6, 0.5, 0.65, 0.35])
    claim = Claim("x", "1.5", "It is so.", "few_shot", lambda records: values, above, below)
    finding = Finding("Ada 1843", "note G", "Engines compute.", claim, "share")
    assert finding.verdict() == verdict and finding.seen() == "share: 0.50 (0.35 to 0.65, 5 seeds)"
    told = reproductions.row(finding, "../")
    assert told.endswith("| [1.5](../notebooks/01_prompting.ipynb) |")
    assert (f"| **{verdict}** |" in told) == (verdict != AGREES)


def test_every_finding_says_what_agreeing_means_and_why_it_does_not():
    for finding in FINDINGS:
        assert reproductions.bound(finding) and finding.found.endswith(".") and "|" not in finding.found
        assert finding.verdict() == AGREES or finding.note, f"{finding.paper}: say why it does not agree"


def test_unknown_claims_are_named():
    assert lesson_claim("few-shot-plurals").study == "few_shot"
    assert reproductions.bound(replace(FINDINGS[0], claim=lesson_claim("few-shot-plurals"))) == "above 0.8"
    with pytest.raises(CourseError, match="no claim 'few'"):
        lesson_claim("few")
