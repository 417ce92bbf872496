"""Predictions: a guess is committed to, kept, and shown again; without a kernel the same content is a fold-out."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import IPython.display
import ipywidgets
import pytest

from rapidadapt_lessons import learner
from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.exercises import progress
from rapidadapt_lessons.show import predict
from rapidadapt_lessons.show.prediction import Prediction

VIEW = "application/vnd.jupyter.widget-view+json"
RATE = {
    "question": "Where is LoRA's best `rate`?", "choices": ["the same", "ten times higher", "ten times lower"],
    "answer": "ten times higher", "why": "Two **small** matrices.",
}  # fmt: skip
TYPED = {"question": "How many of 32?", "answer": "all 32"}


@pytest.fixture(autouse=True)
def no_traits_invented():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        yield


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A learner's own progress file, which is not there yet."""
    monkeypatch.setenv(learner.VARIABLE, str(tmp_path / "mine" / "progress.json"))
    return tmp_path / "mine" / "progress.json"


class Asked:
    """A prediction as it is displayed: its bundle, and the widgets that a learner has before them."""

    def __init__(self, monkeypatch, **arguments):
        shown: list = []
        monkeypatch.setattr(IPython.display, "display", shown.append)
        assert predict(**arguments) is None
        [self.prediction] = shown
        box = self.prediction.controls()
        self.question, self.guess, self.commit, self.told, self.again = box.children
        self.bundle = self.prediction._repr_mimebundle_()

    def committed(self, guess: str) -> str:
        self.guess.value = guess
        self.commit.click()
        return self.told.value

    @property
    def locked(self) -> bool:
        """Whether the guess is locked; then, and only then, the button to guess again is there."""
        there = [button.layout.display != "none" for button in (self.commit, self.again)]
        assert there == [not self.guess.disabled, self.guess.disabled]
        return self.guess.disabled


def test_a_guess_opens_the_answer_and_is_locked_and_kept(file, monkeypatch):
    asked = Asked(monkeypatch, **RATE)
    assert (asked.guess.value, asked.told.value, asked.locked) == (None, "", False)
    assert list(asked.guess.options) == RATE["choices"] and asked.guess.description
    told = asked.committed("the same")
    assert asked.locked and "✗" in told and "<b>ten times higher</b>" in told and "Two <b>small</b> matrices." in told
    [entry] = json.loads(file.read_text())["predictions"].values()
    assert (entry["choice"], entry["right"]) == ("the same", False) and entry["when"]


def test_the_earlier_guess_is_shown_when_the_cell_runs_again(file, monkeypatch):
    Asked(monkeypatch, **RATE).committed("ten times higher")
    again = Asked(monkeypatch, **RATE)
    assert again.locked and again.guess.value == "ten times higher" and "✓ Right" in again.told.value
    other = Asked(monkeypatch, **RATE | {"question": "Another one?"})
    assert not other.locked and other.guess.value is None


def test_guessing_again_folds_the_answer_up_and_keeps_the_new_guess(file, monkeypatch):
    asked = Asked(monkeypatch, **RATE)
    asked.committed("the same")
    asked.again.click()
    assert (asked.guess.value, asked.told.value, asked.locked) == (None, "", False)
    assert "✓ Right" in asked.committed("ten times higher")
    [entry] = json.loads(file.read_text())["predictions"].values()
    assert (entry["choice"], entry["right"]) == ("ten times higher", True)


def test_a_second_click_changes_nothing(file, monkeypatch):
    asked = Asked(monkeypatch, **RATE)
    told = asked.committed("the same")
    assert asked.committed("ten times higher") == told
    assert [entry["choice"] for entry in json.loads(file.read_text())["predictions"].values()] == ["the same"]


@pytest.mark.parametrize(("arguments", "empty", "told"), [(RATE, None, "Choose first"), (TYPED, " ", "Type first")])
def test_no_guess_opens_nothing(file, monkeypatch, arguments, empty, told):
    asked = Asked(monkeypatch, **arguments)
    shown = asked.committed(empty)
    assert told in shown and arguments["answer"] not in shown and not asked.locked and not file.exists()


