"""Controls over plain functions, "views": values in, HTML out.

A result goes into an HTML widget instead of the cell's output: a stored notebook keeps it, and a run without a
browser is the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from ..errors import CourseError
from .picture import Picture


def explore(view: Callable[..., str | Picture], *, while_moving: bool = False, **controls: Any) -> None:
    """Show controls and, under them, what `view` makes of their values, which it takes by name.

    Each control is a widget, or a value that stands for one, as for `ipywidgets.interact`, or `new_draw()`. What `view`
    raises is shown as a message; what is no `CourseError` is raised as well.

    With `while_moving` a slider's every position on the way is shown, for views that take under 0.1 seconds. Without,
    it is shown where it is let go, and the old result is grey until the new one is there.
    """
    from IPython.display import display
    from ipywidgets import VBox

    shown = _result()
    chooser, fields = _controls(controls, while_moving)

    def update(change: Any = None) -> None:
        quick = while_moving and change and _is_slider(change["owner"])
        _show(shown, None if quick else f"<div style='opacity:0.4'>{shown.value}</div>", view, fields)

    for field in fields.values():
        field.observe(update, "value")
    update()
    display(VBox([chooser, shown]))


def on_demand(
    view: Callable[..., str | Picture], *, label: str = "Run", at_once: bool = False, **controls: Any
) -> None:
    """Show what `view` makes of the controls' values when a button is pressed: for what takes seconds.

    Controls and errors: as for `explore`. With `at_once` it computes before the first press too, so that a stored
    notebook holds a result.
    """
    from IPython.display import display
    from ipywidgets import Button, VBox

    shown = _result(f"<i>Choose, then press {escape(label)}.</i>")
    button = Button(description=label, button_style="primary")
    chooser, fields = _controls(controls)

    def run(_: Any) -> None:
        button.disabled = True
        try:
            _show(shown, "<i>Running ...</i>", view, fields)
        finally:
            button.disabled = False

    button.on_click(run)
    if at_once:
        run(button)
    display(VBox([chooser, button, shown]))


def new_draw(start: int = 0) -> Any:
    """Return a control for an integer: a button that says "New draw" and counts on from `start` at each press.

    Example: `explore(view, shots=IntSlider(2, 0, 8), draw=new_draw())`.
    """
    from ipywidgets import Button, ValueWidget
    from traitlets import Int

    class NewDraw(Button, ValueWidget):
        value = Int(start)  # of the kernel alone: a browser has nothing to show it in

    button = NewDraw(description="New draw", icon="refresh", tooltip="Draw other examples")

    def count_on(_: Any) -> None:
        button.value += 1

    button.on_click(count_on)
    return button


def text_box(value: str, lines: int = 6) -> Any:
    """Return a control for several lines of text, wide enough to read them."""
    from ipywidgets import Layout, Textarea

    return Textarea(value, rows=lines, layout=Layout(width="min(42em, 95%)"))


def render(view: Callable[..., str | Picture], **values: Any) -> str:
    """Return what `view` shows as HTML, or its `CourseError` as a message."""
    try:
        result = view(**values)
    except CourseError as error:
        return _message(error.problem, error.remedy)
    return result.html() if isinstance(result, Picture) else result


def _message(problem: str, remedy: str) -> str:
    return f"<div role='alert'><p><b>{escape(problem)}</b></p><p>What to do: {escape(remedy)}</p></div>"


def _result(value: str = "") -> Any:
    """Return the result's widget: as wide as its place, so that a wide table does not widen the figures too."""
    from ipywidgets import HTML, Layout

    return HTML(value, layout=Layout(display="grid", grid_template_columns="minmax(0, 1fr)"))


def _controls(controls: dict[str, Any], while_moving: bool = False) -> tuple[Any, dict[str, Any]]:
    """Return the box of controls, and each control by name. Sliders wait until let go, unless `while_moving`."""
    from ipywidgets import interactive

    # `interactive` only makes the controls here: a function that it called itself could raise unnoticed.
    chooser = interactive(lambda **values: None, **controls)
    for control in chooser.children:
        if hasattr(control, "continuous_update"):
            control.continuous_update = while_moving and _is_slider(control)
        if hasattr(getattr(control, "style", None), "description_width"):  # a button has none
            control.style.description_width = "9em"
    return chooser, dict(zip(controls, chooser.kwargs_widgets))


def _is_slider(control: Any) -> bool:
    return hasattr(control, "readout")


def _show(shown: Any, meanwhile: str | None, view: Callable[..., str | Picture], fields: dict[str, Any]) -> None:
    """Put what `view` makes of the fields' values into the HTML widget `shown`, and until then `meanwhile`, if any."""
    if meanwhile is not None:
        shown.value = meanwhile
    try:
        shown.value = render(view, **{name: field.get_interact_value() for name, field in fields.items()})
    except Exception as error:
        shown.value = _message(f"{type(error).__name__}: {error}", "report this: it is a mistake in the course.")
        raise
