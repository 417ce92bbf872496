"""Controls over a view: they are built, they act when moved, and neither mistakes nor bugs are hidden."""

from __future__ import annotations

import warnings

import IPython.display
import ipywidgets
import pytest
from ipywidgets import HTML, Checkbox, Dropdown, FloatSlider, IntSlider, Output, Text, fixed, interactive
from matplotlib.figure import Figure

from rapidadapt_lessons.errors import BadPrompt, CourseError
from rapidadapt_lessons.show.plots import Picture
from rapidadapt_lessons.show.widgets import explore, new_draw, on_demand, render


@pytest.fixture
def shown(monkeypatch):
    """What was displayed."""
    found: list = []
    monkeypatch.setattr(IPython.display, "display", found.append)
    return found


@pytest.fixture(autouse=True)
def no_traits_invented():
    """Setting a trait that a control does not have is a mistake, not a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        yield


def parts(shown: list) -> tuple[list, HTML]:
    """Return the controls and the result, as the reader sees them."""
    [box] = shown
    chooser, result = box.children
    assert isinstance(chooser, interactive) and isinstance(result, HTML)
    return [child for child in chooser.children if not isinstance(child, Output)], result


def test_controls_are_built_and_the_result_is_there_at_once(shown):
    calls = []

    def view(**values):
        calls.append(values)
        return f"<p>{values}</p>"

    explore(view, shots=IntSlider(3, 0, 8), rate=FloatSlider(0.5), kind=["a", "b"], text="hello", on=True)
    controls, result = parts(shown)
    assert [type(control) for control in controls] == [IntSlider, FloatSlider, Dropdown, Text, Checkbox]
    assert [control.description for control in controls] == ["shots", "rate", "kind", "text", "on"]
    assert calls == [{"shots": 3, "rate": 0.5, "kind": "a", "text": "hello", "on": True}], "computed once, not twice"
    assert result.value == f"<p>{calls[0]}</p>"


def test_moving_a_control_computes_again(shown):
    explore(lambda n, word: f"{word * n}", n=IntSlider(1, 0, 5), word=Dropdown(options=["ab", "c"]))
    (slider, choice), result = parts(shown)
    assert result.value == "ab"
    for n, word in ((2, "ab"), (2, "c"), (5, "c"), (0, "ab"), (1, "ab")):
        slider.value, choice.value = n, word
        assert result.value == word * n


def test_the_old_result_is_greyed_while_the_new_one_is_computed(shown):
    seen = []

    def view(n):
        if shown:
            seen.append(parts(shown)[1].value)
        return f"result {n}"

    explore(view, n=IntSlider(1, 0, 5))
    (slider,), result = parts(shown)
    slider.value = 2
    assert "opacity" in seen[0] and "result 1" in seen[0]
    assert result.value == "result 2"


def test_controls_wait_until_they_are_let_go(shown):
    explore(lambda **_: "", a=IntSlider(), b=FloatSlider(), c="text", d=3, e=(0.0, 1.0))
    controls, _ = parts(shown)
    assert len(controls) == 5
    assert all(control.continuous_update is False for control in controls)


def test_sliders_may_act_while_they_move_and_text_waits(shown):
    seen = []

    def view(n, word):
        if shown:
            seen.append(parts(shown)[1].value)
        return f"{word}{n}"

    explore(view, while_moving=True, n=IntSlider(1, 0, 5), word="a")
    (slider, text), result = parts(shown)
    assert (slider.continuous_update, text.continuous_update) == (True, False)
    slider.value = 2
    assert result.value == "a2" and "opacity" not in seen[0], "a result that comes at once need not be greyed before"
    text.value = "b"
    assert result.value == "b2" and "opacity" in seen[1]


def test_a_new_draw_counts_on_at_each_press(shown):
    calls = []

    def view(**values):
        calls.append(values)
        return f"draw {values['draw']}"

    explore(view, shots=IntSlider(3, 0, 8), draw=new_draw())
    (_, button), result = parts(shown)
    assert isinstance(button, ipywidgets.Button) and button.description == "New draw" and button.tooltip
    assert calls == [{"shots": 3, "draw": 0}]
    button.click()
    assert calls[1:] == [{"shots": 3, "draw": 1}] and result.value == "draw 1"
    button.click()
    assert calls[2:] == [{"shots": 3, "draw": 2}]
    explore(view, draw=new_draw(7))
    assert calls[-1] == {"draw": 7}, "each button counts for itself"


def test_descriptions_have_room(shown):
    explore(lambda **_: "", a=IntSlider(), b=Dropdown(options=["x"]), c="text")
    assert [control.style.description_width for control in parts(shown)[0]] == ["9em"] * 3


def test_a_fixed_value_is_passed_on_and_has_no_control(shown):
    explore(lambda n, unit: f"{n} {unit}", n=IntSlider(2), unit=fixed("m"))
    controls, result = parts(shown)
    assert len(controls) == 1 and result.value == "2 m"


def test_a_picture_is_shown_with_its_alt_text(shown):
    explore(lambda n: Picture(Figure(figsize=(1, 1)), f"n is <{n}>"), n=IntSlider(2))
    assert parts(shown)[1].value.startswith('<img alt="n is &lt;2&gt;" src="data:image/png;base64,')


# Mistakes become messages


def picky(n: int) -> str:
    if n > 3:
        raise BadPrompt(f"<{n}> is too many & more.", "take < 4.")
    return f"fine: {n}"


MESSAGE = "<b>&lt;5&gt; is too many &amp; more.</b></p><p>What to do: take &lt; 4.</p>"


def test_a_mistake_becomes_a_message_and_moving_back_repairs_it(shown):
    explore(picky, n=IntSlider(1, 0, 9))
    (slider,), result = parts(shown)
    slider.value = 5
    assert MESSAGE in result.value and "role='alert'" in result.value and "opacity" not in result.value
    slider.value = 2
    assert result.value == "fine: 2"


def test_a_mistake_at_the_start_still_shows_the_controls(shown):
    explore(picky, n=IntSlider(5, 0, 9))
    (slider,), result = parts(shown)
    assert MESSAGE in result.value
    slider.value = 3
    assert result.value == "fine: 3"


@pytest.mark.parametrize("error", [CourseError, BadPrompt])
def test_render_turns_every_kind_of_course_error_into_a_message(error):
    def view():
        raise error("wrong: <x>", "do & dare")

    assert render(view) == "<div role='alert'><p><b>wrong: &lt;x&gt;</b></p><p>What to do: do &amp; dare</p></div>"


def test_render_passes_values_by_name_and_html_through():
    assert render(lambda a, b: f"<p>{a}{b}</p>", b=2, a=1) == "<p>12</p>"


# Bugs are not swallowed


def buggy(n: int) -> str:
    if n == 4:
        raise ZeroDivisionError("by <zero>")
    return f"fine: {n}"


def test_a_bug_at_the_start_is_raised(shown):
    with pytest.raises(ZeroDivisionError):
        explore(buggy, n=IntSlider(4, 0, 9))
    with pytest.raises(ZeroDivisionError):
        render(buggy, n=4)


def test_a_bug_later_is_raised_and_shown_and_moving_on_works_again(shown):
    explore(buggy, n=IntSlider(1, 0, 9))
    (slider,), result = parts(shown)
    with pytest.raises(ZeroDivisionError):
        slider.value = 4
    assert "ZeroDivisionError: by &lt;zero&gt;" in result.value and "report" in result.value
    assert "fine: 1" not in result.value
    slider.value = 5
    assert result.value == "fine: 5"


def test_a_view_that_lacks_a_control_is_told_at_once(shown):
    with pytest.raises(TypeError, match="unexpected keyword argument 'm'"):
        explore(lambda n: "", n=IntSlider(), m=IntSlider())


def test_something_that_is_no_control_is_told_at_once(shown):
    with pytest.raises(ValueError, match="cannot be transformed to a widget"):
        explore(lambda n: "", n=object())
    assert shown == []


def test_widgets_are_not_kept_between_cells(shown):
    for start in (1, 2):
        explore(lambda n: f"{n}", n=IntSlider(start))
    first, second = (box.children[0].children[0] for box in shown)
    first.value = 9
    assert [box.children[1].value for box in shown] == ["9", "2"]
    assert isinstance(second, ipywidgets.IntSlider)


def test_a_button_computes_when_it_is_pressed_and_not_before(shown):
    calls = []

    def view(n):
        calls.append(n)
        assert button.disabled, "a second press in the middle must do nothing"
        return f"<b>{n}</b>"

    on_demand(view, label="Train", n=IntSlider(3, 0, 5))
    [box] = shown
    chooser, button, result = box.children
    assert calls == [] and "press Train" in result.value
    chooser.children[0].value = 4
    assert calls == []
    button.click()
    assert (calls, result.value, button.disabled) == ([4], "<b>4</b>", False)


@pytest.mark.parametrize(
    ("error", "told"),
    [(CourseError("rank is 0.", "choose 1."), "What to do: choose 1."), (ZeroDivisionError("x"), "report this")],
)
def test_a_button_survives_an_error_and_tells_it(shown, error, told, caplog):
    def view(n):
        raise error

    on_demand(view, n=IntSlider(3, 0, 5))
    _, button, result = shown[0].children
    button.click()
    assert told in result.value and not button.disabled
    # What is no message for people is a bug, and its traceback goes to the log as well.
    assert ("ZeroDivisionError" in caplog.text) == isinstance(error, ZeroDivisionError)
