"""The lessons in JupyterLab, in a real browser: they run without an error, their controls move their figures, and
they can be read at 125% zoom, in narrow windows and in the dark theme.

Quick: lessons 0 and 5 as a whole, and the widgets of lessons 1 to 4. With --all-lessons: every lesson as a whole.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator

from tests.browser.lab_page import LabPage, changed, images, shown

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
QUICK = ("00_start_here.ipynb", "05_maml_math.ipynb", "widgets_on_prompting.ipynb")
LESSON_SECONDS = 840  # the most that a lesson may take here; how long it does take is for the benchmarks
NOT_DRAWN = "the browser shows no image"

# Measured in the page, in pixels of the page. An image that is wider than what holds it is cut off or makes the whole
# cell scroll; its dark letters need a light ground of its own: seen in the middle of its upper edge, since corners may
# be rounded.
MEASURE_IMAGES = """() => Array.from(document.querySelectorAll('.jp-OutputArea img')).map(img => {
  const canvas = document.createElement('canvas');
  canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
  let edge = null;
  if (img.naturalWidth) {
    const drawn = canvas.getContext('2d'); drawn.drawImage(img, 0, 0);
    edge = Array.from(drawn.getImageData(img.naturalWidth >> 1, 4, 1, 1).data);
  }
  const box = img.getBoundingClientRect(), holder = img.closest('.jp-OutputArea-output').getBoundingClientRect();
  return {alt: img.alt, natural: [img.naturalWidth, img.naturalHeight], shown: [box.width, box.height],
          over: box.right - holder.right, edge};
})"""

# Every visible piece of text in an output: its contrast with the nearest ground behind it (WCAG 2.2, 1.4.3), and
# whether something that cuts off what is too wide cuts it.
MEASURE_TEXT = """() => {
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                       return .2126 * r + .7152 * g + .0722 * b; };
  const parts = css => (css.match(/[\\d.]+/g) || []).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
                        if (c.length === 3 || c[3] > .9) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  for (const area of document.querySelectorAll('.jp-OutputArea-output')) {
    const walk = document.createTreeWalker(area, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      const e = node.parentElement, text = node.textContent.trim();
      if (!text || !e.getClientRects().length || e.closest('script, style, [aria-hidden=true], option')) continue;
      const [a, b] = [light(parts(getComputedStyle(e).color).slice(0, 3)), light(ground(e))].sort((x, y) => y - x);
      const range = document.createRange(); range.selectNodeContents(node);
      const right = range.getBoundingClientRect().right;
      let cut = false;
      for (let holder = e; holder && holder !== area.parentElement; holder = holder.parentElement) {
        const hides = ['hidden', 'clip'].includes(getComputedStyle(holder).overflowX);
        cut ||= hides && right > holder.getBoundingClientRect().right + 2;
        if (['auto', 'scroll'].includes(getComputedStyle(holder).overflowX)) break;
      }
      found.push({text: text.slice(0, 60), contrast: (a + .05) / (b + .05), cut});
    }
  }
  return found;
}"""


def unreadable(lab: LabPage) -> list[str]:
    """Return what cannot be read in the outputs of the open notebook."""
    for cell in lab.page.locator(".jp-Cell:has(.jp-OutputArea-output)").all():
        cell.scroll_into_view_if_needed()  # what is off the screen may not be drawn yet
    wrong = []
    for image in lab.page.evaluate(MEASURE_IMAGES):
        told = image["alt"][:60]
        if not image["natural"][0] or not image["shown"][0]:
            wrong.append(f"{NOT_DRAWN}: {told}")
            continue
        if image["over"] > 2:
            wrong.append(f"an image is {image['over']:.0f} pixels too wide: {told}")
        (width, height), (w, h) = image["natural"], image["shown"]
        if abs((w / h) / (width / height) - 1) > 0.02:
            wrong.append(f"an image is distorted, {w:.0f} x {h:.0f} for {width} x {height}: {told}")
        if image["edge"][3] < 255 or min(image["edge"][:3]) < 230:
            wrong.append(f"an image has no light ground of its own ({image['edge']}): {told}")
    for piece in lab.page.evaluate(MEASURE_TEXT):
        if piece["cut"]:
            wrong.append(f"cut off: {piece['text']!r}")
        if piece["contrast"] < 4.5:
            wrong.append(f"contrast {piece['contrast']:.1f}: {piece['text']!r}")
    return wrong


def move_slider(lab: LabPage, box: Locator, handle: Locator) -> bool:
    """Move a slider by keyboard, a step and then to both ends, until the result is another. Says whether it was."""
    handle.scroll_into_view_if_needed()
    slider = handle.locator("xpath=ancestor::*[.//*[contains(concat(' ', @class, ' '), ' widget-readout ')]][1]")
    before, value = shown(box), slider.locator(".widget-readout").inner_text()
    for key in ("ArrowRight", "End", "Home"):
        handle.focus()
        lab.page.keyboard.press(key)
        if changed(lab, box, before):
            assert slider.locator(".widget-readout").inner_text() != value
            return True
    return False


def settled(lab: LabPage, box: Locator) -> None:
    """Wait until a box's result has stayed the same for two seconds."""
    for _ in range(30):
        text = shown(box)
        lab.page.wait_for_timeout(2000)
        if shown(box) == text and "opacity" not in text:
            return


