"""A notebook open in JupyterLab in a real browser, and what a learner does with it: run, look, move a control."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

NOTEBOOK = "window.jupyterapp.shell.currentWidget"
CELLS = f"Array.from({NOTEBOOK}.content.widgets)"
KERNEL = f"({NOTEBOOK}?.sessionContext?.session?.kernel?.status)"


class LabPage:
    """One notebook in one browser window.

    Args:
        page: a fresh page of Playwright's.
        address: of the JupyterLab server, with its token.
        shots: the folder for screenshots.
    """

    def __init__(self, page: Page, address: str, token: str, shots: Path):
        self.page, self.address, self.token, self.shots = page, address, token, shots

    def open(self, path: str) -> None:
        """Open a notebook in a workspace of its own, and wait until its kernel is ready."""
        workspace = f"{Path(path).stem}-{time.monotonic_ns()}"
        self.page.goto(f"{self.address}/lab/workspaces/{workspace}/tree/{path}?token={self.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        self.wait(f"{KERNEL} === 'idle'", 90)

    def wait(self, condition: str, seconds: float) -> None:
        """Wait until a condition in JavaScript holds. Raises Playwright's TimeoutError."""
        self.page.wait_for_function(f"() => Boolean({condition})", timeout=seconds * 1000, polling=100)

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Run one of JupyterLab's commands."""
        self.page.evaluate(f"window.jupyterapp.commands.execute({name!r}, {json.dumps(arguments or {})})")

    def menu(self, *names: str) -> None:
        """Click through JupyterLab's menu, as a learner does."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=names[0]).first.click()
        for name in names[1:]:
            self.page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()

    def run_all(self, seconds: float) -> None:
        """Remove what is stored, run all cells with the menu, and wait until every one has run."""
        self.command("notebook:clear-all-cell-outputs")
        self.wait(f"{CELLS}.every(c => c.model.type !== 'code' || c.model.executionCount === null)", 20)
        self.menu("Run", "Run All Cells")
        done = f"{CELLS}.every(c => c.model.type !== 'code' || !c.model.sharedModel.source.trim() || "
        self.wait(f"({KERNEL} === 'idle' && {done} c.model.executionCount !== null)) || {self._failed()}", seconds)
        self.wait(f"{KERNEL} === 'idle'", 60)

    @staticmethod
    def _failed() -> str:
        """JavaScript that says whether a cell failed: then the cells after it do not run."""
        failed = "c.model.outputs.toJSON().some(o => o.output_type === 'error')"
        return f"{CELLS}.some(c => c.model.type === 'code' && {failed})"

    def errors(self) -> list[str]:
        """Return the errors that stand in the outputs."""
        told = "c.model.outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)"
        return self.page.evaluate(f"{CELLS}.filter(c => c.model.type === 'code').flatMap(c => {told})")

    def boxes(self) -> list[Locator]:
        """Return the boxes with controls and their result, scrolled through once so that all are drawn."""
        for cell in self.page.locator(".jp-CodeCell").all():
            if cell.locator(".widget-interact").count():
                cell.scroll_into_view_if_needed()
        found = self.page.locator(".jp-OutputArea .widget-vbox:has(> .widget-interact)")
        return [found.nth(i) for i in range(found.count())]

    def shot(self, name: str, of: Locator | None = None) -> Path:
        """Take a picture of the window, or of a part of it."""
        path = self.shots / f"{name}.png"
        (of or self.page).screenshot(path=path)
        return path


def shown(box: Locator) -> str:
    """Return the HTML of a box's result: its text, and its images whole."""
    return box.locator(".widget-html-content").last.inner_html()


def images(box: Locator) -> list[bytes]:
    """Return the bytes of the images in a box's result."""
    sources = box.locator(".widget-html-content img").evaluate_all("all => all.map(one => one.src)")
    return [base64.b64decode(source.partition("base64,")[2]) for source in sources]


def changed(lab: LabPage, box: Locator, before: str, seconds: float = 12) -> bool:
    """Wait until a box shows another result, ready, and say whether it did."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = shown(box)
        if now != before and "opacity" not in now and "Running ..." not in now:
            return True
        lab.page.wait_for_timeout(100)
    return False
