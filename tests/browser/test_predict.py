"""Predictions in a real browser: made with the keyboard alone, kept, and folded up where no kernel runs."""

from __future__ import annotations

import nbformat
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from rapidadapt_lessons.show.prediction import Prediction
from tests.browser.test_lab import unreadable

RATE = Prediction(
    "Where is LoRA's best `learning rate`, compared with **full** fine-tuning's?",
    ("about the same", "ten times higher", "ten times lower"),
    "ten times higher",
    "Every change has to pass through two small matrices.",
)
COUNT = Prediction("How many of 32 verbs will it get right?", (), "30 or more")
BEGIN = "import os\nfrom rapidadapt_lessons.show import predict\nos.environ['RAPIDADAPT_PROGRESS'] = 'kept.json'"
FOCUSED = "(document.activeElement.closest('label') || document.activeElement).textContent"


def stored() -> nbformat.NotebookNode:
    """Return a notebook with two predictions as a run leaves them: with views of widgets that are gone."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    asked = [
        new_code_cell(
            f"predict({one.question!r}, {list(one.choices) or None!r}, answer={one.answer!r}, why={one.why!r})",
            outputs=[new_output("display_data", one._repr_mimebundle_())],
        )
        for one in (RATE, COUNT)
    ]
    return new_notebook(metadata=kernel, cells=[new_code_cell(BEGIN), *asked])


def test_a_prediction_is_made_with_the_keyboard_and_kept(lab, server):
    nbformat.write(stored(), server.folder / "predictions.ipynb")
    page = lab("predictions.ipynb")
    keys, outputs = page.page.keyboard, page.page.locator(".jp-OutputArea")
    assert outputs.locator("summary").all_inner_texts() == ["Answer", "Answer"]  # nothing has run yet
    assert unreadable(page) == []
    page.shot("predict-stored")

    page.run_all(120)
    assert page.errors() == []
    radios, commit = outputs.locator("input[type=radio]"), outputs.get_by_role("button", name="Commit").first
    radios.first.focus()
    keys.press("Tab")
    assert page.page.evaluate(FOCUSED) == "ten times higher"
    keys.press("Space")
    for _ in range(2):
        keys.press("Tab")
    assert page.page.evaluate(FOCUSED) == "Commit" and commit.is_visible()
    page.shot("predict-asked")
    assert "Every change" not in outputs.nth(1).inner_text()
    keys.press("Enter")
    outputs.get_by_text("✓ Right").wait_for(timeout=20_000)
    assert "Every change" in outputs.nth(1).inner_text() and radios.nth(1).is_checked() and radios.nth(1).is_disabled()
    page.wait(f"{FOCUSED} === 'Guess again'", 10)  # the focus is not lost with the button that had it

    text = outputs.get_by_label("Your guess:")
    text.focus()
    keys.type("31")
    keys.press("Tab")
    keys.press("Enter")  # on Commit
    outputs.get_by_text("You wrote: 31").wait_for(timeout=20_000)
    assert unreadable(page) == []
    page.shot("predict-light")
    page.command("apputils:change-theme", {"theme": "JupyterLab Dark"})
    page.wait("document.body.dataset.jpThemeLight === 'false'", 30)
    page.page.wait_for_timeout(500)
    assert unreadable(page) == []
    page.shot("predict-dark")

    page.command("docmanager:save")
    page.page.wait_for_timeout(1000)
    page.page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
    page.open("predictions.ipynb")
    page.shot("predict-reopened")
    page.run_all(120)
    outputs.get_by_text("✓ Right").wait_for(timeout=20_000)
    outputs.get_by_text("You wrote: 31").wait_for(timeout=20_000)
    assert radios.nth(1).is_checked() and radios.nth(1).is_disabled() and text.input_value() == "31"
    outputs.get_by_role("button", name="Guess again").first.focus()
    keys.press("Enter")
    commit.wait_for(timeout=20_000)
    assert radios.nth(1).is_enabled() and outputs.get_by_text("✓ Right").count() == 0


def test_without_a_kernel_the_answer_folds_out(browser, tmp_path):
    html, _ = HTMLExporter().from_notebook_node(stored())
    (tmp_path / "stored.html").write_text(html, encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "stored.html").as_uri(), wait_until="commit")  # it waits for libraries that are not there
    answer = page.locator("details b", has_text="ten times higher")
    answer.wait_for(state="attached", timeout=20_000)
    assert page.locator("summary").count() == 2 and not answer.is_visible()
    assert page.locator("li").all_inner_texts() == list(RATE.choices)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    answer.wait_for(timeout=5_000)
    page.close()
