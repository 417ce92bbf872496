"""The widgets of lessons 5 to 7 in a real browser: with the mouse and with the keyboard alone, Python's answer changes
on the page; they can be read in both themes, zoomed and narrow; and without a kernel a picture stands in their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import Locator

from rapidadapt_lessons.show.hand import Hand
from tests.browser.conftest import SHOTS
from tests.browser.lab_page import LabPage
from tests.browser.test_lab import unreadable

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
POINTS = """
from rapidadapt_lessons.meta import click_points, sinusoids
starts = {}
for method in (sinusoids.MAML, sinusoids.PRETRAINED):
    params, _ = sinusoids.train_starts(method, (0,), 150)
    starts[method.name] = (method, sinusoids.select(params, 0))
points = click_points(starts)
points
"""
START = """
from rapidadapt_lessons.meta import drag_start, landscape
family = landscape.line_family()
gentle, steep = (int((family.truth[:, 1] - slope).abs().argmin()) for slope in (0.8, 3.2))
start = drag_start(family, [gentle, steep], 0.15, 3)
start
"""
LETTERS = """
from rapidadapt_lessons.meta import draw_letters, few_shot
letters = draw_letters(few_shot.PatchNet(5))
letters
"""
TOLD = "[hand.widget.asked for hand in (points, start, letters)]"
RING = [
    [(0.8, 0.5), (0.7, 0.75), (0.5, 0.85), (0.3, 0.75), (0.2, 0.5), (0.3, 0.25), (0.5, 0.15), (0.7, 0.25), (0.8, 0.5)]
]
CROSS = [[(0.2, 0.2), (0.8, 0.8)], [(0.8, 0.2), (0.2, 0.8)]]


def stored() -> nbformat.NotebookNode:
    """Return a notebook with the three widgets as a run leaves it: with views of widgets that are gone."""
    cells = []
    for code in (POINTS, START, LETTERS):
        made: dict[str, Any] = {}
        exec(code.replace("150", "1"), made)
        [hand] = [value for value in made.values() if isinstance(value, Hand)]
        data, notes = hand._repr_mimebundle_()
        cells.append(new_code_cell(code.strip(), outputs=[new_output("display_data", data, metadata=notes)]))
    return new_notebook(metadata=KERNEL, cells=[*cells, new_code_cell(TOLD)])


@pytest.fixture(scope="module")
def page(server, browser) -> Iterator[LabPage]:
    """The notebook as it was stored, then run, at a zoom of 125%."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    nbformat.write(stored(), server.folder / "hands.ipynb")
    context = browser.new_context(viewport={"width": 1024, "height": 720}, device_scale_factor=1.25)
    opened = LabPage(context.new_page(), server.address, server.token, SHOTS)
    opened.open("hands.ipynb")
    assert unreadable(opened) == []
    pictures = opened.page.locator(".jp-OutputArea img").evaluate_all("all => all.map(one => one.alt)")
    assert [alt.split(",")[0].split(".")[0] for alt in pictures] == [
        "Line chart to be clicked on", "Contour maps of the support's loss", "Five boxes",
    ]  # fmt: skip
    opened.shot("hands-stored")
    opened.run_all(120)
    assert opened.errors() == [] and opened.page.locator(".jp-OutputArea img").count() == 0
    yield opened
    opened.page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
    context.close()


def hand_of(page: LabPage, number: int) -> Locator:
    """Return a widget's element, in sight."""
    hand = page.page.locator(".hand").nth(number)
    hand.wait_for(timeout=30_000)
    hand.scroll_into_view_if_needed()
    return hand


def wait_for_change(page: LabPage, look, before, seconds: float = 15):
    """Wait until what a function sees on the page is another, and return it."""
    for _ in range(int(seconds * 10)):
        if (now := look()) != before:
            return now
        page.page.wait_for_timeout(100)
    pytest.fail(f"nothing changed on the page in {seconds:g} seconds")


def of_python(page: LabPage) -> str:
    """Run the last cell and return what it shows: what Python knows of each widget's state."""
    last = "window.jupyterapp.shell.currentWidget.content.widgets[3].model"
    before = page.page.evaluate(f"{last}.executionCount")
    page.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 3")
    page.command("notebook:run-cell")
    page.wait(f"{last}.executionCount > {before} && {last}.outputs.length", 20)
    return page.page.evaluate(f"{last}.outputs.get(0).toJSON().data['text/plain']")


def test_points_are_clicked_dragged_and_removed_and_the_curves_adapt(page):
    hand = hand_of(page, 0)
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


