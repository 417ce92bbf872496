"""The web book in a real browser: every page shows without an error and asks no other host, passes axe-core's checks
of accessibility in light and in dark mode, fits a narrow window, and can be used by keyboard; the search finds.

The book is built anew and served from this machine. Screenshots go to build/screenshots.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import book  # noqa: E402

SHOTS = ROOT / "build" / "screenshots"
PAGES = [book.page_name(path).with_suffix(".html").as_posix() for path in book.pages()] + ["search.html"]
PICTURED = {"index.html", "notebooks/01_prompting.html", "notebooks/05_maml_math.html", "docs/architecture.html"}
NARROW = 400
PATIENCE = 60_000  # milliseconds, for a busy machine
SETTLED = "() => !window.MathJax || window.MathJax.startup.promise.then(() => true)"

# Elements of the page's own text that stick out on the right, and are in nothing that scrolls or cuts.
STICKING_OUT = """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
  [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + '.' + e.className).slice(0, 5)"""

# The text of what has the focus, and whether a line or a ring around it says so.
FOCUSED = """() => {
  const element = document.activeElement, style = getComputedStyle(element);
  const isMarked = (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none';
  return [element.textContent.trim().replace(/\\s+/g, ' '), isMarked];
}"""

# Figures load when they come into sight.
LOAD_IMAGES = """() => Promise.all([...document.images].map(image => {
  image.loading = 'eager';
  return image.decode().then(() => null, () => image.src);
})).then(found => found.filter(source => source))"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[str]:
    """The address of the book, built anew."""
    out = tmp_path_factory.mktemp("book")
    book.make(out)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(out / "html")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def axe(site) -> str:
    return (book.PACKAGES / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def opened(site, browser) -> Iterator[Callable]:
    """Return a function that opens a page of the book. What went wrong by the end of the test fails it."""
    contexts, wrong = [], []

    def open_page(name: str, width: int = 1280, scheme: str = "light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        contexts[-1].route(lambda url: not url.startswith((site, "data:")), lambda route: route.abort())
        page = contexts[-1].new_page()
        page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(f"{name}: {said.text}"))
        page.on("pageerror", lambda error: wrong.append(f"{name}: {error}"))
        page.on("requestfailed", lambda request: wrong.append(f"{name}: {request.url} did not load"))
        page.on("response", lambda got: got.status >= 400 and wrong.append(f"{name}: {got.url} {got.status}"))
        page.goto(f"{site}{name}", timeout=PATIENCE)
        page.wait_for_function(SETTLED, timeout=PATIENCE)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def violations(page, axe: str) -> list[str]:
    """Return what axe-core finds, each with its rule, how many elements, and the first of them."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 20, "axe-core looked at hardly anything"
    return [f"{v['id']} ({len(v['nodes'])}): {v['nodes'][0]['html'][:200]}" for v in found["violations"]]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_is_accessible_and_fits(opened, axe, name):
    page = opened(name)
    assert page.evaluate(LOAD_IMAGES) == []
    formulas = page.locator(".math").count()
    assert page.locator(".math mjx-container svg").count() >= formulas
    assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert violations(page, axe) == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    shot = SHOTS / f"book_{name.replace('/', '_').removesuffix('.html')}"
    if name in PICTURED:
        page.screenshot(path=f"{shot}_light.png")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'", timeout=PATIENCE)
    page.wait_for_timeout(300)  # colours fade over
    if name in PICTURED:  # the frame around the text is the same on every page: dark and wide, some are enough
        assert violations(page, axe) == []
        page.screenshot(path=f"{shot}_dark.png")
    page.set_viewport_size({"width": NARROW, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate(STICKING_OUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    assert violations(page, axe) == []
    if name in PICTURED:
        page.screenshot(path=f"{shot}_narrow.png")


def test_lesson_5_has_its_formulas_set(opened):
    page = opened("notebooks/05_maml_math.html")
    assert page.locator("mjx-container[display=true] svg").count() > 10
    assert page.locator("mjx-assistive-mml math").count() == page.locator(".math").count() > 100
    box = page.locator("mjx-container[display=true] svg").first.bounding_box()
    assert box["width"] > 100 and box["height"] > 15


def test_the_search_finds_a_term(opened):
    page = opened("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("reservoir")
    page.keyboard.press("Enter")
    results = page.locator("#search-results li a")
    results.first.wait_for(timeout=PATIENCE)
    page.wait_for_function("document.querySelector('.search-summary').textContent.includes('finished')")
    page.wait_for_load_state("networkidle")  # it shows the lines around each find
    targets = {link.get_attribute("href").split("#")[0].split("?")[0] for link in results.all()}
    assert {"docs/glossary.html", "notebooks/08_continual_learning.html"} <= targets


def test_dark_mode_is_chosen_by_a_button_and_kept(opened):
    page = opened("index.html")
    button = page.locator(".theme-switch-container button, button.theme-switch-button").locator("visible=true").first
    theme = partial(page.evaluate, "document.documentElement.dataset.theme")
    ground = partial(page.evaluate, "getComputedStyle(document.body).backgroundColor")
    light = ground()
    assert theme() == "light"
    for _ in range(3):  # a menu, or one mode after another
        button.click()
        if (entry := page.locator("[data-bs-theme-value=dark], [data-mode=dark]").locator("visible=true")).count():
            entry.first.click()
        if theme() == "dark":
            break
    page.wait_for_timeout(500)
    assert theme() == "dark" and ground() != light
    page.goto(page.url.replace("index.html", "docs/glossary.html"))
    assert theme() == "dark"


def test_the_keyboard_reaches_the_main_text_and_the_navigation(opened):
    page = opened("notebooks/01_prompting.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to main content"
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        text, is_marked = page.evaluate(FOCUSED)
        assert is_marked, f"the focus is not to be seen on {text}"
        reached.append(text)
    assert any(text.startswith("Search") for text in reached)
    assert any(text.startswith("3. LoRA") for text in reached)
    page.get_by_role("link", name="3. LoRA").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/notebooks/03_lora.html", timeout=PATIENCE)


def test_narrow_windows_open_the_navigation_by_keyboard(opened):
    page = opened("notebooks/01_prompting.html", width=NARROW)
    link = page.locator("nav.bd-links a", has_text="3. LoRA").first
    assert not link.is_visible()
    page.locator("button.primary-toggle").locator("visible=true").first.focus()
    page.keyboard.press("Enter")
    link.wait_for(state="visible", timeout=PATIENCE)


def test_what_scrolls_sideways_is_reached_by_keyboard(opened):
    page = opened("docs/architecture.html", width=NARROW)
    page.wait_for_function("document.querySelector('.diagram').tabIndex === 0", timeout=PATIENCE)
    page.locator(".diagram").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.diagram').scrollLeft > 0", timeout=PATIENCE)


def test_launch_buttons_and_the_download_open_by_mouse(opened):
    page = opened("notebooks/05_maml_math.html")
    page.locator(".dropdown-launch-buttons button").click()
    launches = page.locator(".dropdown-launch-buttons a").locator("visible=true")
    addresses = [link.get_attribute("href") for link in launches.all()]
    assert any("mybinder.org" in address for address in addresses)
    assert any("colab.research.google.com" in address for address in addresses)
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Download this page").click()
        page.locator(".dropdown-download-buttons a", has_text=".ipynb").click()
    original = ROOT / "notebooks" / "05_maml_math.ipynb"
    assert Path(download.value.path()).read_bytes() == original.read_bytes()
