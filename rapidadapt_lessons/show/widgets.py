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


def explore(view: Callable[..., str | Picture], **controls: Any) -> None:
    """Show controls and, under them, what `view` makes of their values, which it takes by name.

    Each control is a widget, or a value that stands for one, as for `ipywidgets.interact`. What `view` raises is shown
    as a message; what is no `CourseError` is raised as well.
    """
    from IPython.display import display
    from ipywidgets import VBox

    shown = _result()
    chooser, fields = _controls(controls)

    def update(change: Any = None) -> None:
        _show(shown, f"<div style='opacity:0.4'>{shown.value}</div>", view, fields)

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


def _controls(controls: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the box of controls, and each control by name. Sliders wait until let go."""
    from ipywidgets import interactive

    # `interactive` only makes the controls here: a function that it called itself could raise unnoticed.
    chooser = interactive(lambda **values: None, **controls)
    for control in chooser.children:
        if hasattr(control, "continuous_update"):
            control.continuous_update = False
        control.style = {"description_width": "9em"}
    return chooser, dict(zip(controls, chooser.kwargs_widgets))


def _show(shown: Any, meanwhile: str, view: Callable[..., str | Picture], fields: dict[str, Any]) -> None:
    """Put what `view` makes of the fields' values into the HTML widget `shown`."""
    shown.value = meanwhile
    try:
        shown.value = render(view, **{name: field.get_interact_value() for name, field in fields.items()})
    except Exception as error:
        shown.value = _message(f"{type(error).__name__}: {error}", "report this: it is a mistake in the course.")
        raise