def change_one_of_each(lab: LabPage, box: Locator) -> None:
    """Move a slider, take a list's second entry, and where there is neither write another word into a field."""
    slider, choice = box.locator(".noUi-handle").first, box.locator("select").first
    if slider.count():
        slider.focus()
        lab.page.keyboard.press("ArrowRight")
    if choice.count():
        choice.select_option(index=1)
    if not slider.count() and not choice.count():
        word = box.locator("input[type=text]").first
        word.fill("small")
        word.press("Tab")  # a field counts when it is left


def try_controls(lab: LabPage, name: str) -> int:
    """Move every slider of the notebook, and take pictures. Return the number of sliders.

    The figures that hold images must change in their bytes; other results in their HTML.
    """
    moved = 0
    for number, box in enumerate(lab.boxes(), start=1):
        box.scroll_into_view_if_needed()
        handles = box.locator(".noUi-handle")
        button = box.locator("> button, > .jupyter-button")
        pictures, text = images(box), shown(box)
        if button.count():  # runs when pressed: change something, then press
            change_one_of_each(lab, box)
            assert shown(box) == text, "it ran before its button was pressed"
            button.first.click()
            assert changed(lab, box, text, 180), f"{name}: box {number}'s button changed nothing"
            moved += handles.count()
        elif not handles.count():
            change_one_of_each(lab, box)
            assert changed(lab, box, text), f"{name}: the choices of box {number} changed nothing"
        else:
            for i in range(handles.count()):
                if not move_slider(lab, box, handles.nth(i)):  # where another one stands may leave it without effect
                    for other in set(range(handles.count())) - {i}:
                        handles.nth(other).focus()
                        lab.page.keyboard.press("End")
                    for choice in box.locator("select").all():
                        choice.select_option(index=0 if choice.evaluate("one => one.selectedIndex") else 1)
                    settled(lab, box)
                    again = move_slider(lab, box, handles.nth(i))
                    assert again, f"{name}: slider {i + 1} of box {number} changed nothing"
                moved += 1
        if pictures:
            assert images(box) and images(box) != pictures, f"{name}: the figure of box {number} stayed as it was"
        lab.shot(f"{name}-widget-{number}", box)
    return moved


def run_and_try(lab, name: str) -> None:
    page = lab(f"notebooks/{name}")
    stem = Path(name).stem
    page.run_all(LESSON_SECONDS)
    assert page.errors() == []
    assert page.boxes() or "explore(" not in (ROOT / "notebooks" / name).read_text(encoding="utf-8")
    moved = try_controls(page, stem)
    assert page.errors() == []
    assert unreadable(page) == []
    page.page.set_viewport_size({"width": 400, "height": 800})
    page.command("application:toggle-left-area")
    for number, box in enumerate(page.boxes(), start=1):
        page.shot(f"{stem}-widget-{number}-width-400", box)
    assert unreadable(page) == []
    print(f"{name}: {moved} sliders moved")


@pytest.mark.parametrize("name", ["00_start_here.ipynb", "05_maml_math.ipynb"])
def test_a_short_lesson_runs_and_its_controls_move_its_figures(lab, name):
    run_and_try(lab, name)


