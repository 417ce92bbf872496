"""A JupyterLab server and a browser for the tests: folders, settings and notebooks of their own, nothing of the user's.

`make test-browser` runs what is quick, `make test-browser-all` each whole lesson. Screenshots go to build/screenshots.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from rapidadapt_lessons.lm.download import cache_dir
from tests.browser.lab_page import LabPage

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "screenshots"
START_SECONDS = 120
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip


# What the widgets of lessons 1 to 4 use, without the measurements that lead up to them.
BEFORE_WIDGETS = {
    ("01_prompting", "02_prompts_that_hold_up"): """
import itertools
from rapidadapt_lessons import prompting
from rapidadapt_lessons.lm import load_model, load_task
from rapidadapt_lessons.prompting import CHAT, scoring
from rapidadapt_lessons.show import explore
model, tokenizer = load_model()
task = load_task("sentiment")
sentence = prompting.template_of(task)
episode = task.episode(4, seed=10, n_query=6, balanced=True)
orders = list(itertools.permutations(episode.support))
prompts = [prompting.build_prompts(episode.query, order, sentence) for order in orders]
by_order = [scoring.label_logprobs(model, tokenizer, of_one, task.labels) for of_one in prompts]
""",
    ("03_lora", "04_tuning_lora"): """
from functools import partial
from rapidadapt_lessons.lm import load_model, load_task
from rapidadapt_lessons.lora import tuning
from rapidadapt_lessons.training import domain_experience, task_rows
model, tokenizer = load_model()
task = load_task("superlatives")
asked = task.query_set[:8]
answers = {0: [query.x for query in asked], 1: [query.y for query in asked]}
words, test = task_rows(tokenizer, task, task.episode(8, seed=0).support), task_rows(tokenizer, task, asked)
manual = domain_experience(tokenizer, "python_reference", test=2, length=128).test
""",
}


class Server(NamedTuple):
    address: str
    token: str
    folder: Path  # that it serves: a copy of the notebooks and of scale/


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-lessons", action="store_true", help="run every lesson as a whole (a quarter of an hour)")


def widgets_of(names: tuple[str, ...]) -> nbformat.NotebookNode:
    """Return a notebook with the widget cells of these lessons, and before them only what they need."""
    lessons = [nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4) for name in names]
    code = [c for lesson in lessons for c in lesson.cells if c.cell_type == "code"]
    cells = [c for c in code if any(widget in c.source for widget in ("explore(", "on_demand("))]
    short = nbformat.v4.new_notebook(metadata=lessons[0].metadata)
    short.cells = [nbformat.v4.new_code_cell(BEFORE_WIDGETS[names].strip()), *cells]
    short.metadata.pop("widgets", None)
    return short


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """JupyterLab on a free port, in a home of its own, over copies of the lessons."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("course")
    for part in ("notebooks", "scale"):  # lesson 11 starts the scripts beside it
        leave = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=leave)
    for name, names in zip(("widgets_on_prompting", "widgets_on_lora"), BEFORE_WIDGETS):
        nbformat.write(widgets_of(names), folder / "notebooks" / f"{name}.ipynb")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_"))},
        "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"), "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"), "JUPYTER_DATA_DIR": str(home / "jupyter-data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "JUPYTER_TOKEN": token,
        "RAPIDADAPT_CACHE": str(cache_dir()), "RAPIDADAPT_PROGRESS": "off",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser", f"--port={port}",
        "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with open(home / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/api/status?token={token}", process, home / "server.log")
        yield Server(address, token, folder)
    finally:
        process.terminate()  # it ends its kernels too
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(START_SECONDS * 4):
        try:
            with direct.open(url, timeout=5):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not start. It said:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window: the one in $CHROMIUM, Debian's, or Playwright's own."""
    from playwright.sync_api import sync_playwright

    own = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=own, args=CHROMIUM)
        yield launched
        launched.close()


@pytest.fixture
def lab(server, browser) -> Iterator[Callable[..., LabPage]]:
    """Return a function that opens a notebook in a window of the size asked for. Kernels end with the test."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    contexts = []

    def opened(path: str, width: int = 1280, height: int = 900, scale: float = 1.0) -> LabPage:
        size = {"width": round(width / scale), "height": round(height / scale)}
        contexts.append(browser.new_context(viewport=size, device_scale_factor=scale))
        page = LabPage(contexts[-1].new_page(), server.address, server.token, SHOTS)
        page.open(path)
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
        context.close()