def test_a_typed_guess_is_shown_beside_the_answer_and_nobody_judges_it(file, monkeypatch):
    asked = Asked(monkeypatch, **TYPED)
    told = asked.committed(" <30> & more ")
    assert "You wrote: &lt;30&gt; &amp; more<" in told and "<b>all 32</b>" in told and not {"✓", "✗"} & set(told)
    [entry] = json.loads(file.read_text())["predictions"].values()
    assert (entry["choice"], entry["right"]) == ("<30> & more", None)
    assert Asked(monkeypatch, **TYPED).guess.value == "<30> & more"


def test_a_typed_guess_is_sent_as_a_whole(file, monkeypatch):
    """Letter by letter, the click on Commit could overtake the last one."""
    assert not Asked(monkeypatch, **TYPED).guess.continuous_update


def test_a_long_text_is_cut(file, monkeypatch):
    Asked(monkeypatch, **TYPED).committed("9" * 5000)
    assert file.stat().st_size < 1000


# What notebooks store


def test_the_bundle_has_the_controls_and_a_fold_out_and_says_the_same_to_everybody(file, monkeypatch):
    before = Asked(monkeypatch, **RATE)
    before.committed("the same")
    after = Asked(monkeypatch, **RATE)
    assert after.locked
    for kind in ("text/plain", "text/html"):
        assert before.bundle[kind] == after.bundle[kind]
    assert before.bundle["text/plain"] == (
        "Predict: Where is LoRA's best `rate`?\n- the same\n- ten times higher\n- ten times lower"
    )
    assert isinstance(ipywidgets.widgets.widget._instances[after.bundle[VIEW]["model_id"]], ipywidgets.VBox)
    html = after.bundle["text/html"]
    assert "best <code>rate</code>?" in html and html.count("<li>") == 3
    assert "<details><summary>Answer</summary><p><b>ten times higher</b></p><p>Two <b>small</b> matrices.</p>" in html


def test_a_typed_question_has_no_list():
    html = Prediction("How many?", (), "all 32").html()
    assert "<ul>" not in html and "<details><summary>Answer</summary><p><b>all 32</b></p></details>" in html


def test_what_an_author_writes_stays_text():
    bad = "<script>alert(1)</script>"
    shown = Prediction(f"{bad} `<b>**x**` **<i>** a*b 2**3", (bad, "b & c"), bad, bad)
    for html in (shown.html(), *(part.value for part in shown.controls().children if hasattr(part, "value"))):
        assert "<script" not in (html or "") and "<i>" not in (html or "")
    assert "<code>&lt;b&gt;**x**</code> <b>&lt;i&gt;</b> a*b 2**3" in shown.html()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown.html() and "<li>b &amp; c</li>" in shown.html()


# The learner's file