def test_the_start_is_dragged_with_the_mouse_and_moved_with_keys(page):
    hand = hand_of(page, 1)
    mouse, keys = page.page.mouse, page.page.keyboard
    status, maps, dots = hand.get_by_role("status"), hand.locator("svg.pad"), hand.locator("circle.start")
    steps, told = hand.locator("path.steps"), status.inner_text()
    assert maps.count() == steps.count() == 2 and "after 3 steps" in told
    box = dots.first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    paths = [steps.nth(i).get_attribute("d") for i in (0, 1)]
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 60, y + 40, steps=10)
    seen = wait_for_change(page, status.inner_text, told)  # while it is held
    mouse.move(x + 120, y + 20, steps=10)
    mouse.up()
    wait_for_change(page, status.inner_text, seen)
    moved = [steps.nth(i).get_attribute("d") for i in (0, 1)]
    assert moved[0] != paths[0] and moved[1] != paths[1]
    assert abs(dots.first.bounding_box()["x"] - box["x"] - 120) < 2
    mouse.move(x, y)  # no longer held
    assert abs(dots.first.bounding_box()["x"] - box["x"] - 120) < 2

    page.page.wait_for_timeout(500)
    told = status.inner_text()
    maps.nth(1).focus()
    for name in ("Shift+ArrowLeft", "Shift+ArrowUp", "ArrowRight"):
        keys.press(name)
    assert wait_for_change(page, status.inner_text, told)
    assert "'start'" in of_python(page)


def test_letters_are_drawn_with_the_mouse_or_chosen_with_keys_and_read(page):
    hand = hand_of(page, 2)
    mouse, keys = page.page.mouse, page.page.keyboard
    status, sheets, bars = hand.get_by_role("status"), hand.locator("svg.sheet"), hand.locator(".bar > div")
    assert sheets.count() == 6 and status.inner_text().startswith("It reads letter")  # the example

    def draw(box: int, strokes) -> None:
        place = sheets.nth(box).bounding_box()
        for stroke in strokes:
            points = [(place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in stroke]
            mouse.move(*points[0])
            mouse.down()
            for point in points[1:]:
                mouse.move(*point, steps=4)
            mouse.up()

    hand.get_by_role("button", name="Clear all").click()
    hand.get_by_text("in at least two").wait_for(timeout=15_000)
    draw(0, RING)
    draw(1, CROSS)
    hand.get_by_text("in the last box").wait_for(timeout=15_000)
    draw(5, CROSS)
    hand.get_by_text("It reads letter 2").wait_for(timeout=15_000)
    assert bars.nth(1).bounding_box()["width"] > 0.5 * sheets.nth(1).bounding_box()["width"]
    assert hand.locator(".best b").first.inner_text() == "Letter 2" and hand.locator(".seen rect").count() > 100
    hand.get_by_role("button", name="Undo in Which of them?").click()
    assert sheets.nth(5).locator("path.ink").count() == 1
    hand.get_by_role("button", name="Clear Which of them?").click()
    hand.get_by_text("in the last box").wait_for(timeout=15_000)
    draw(5, RING)
    hand.get_by_text("It reads letter 1").wait_for(timeout=15_000)
    assert "'strokes'" in of_python(page)

    for box, key in ((0, "ArrowUp"), (1, "ArrowDown"), (5, "ArrowUp")):
        sheets.nth(box).focus()
        keys.press(key)
    page.wait("document.querySelectorAll('.hand .sheet path.ink').length === 0", 15)
    assert "printed letter 1 of" in sheets.nth(0).get_attribute("aria-label")
    assert "{'sample': 0}" in of_python(page)
    sheets.nth(5).focus()
    keys.press("Delete")
    hand.get_by_text("in the last box").wait_for(timeout=15_000)


def test_all_three_can_be_read_in_both_themes_and_in_a_narrow_window(page):
    names = ("points", "start", "letters")
    for theme, is_light in (("Dark", "false"), ("Light", "true")):
        page.command("apputils:change-theme", {"theme": f"JupyterLab {theme}"})
        page.wait(f"document.body.dataset.jpThemeLight === '{is_light}'", 30)
        page.page.wait_for_timeout(300)
        assert unreadable(page) == []
        for i, name in enumerate(names):
            page.shot(f"{name}-{theme.lower()}", hand_of(page, i))
    page.page.set_viewport_size({"width": 400, "height": 800})
    page.command("application:toggle-left-area")
    page.page.wait_for_timeout(300)
    assert unreadable(page) == []
    for i, name in enumerate(names):
        hand = hand_of(page, i)
        holder = hand.locator("xpath=ancestor::*[contains(@class, 'jp-OutputArea-output')][1]")
        assert hand.bounding_box()["width"] <= holder.bounding_box()["width"] + 1
        for part in hand.locator("svg.pad").all():
            assert part.bounding_box()["x"] + part.bounding_box()["width"] <= 400
        page.shot(f"{name}-width-400", hand)
