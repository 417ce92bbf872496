"""The headline results over 5 seeds: intervals, verdicts, the sentences of the lessons, and a run that goes on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import imported_benchmark

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def headlines():
    with imported_benchmark("headlines") as module:
        yield module


@pytest.fixture
def made(headlines, tmp_path, monkeypatch):
    """A headline that says "above 0" of a number which the seed gives, kept in a folder of its own."""
    monkeypatch.setattr(headlines, "KEPT", tmp_path)
    parts = (headlines.Part("gain", "above 0", lambda v: v > 0, headlines.ANY), headlines.Part("share"))
    headline = headlines.Headline("09", "It gains.", "nothing is run", gain_of, parts)
    monkeypatch.setattr(headlines, "HEADLINES", (headline,))
    return headline


def gain_of(seed: int) -> dict[str, float]:
    return {"gain": float(seed + 1), "share": 0.5 * seed}


def runs(*gains: float, share: float = 0.5) -> list[dict]:
    return [{"found": {"gain": gain, "share": share}, "day": "2026-01-02"} for gain in gains]


def text_of(lesson: str) -> str:
    [path] = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_an_interval_is_students_t_over_the_seeds_cut_at_the_bounds(made):
    found = made.intervals([gain_of(seed) for seed in range(3)])  # gains 1, 2, 3; shares 0, 0.5, 1
    half = 4.302653 / math.sqrt(3)  # t of 2 degrees of freedom at 0.975, standard deviation 1
    assert found["gain"].mean == 2 and found["gain"].low == pytest.approx(2 - half, abs=1e-5)
    assert found["gain"].high == pytest.approx(2 + half, abs=1e-5)
    assert (found["share"].low, found["share"].high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("gains", "fails"),
    [
        ((1.0, 1.1, 0.9), []),
        ((1.0, 1.0, -0.5), ["gain (lower end)"]),  # the mean is above 0 and so is the upper end
        ((-1.0, -1.1, -0.9), ["gain (lower end)", "gain (upper end)"]),
    ],
)
def test_a_sentence_holds_only_at_both_ends(headlines, made, gains, fails):
    found = made.intervals([run["found"] for run in runs(*gains)])
    assert made.fails(found) == fails
    told = headlines.row(made, runs(*gains))
    assert ("| yes (3 of 5 seeds) |" in told) == (not fails) and all(fail in told for fail in fails)
    assert ("**no**" in told) == bool(fails)


def test_a_row_tells_numbers_what_was_said_and_what_is_missing(headlines, made):
    assert headlines.row(made, runs(1.0, 1.0, 1.0, 1.0, 1.0)) == (
        "| 09 | It gains. | gain: 1.00 (1.00 to 1.00); said: above 0<br>share: 0.50 (0.50 to 0.50) | yes | 2026-01-02 |"
    )
    assert headlines.row(made, []) == "| 09 | It gains. | not measured yet | | |"
    small = headlines.Part("off", bounds=headlines.POSITIVE, digits=4).told(headlines.Interval(2e-6, 0.0, 0.00061))
    assert small == "off: 2e-06 (0.0000 to 0.0006)"


def test_a_run_that_was_stopped_goes_on(headlines, made, monkeypatch, capsys):
    measured = []

    def stops(seed: int) -> dict[str, float]:
        measured.append(seed)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return gain_of(seed)

    monkeypatch.setattr(headlines, "HEADLINES", (replace(made, measure=stops),))
    with pytest.raises(KeyboardInterrupt):
        headlines.main(["--seeds", "3"])
    assert headlines.main(["--seeds", "3"]) == 0 and measured == [0, 1, 1, 2]
    assert "| 09 | It gains. | gain: 2.00 (" in capsys.readouterr().out
    headlines.main(["--seeds", "3", "--anew"])
    assert measured == [0, 1, 1, 2, 0, 1, 2]
    assert headlines.runs_of(made, 3, measure=False) == []  # another function: what is kept is not its own


def test_wrong_arguments_are_named(headlines, capsys):
    for arguments, told in ((["--lessons", "03,77"], "no headline of lesson 77"), (["--seeds", "1"], "1 seeds")):
        with pytest.raises(SystemExit):
            headlines.main(arguments)
        assert told in capsys.readouterr().err


def test_every_lesson_has_one_headline_and_says_its_sentence(headlines):
    numbers = [path.name[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.name[:2] != "00"]
    assert [headline.lesson for headline in headlines.HEADLINES] == numbers
    for headline in headlines.HEADLINES:
        plain = " ".join(text_of(headline.lesson).replace("**", "").split())
        assert headline.sentence in plain, f"lesson {headline.lesson} does not say this any more"
        assert "|" not in headline.sentence and any(part.true for part in headline.parts)
        assert all(bool(part.said) == (part.true is not None) for part in headline.parts)


def test_small_runs_give_what_is_shown(headlines, tmp_path, monkeypatch, capsys):
    """Lesson 3's headline with two seeds, and lesson 4's with hardly any training, for real."""
    monkeypatch.setattr(headlines, "KEPT", tmp_path)
    assert headlines.main(["--lessons", "03", "--seeds", "2"]) == 0
    [told] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 03 |")]
    assert "slope, MAML less average: 0.78 (" in told  # seeds 0 and 1
    assert len(list(tmp_path.glob("headline-03-*.json"))) == 2
    found = headlines.meta_learning(0, iterations=2, tasks=3)
    [maml] = [headline for headline in headlines.HEADLINES if headline.lesson == "04"]
    assert set(found) == {part.name for part in maml.parts} and all(map(math.isfinite, found.values()))
