"""The widgets of lessons 5 to 7 in a real browser: with the mouse and with the keyboard alone, Python's answer changes
on the page; they can be read in both themes, zoomed and narrow; and without a kernel a picture stands in their place.
"""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Locator

from tests.browser.lab_page import LabPage
from tests.browser.test_lab import unreadable

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
POINTS = """
from rapidadapt_lessons.meta import click_points, sinusoids
starts = {}
for method in (sinusoids.MAML, sinusoids.PRETRAINED):
    params, _ = sinusoids.train_starts(method, (0,), 150)
    starts[method.name] = (method, sinusoids.select(params, 0))
hand = click_points(starts)
hand
"""


def opened(lab, server, name: str, code: str, **size) -> tuple[LabPage, Locator]:
    """Run a notebook with one widget; return its page and the widget's element."""
    cells = [new_code_cell(code.strip()), new_code_cell("hand.widget.asked")]
    nbformat.write(new_notebook(metadata=KERNEL, cells=cells), server.folder / f"{name}.ipynb")
    page = lab(f"{name}.ipynb", **size)
    page.run_all(120)
    assert page.errors() == []
    hand = page.page.locator(".hand").first
    hand.wait_for(timeout=30_000)
    hand.scroll_into_view_if_needed()
    return page, hand


def wait_for_change(page: LabPage, look, before, seconds: float = 15):
    """Wait until what a function sees on the page is another, and return it."""
    for _ in range(int(seconds * 10)):
        if (now := look()) != before:
            return now
        page.page.wait_for_timeout(100)
    pytest.fail(f"nothing changed on the page in {seconds:g} seconds")


def of_python(page: LabPage) -> str:
    """Run the last cell and return what it shows: what Python knows of the widget's state."""
    page.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1")
    count = "window.jupyterapp.shell.currentWidget.content.widgets[1].model.executionCount"
    before = page.page.evaluate(count)
    page.command("notebook:run-cell")
    page.wait(f"{count} !== null && {count} !== {before}", 20)
    return page.page.locator(".jp-Cell").nth(1).locator(".jp-OutputArea").inner_text()


def look_at(page: LabPage, hand: Locator, name: str) -> None:
    """Take pictures in both themes, zoomed and narrow, and see that all can be read."""
    page.shot(f"{name}-light", hand)
    page.command("apputils:change-theme", {"theme": "JupyterLab Dark"})
    page.wait("document.body.dataset.jpThemeLight === 'false'", 30)
    page.page.wait_for_timeout(500)
    assert unreadable(page) == []
    page.shot(f"{name}-dark", hand)
    page.command("apputils:change-theme", {"theme": "JupyterLab Light"})
    page.wait("document.body.dataset.jpThemeLight === 'true'", 30)
    page.page.set_viewport_size({"width": 400, "height": 800})
    page.command("application:toggle-left-area")
    page.page.wait_for_timeout(500)
    assert unreadable(page) == []
    holder = hand.locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')][1]")
    assert hand.bounding_box()["width"] <= holder.bounding_box()["width"] + 1
    page.shot(f"{name}-width-400", hand)


def test_points_are_clicked_dragged_and_removed_and_the_curves_adapt(lab, server):
    page, hand = opened(lab, server, "points", POINTS)
    mouse, keys, plane = page.page.mouse, page.page.keyboard, hand.locator("svg.pad")
    curve = hand.locator("path[data-name=MAML]")
    status, dots = hand.get_by_role("status"), hand.locator("circle.point")
    place = plane.bounding_box()
    middle = place["x"] + 0.6 * place["width"], place["y"] + 0.2 * place["height"]

    before = curve.get_attribute("d")
    mouse.click(*middle)
    assert dots.count() == 6
    added = wait_for_change(page, lambda: curve.get_attribute("d"), before)
    mouse.move(*middle)
    mouse.down()
    mouse.move(middle[0] - 80, middle[1] + 150, steps=8)
    mouse.up()
    assert dots.count() == 6
    dragged = wait_for_change(page, lambda: curve.get_attribute("d"), added)
    look_at_six = status.inner_text()
    mouse.click(middle[0] - 80, middle[1] + 150)
    assert dots.count() == 5
    wait_for_change(page, lambda: curve.get_attribute("d"), dragged)
    assert "after 1 step" in wait_for_change(page, status.inner_text, look_at_six)

    slider = hand.get_by_label("Gradient steps")
    told = status.inner_text()
    slider.focus()
    keys.press("End")
    wait_for_change(page, status.inner_text, told)
    assert "'step': 10" in of_python(page)

    hand.get_by_role("button", name="Clear").click()
    page.page.wait_for_function("e => e.innerText.includes('no points yet')", arg=status.element_handle())
    plane.focus()
    keys.press("Shift+ArrowRight")
    keys.press("ArrowUp")
    keys.press("Enter")
    keys.press("Shift+ArrowLeft")
    keys.press("Enter")
    assert dots.count() == 2
    keys.press("Delete")
    assert dots.count() == 1
    page.page.wait_for_function("e => e.innerText.includes('before)')", arg=status.element_handle())
    assert "'points': [[1, 0.2]]" in of_python(page)
    hand.get_by_role("button", name="Example").click()
    assert dots.count() == 3
    page.page.wait_for_timeout(500)
    look_at(page, hand, "points")
