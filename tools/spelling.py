"""Look for common misspellings with codespell: in code, in pages, and in what people wrote in notebooks.

    python tools/spelling.py

Notebooks' outputs are left out: pictures are long strings of letters, and what a model says is what it says.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("*.md", "Makefile", "docs", "book", "classroom", "scale", "rapidadapt_lessons", "tests", "tools", "benchmarks")
NOTEBOOKS = ("notebooks", "solutions", "exercises")
# Word by word: wrong on purpose ("boxs", what a naive rule makes of "box"), or no English.
MEANT = ("boxs", "caf", "fo", "sclar", "te", "thet")


def written(path: Path) -> str:
    """Return what people wrote in a notebook: the sources of its cells."""
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def misspelled(root: Path = ROOT) -> list[str]:
    """Return one line for each misspelling: file, line, the word and what it should be."""
    with tempfile.TemporaryDirectory() as folder:
        for name in NOTEBOOKS:
            for notebook in (root / name).glob("*.ipynb"):
                copy = Path(folder, name, f"{notebook.name}.txt")
                copy.parent.mkdir(exist_ok=True)
                copy.write_text(written(notebook), encoding="utf-8")
        parts = [str(path) for part in PARTS for path in sorted(root.glob(part))]
        skip = "*.lock,*-lock.json,__pycache__,*.png,*.safetensors"
        options = ["--skip", skip, "--ignore-words-list", ",".join(MEANT)]
        command = [sys.executable, "-m", "codespell_lib", *options, *parts, folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode and not done.stdout:
            raise RuntimeError(f"codespell failed: {done.stderr}")
        return [line.replace(folder + "/", "").replace(f"{root}/", "") for line in done.stdout.splitlines()]


if __name__ == "__main__":
    found = misspelled()
    print("\n".join([*found, f"spelling: {len(found)} words to look at"]))
    sys.exit(bool(found))