@pytest.mark.parametrize("name, boxes, sliders", [("widgets_on_prompting", 4, 3), ("widgets_on_lora", 3, 6)])
def test_the_widgets_of_short_notebooks_move_with_the_model(lab, name, boxes, sliders):
    page = lab(f"notebooks/{name}.ipynb")
    page.run_all(LESSON_SECONDS)
    assert page.errors() == []
    assert len(page.boxes()) == boxes
    assert try_controls(page, name) == sliders
    assert page.errors() == [] and unreadable(page) == []


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_runs_and_its_controls_move_its_figures(lab, request, name):
    if not request.config.getoption("--all-lessons"):
        pytest.skip("only with --all-lessons (make test-browser-all)")
    run_and_try(lab, name)


def test_a_slider_can_be_dragged_with_the_mouse(lab):
    page = lab("notebooks/widgets_on_prompting.ipynb")
    page.run_all(LESSON_SECONDS)
    box = page.boxes()[1]
    handle = box.locator(".noUi-handle").first
    before = shown(box)
    for _ in range(3):  # on a busy machine the page may still move while the mouse is on its way
        handle.hover()  # waits until the handle stands still
        place = handle.bounding_box()
        page.page.mouse.down()
        page.page.mouse.move(place["x"] + place["width"] / 2 + 60, place["y"] + place["height"] / 2, steps=8)
        page.page.mouse.up()
        if changed(page, box, before):
            return
    pytest.fail("dragging the slider changed nothing in three tries")


SIZES = {"zoom-125": (1280, 900, 1.25), "width-800": (800, 900, 1.0), "width-400": (400, 800, 1.0)}


@pytest.mark.parametrize("name", LESSONS)
@pytest.mark.parametrize("size", SIZES)
def test_stored_lessons_can_be_read_zoomed_and_narrow(lab, name, size):
    """A browser's zoom of 125% is a window of 1 / 1.25 of the size, drawn with 1.25 pixels for each of the page's."""
    page = lab(f"notebooks/{name}", *SIZES[size])
    page.command("application:toggle-left-area")
    assert unreadable(page) == []
    page.shot(f"{Path(name).stem}-{size}")


@pytest.mark.parametrize("name", LESSONS)
def test_stored_lessons_can_be_read_in_the_dark_theme(lab, name):
    page = lab(f"notebooks/{name}")
    page.command("apputils:change-theme", {"theme": "JupyterLab Dark"})
    page.wait("document.body.dataset.jpThemeLight === 'false'", 30)
    page.page.wait_for_timeout(500)
    assert unreadable(page) == []
    page.shot(f"{Path(name).stem}-dark")


# The checks bite

BAD_CELLS = [
    "from IPython.display import HTML, display\n"
    "from base64 import b64encode\nfrom io import BytesIO\nfrom matplotlib.figure import Figure\n"
    "def png(face):\n"
    "    f = BytesIO(); Figure((4, 2), facecolor=face).savefig(f, format='png')\n"
    "    return 'data:image/png;base64,' + b64encode(f.getvalue()).decode()\n",
    'HTML(f\'<img alt="clear" src="{png("none")}">\')',
    'HTML(f\'<img alt="dark" src="{png("black")}">\')',
    'HTML(f\'<img alt="flat" style="width:300px;height:40px" src="{png("white")}">\')',
    'HTML(\'<img alt="gone" src="data:image/png;base64,xx">\')',
    "HTML('<p style=\"color:#ccc;background:#fff\">pale words</p>')",
    "HTML('<div style=\"width:80px;overflow:hidden;white-space:nowrap\">words that are longer than that</div>')",
    "from ipywidgets import IntSlider\nfrom rapidadapt_lessons.show.widgets import explore\n"
    "explore(lambda n: '<p>always the same</p>', n=IntSlider(2, 0, 4))",
    "1 / 0",
    "2",
]


def test_what_is_wrong_is_found(lab, server):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    notebook = nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(cell) for cell in BAD_CELLS])
    nbformat.write(notebook, server.folder / "bad.ipynb")
    page = lab("bad.ipynb")
    page.run_all(120)
    assert page.errors() == ["ZeroDivisionError: division by zero"]
    wrong = "\n".join(unreadable(page))
    assert "own ([0, 0, 0, 0]): clear" in wrong and "own ([0, 0, 0, 255]): dark" in wrong
    assert f"{NOT_DRAWN}: gone" in wrong and "cut off: 'words that" in wrong
    assert "distorted, 300 x 40 for 400 x 200: flat" in wrong and "contrast 1.6: 'pale words'" in wrong
    [box] = page.boxes()
    assert not move_slider(page, box, box.locator(".noUi-handle"))