@pytest.mark.parametrize("where", ["off", "marker"])
def test_where_nothing_is_kept_the_answer_opens_all_the_same(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    if where == "marker":
        (tmp_path / learner.MARKER).write_text("")
        monkeypatch.setenv(learner.VARIABLE, str(tmp_path / "progress.json"))
    asked = Asked(monkeypatch, **RATE)
    assert "✓ Right" in asked.committed("ten times higher") and asked.locked
    assert not Asked(monkeypatch, **RATE).locked
    assert [path.name for path in tmp_path.iterdir()] == [learner.MARKER] * (where == "marker")


def test_a_damaged_file_is_put_aside_with_a_note(file, monkeypatch):
    file.parent.mkdir()
    file.write_text("{")
    asked = Asked(monkeypatch, **RATE)
    assert not asked.locked
    told = asked.committed("ten times higher")
    assert "✓ Right" in told and "could not be read" in told
    assert file.with_name("progress.damaged-1.json").read_text() == "{" and Asked(monkeypatch, **RATE).locked


@pytest.mark.parametrize("predictions", ["[]", '{"x": 1}', '{"x": {"choice": 3, "right": null, "when": ""}}',
                                         '{"x": {"choice": "a", "right": 1, "when": ""}}'])  # fmt: skip
def test_damaged_predictions_are_found(file, predictions):
    file.parent.mkdir()
    file.write_text(f'{{"exercises": {{}}, "predictions": {predictions}}}')
    with pytest.raises(CourseError, match="cannot be read"):
        progress.read_progress(file)


def test_a_file_that_cannot_be_written_is_told_and_stops_nobody(tmp_path, monkeypatch):
    """A file stands where the folder should be: that stops root too, whom no missing permission stops."""
    (tmp_path / "mine").write_text("in the way")
    monkeypatch.setenv(learner.VARIABLE, str(tmp_path / "mine" / "progress.json"))
    asked = Asked(monkeypatch, **RATE)
    told = asked.committed("ten times higher")
    assert "✓ Right" in told and "your guess was not written down" in told and asked.locked


def test_a_read_only_folder_is_told(file, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(learner, "write_whole", refused)
    told = Asked(monkeypatch, **RATE).committed("the same")
    assert "✗" in told and "Permission denied" in told and not file.exists()


def test_a_file_of_an_older_version_is_read_and_kept(file, monkeypatch):
    file.parent.mkdir()
    file.write_text('{"format": 1, "exercises": {"lora.scaling": {"solved": null, "tries": 2}}}')
    Asked(monkeypatch, **RATE).committed("the same")
    assert progress.read_progress(file)["lora.scaling"]["tries"] == 2
    assert len(json.loads(file.read_text())["predictions"]) == 1


def test_a_choice_that_is_none_any_more_is_forgotten(file, monkeypatch):
    Asked(monkeypatch, **RATE).committed("the same")
    changed = Asked(monkeypatch, **RATE | {"choices": ["ten times higher", "a hundred times higher"]})
    assert not changed.locked and changed.guess.value is None


GUESSER = """
from rapidadapt_lessons.show.prediction import Prediction
asked = [Prediction(f"Question {i}?", ("a", "b"), "a").controls().children for i in range(60)]
print("ready", flush=True)
input()
for _, guess, commit, told, _ in asked:
    guess.value = "b"
    commit.click()
    assert "written" not in told.value, told.value
"""
CHECKER = """
from rapidadapt_lessons.exercises import progress
print("ready", flush=True)
input()
for i in range(60):
    assert progress.record("lora.scaling", False) == ""
"""


def test_guesses_and_exercises_at_once_lose_nothing(file):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", code], **pipes) for code in (GUESSER, CHECKER)]
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 2  # none is done before the other begins
    for process in running:
        print(file=process.stdin, flush=True)
    assert [process.wait(120) for process in running] == [0, 0]
    kept = learner.read_progress_file(file)
    assert kept.exercises["lora.scaling"]["tries"] == 60 and len(kept.predictions) == 60


def test_the_panel_counts_predictions(file, monkeypatch, capsys):
    assert "Predictions" not in repr(progress.panel())
    Asked(monkeypatch, **RATE).committed("ten times higher")
    Asked(monkeypatch, **RATE | {"question": "Another?"}).committed("the same")
    assert "Predictions: 2 made, 1 right." in repr(progress.panel())
    Asked(monkeypatch, **TYPED).committed("30")
    line = "Predictions: 3 made, 1 right, 1 in your own words."
    assert line in repr(progress.panel()) and f"<p>{line}</p>" in progress.panel()._repr_html_()
    assert "lora.scaling,How much" in progress.export_csv(file.parent / "out.csv").read_text()


# Mistakes of authors

WRONG = {
    "no question": ({"question": " "}, "lacks its question"),
    "no answer": ({"answer": ""}, "lacks its question or its answer"),
    "one choice": ({"choices": ["ten times higher"]}, "too few"),
    "none": ({"choices": []}, "too few"),
    "a text in place of a list": ({"choices": "ab", "answer": "a"}, "too few"),
    "an empty choice": ({"choices": ["ten times higher", ""]}, "too few"),
    "twice": ({"choices": ["ten times higher", "a", "a"]}, "twice"),
    "not among them": ({"answer": "Ten times higher"}, "not among"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_authors_mistake_is_told(what):
    change, told = WRONG[what]
    with pytest.raises(CourseError, match=told):
        predict(**RATE | change)
