"""What all widgets to touch share: a question from the page, Python's answer, and a picture where no kernel runs."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
from anywidget import _util as anywidget_util

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.show.hand import hand, respond
from rapidadapt_lessons.show.plots import Picture, canvas

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def halved(asked):
    if asked["n"] % 2:
        raise CourseError(f"{asked['n']} is odd.", "take an even number.")
    return {"half": asked["n"] // 2}


@pytest.fixture
def made(tmp_path):
    script = tmp_path / "script.js"
    script.write_text("export default { render() {} };", encoding="utf-8")
    return hand(script, halved, {"n": 4}, Picture(canvas(2, 2)[0], "A still picture."), most=9)


def test_what_the_page_asks_is_answered_and_an_error_is_told_with_its_remedy(made):
    assert made.widget.answered == {"half": 2} and made.widget.fixed == {"most": 9}
    made.widget.asked = {"n": 10}
    assert made.widget.answered == {"half": 5}
    made.widget.asked = {"n": 3}
    assert made.widget.answered == {"problem": "3 is odd.", "remedy": "take an even number."}


def test_a_mistake_of_the_courses_own_is_told_on_the_page_and_raised(made):
    with pytest.raises(KeyError):
        made.widget.asked = {}
    assert made.widget.answered["problem"] == "KeyError: 'n'"
    assert respond(halved, {"n": 2}) == {"half": 1}


def test_a_notebook_keeps_the_widget_and_a_picture_with_its_description(made):
    data, notes = made._repr_mimebundle_()
    assert set(data) == {WIDGET_VIEW, "image/png", "text/plain"}
    assert data[WIDGET_VIEW]["model_id"] == made.widget.model_id
    assert data["text/plain"] == notes["image/png"]["alt"] == "A still picture."


def test_the_script_comes_behind_what_all_share(made):
    assert made.widget._esm.index("function plane(") < made.widget._esm.index("export default")
    assert ".hand" in made.widget._css


def test_on_colab_the_page_is_told_to_load_widgets_of_other_packages(made, monkeypatch):
    """anywidget does it by itself where it finds Colab; so Colab's first cell need not."""
    calls = []
    output = ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: calls.append(True)
    output._widgets = SimpleNamespace(_installed_url="https://colab.example/manager.js")
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    anywidget_util.enable_custom_widget_manager_once.cache_clear()
    data, notes = made._repr_mimebundle_()
    anywidget_util.enable_custom_widget_manager_once.cache_clear()
    assert calls == [True] and WIDGET_VIEW in data
    assert notes[WIDGET_VIEW]["colab"]["custom_widget_manager"]["url"] == output._widgets._installed_url
    assert notes["image/png"]["alt"] == "A still picture."
