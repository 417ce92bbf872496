"""Run notebooks from a fresh kernel each and store what came out. `make notebooks` runs all lessons.

    python tools/run_notebooks.py notebooks/*.ipynb

What differs from one run to the next without meaning anything is not stored: times, versions, random widget
names; nor are widgets of outputs that tell the same in HTML or a picture. A notebook whose output names a folder of
this machine is refused, as is one with a cell that fails; the file is then left as it was.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def main(arguments: list[str]) -> int:
    """Run the notebooks named, and return the exit status: 0 when every one ran and was stored."""
    refused = 0
    paths = [Path(name) for name in sorted(arguments)]
    if absent := [str(path) for path in paths if not path.is_file()]:
        print(f"There is no {', '.join(absent)}.", file=sys.stderr)
        return 1
    for path in paths:
        print(f"{path} ...", flush=True)
        try:
            notebook = run(path)
        except CellExecutionError as error:
            print(f"{path} is left as it was: a cell failed.\n{error}", file=sys.stderr)
            refused += 1
            continue
        if found := machine_paths(notebook):
            print(f"{path} is left as it was: its output names a folder of this machine.", file=sys.stderr)
            print("\n".join(f"  {line}" for line in found), file=sys.stderr)
            refused += 1
            continue
        store(notebook, path)
    return int(refused > 0)


def run(path: Path) -> nbformat.NotebookNode:
    """Return the notebook as a fresh kernel, started in its folder, leaves it.

    Raises:
        CellExecutionError: a cell raised, and is not tagged "raises-exception".
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute()
    return tidy(notebook)


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook without times, versions, and random widget names."""
    widgets = notebook.metadata.get("widgets")
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    if widgets:
        notebook.metadata.widgets = widgets
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return number_widgets(without_needless_widgets(notebook))


def without_needless_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook without the widgets, and their state, of outputs that tell the same in HTML or a picture.

    JupyterLab prefers a widget to them, even one that nothing stands behind any more; so do the book and the slides.
    """
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    still = {"text/html", "image/png"}
    names = [data.pop(WIDGET_VIEW)["model_id"] for data in outputs if WIDGET_VIEW in data and still & data.keys()]
    while names:
        names += re.findall(r'"IPY_MODEL_(\w+)"', json.dumps(state.pop(names.pop(), None)))  # its children, its layout
    return notebook


def number_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook with its widgets' random names replaced by numbers, in the order they were made."""
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    numbers = {name: f"{number:032x}" for number, name in enumerate(state, start=1)}
    if not numbers:
        return notebook
    text = re.sub("|".join(map(re.escape, numbers)), lambda found: numbers[found.group()], json.dumps(notebook))
    return nbformat.from_dict(json.loads(text))


def machine_paths(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the lines of output that name the home folder, this folder, Python's, or a temporary one."""
    places = {str(Path.home()), str(ROOT), sys.prefix, sys.base_prefix, tempfile.gettempdir()}
    told = re.compile("|".join(rf"{re.escape(place)}[/\\]" for place in sorted(places) if len(place) > 1))
    texts = [json.dumps(cell.outputs, ensure_ascii=False) for cell in notebook.cells if cell.cell_type == "code"]
    texts.append(json.dumps(notebook.metadata.get("widgets", {}), ensure_ascii=False))
    lines = (line for text in texts for line in text.split("\\n"))
    return [line[:200] for line in lines if told.search(line)]


def store(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the notebook in place of the old file, at one stroke."""
    nbformat.validate(notebook)
    new = path.with_suffix(".new")
    nbformat.write(notebook, new)
    os.replace(new, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
