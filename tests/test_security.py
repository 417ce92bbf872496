"""What could harm a reader or tell on an author: pickles are never run, data are data, notebooks name no machine."""

from __future__ import annotations

import ast
import getpass
import json
import pickle
import platform
import re
import struct
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from tiny_models import tiny_llama

from rapidadapt_lessons.errors import AdapterMismatch, CheckpointMismatch, CourseError, ModelNotFound
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.files import load_adapter, save_adapter
from rapidadapt_lessons.lora.layers import LoRAConfig
from rapidadapt_lessons.training.checkpoint import load_checkpoint
from run_notebooks import machine_paths

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb")) + sorted(ROOT.glob("solutions/*.ipynb"))
NOTEBOOKS += sorted(ROOT.glob("exercises/*.ipynb"))

# Notebooks name no machine

PLACES = re.compile(r"(?<![\w.~/-])/(home|Users|root|tmp|var|opt|usr|work|mnt|content|srv)/[\w.-]+|\b[A-Za-z]:\\+\w+")
GENERIC = {"root", "user", "admin", "runner", "jovyan", "vagrant", "ubuntu", "localhost"}  # these name nobody


def own_names() -> set[str]:
    """Return this machine's and its user's names, where they would tell anything."""
    names = {getpass.getuser(), Path.home().name, platform.node(), platform.node().partition(".")[0]}
    return {name for name in names if len(name) > 2 and name.lower() not in GENERIC}


def pictures(thing: object) -> Iterator[bytes]:
    """Yield every PNG image in a notebook, those in the HTML of widgets too."""
    text = json.dumps(thing)
    yield from (b64decode(found) for found in re.findall(r"base64,([A-Za-z0-9+/=]+)", text))
    for found in re.findall(r'"image/png": "([^"]+)"', text):
        yield b64decode(found.replace("\\n", ""))


def png_notes(png: bytes) -> list[str]:
    """Return the kinds of a PNG's parts that hold words or times: programs write names and paths there."""
    kinds, place = [], 8
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        kinds.append(kind.decode("latin-1"))
        place += 12 + length
    return sorted({"tEXt", "zTXt", "iTXt", "eXIf", "tIME"} & set(kinds))


def tells(notebook: NotebookNode) -> list[str]:
    """Return what a notebook tells of the machine that it was run on: in outputs, metadata, widgets and pictures."""
    found = [f"a picture has {kind}" for png in pictures(notebook) for kind in png_notes(png)]
    cells = [{"outputs": cell.get("outputs", []), "metadata": cell.metadata} for cell in notebook.cells]
    text = json.dumps([cells, notebook.metadata], ensure_ascii=False)
    text = re.sub(r'"image/png": "[^"]+"|base64,[A-Za-z0-9+/=]+', "", text)
    found += [match.group() for match in PLACES.finditer(text)] + machine_paths(notebook)
    found += [name for name in own_names() if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]
    found += [key for key in ("kernel_id", "session", "signature", "authors") if key in notebook.metadata]
    spec = notebook.metadata.get("kernelspec", {})
    return found + [f"kernel {spec['name']}" for _ in "x" if spec.get("name", "python3") != "python3"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_stored_notebook_tells_nothing_of_its_machine(path):
    assert tells(nbformat.read(path, as_version=4)) == []


def written(text: str) -> NotebookNode:
    return new_notebook(cells=[new_code_cell("x", outputs=[new_output("stream", text=text)])])


@pytest.mark.parametrize(
    "text",
    ["kept in /home/ada/model", "/root/.cache/x", "see /tmp/abc", "/work/main/x", r"C:\Users\ada", "/Users/ada/x"],
)
def test_a_path_in_an_output_is_found(text):
    assert tells(written(text)) != [] and tells(written("1/2, and/or, https://a.example/tmp.html")) == []


def test_names_metadata_and_a_pictures_notes_are_found(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "adas-laptop.local")
    monkeypatch.setattr(getpass, "getuser", lambda: "lovelace")
    for name in ("adas-laptop", "lovelace"):
        assert name in tells(written(f"run by {name} today"))
    notebook = written("")
    notebook.metadata.kernelspec = {"name": "adas-env", "display_name": "x"}
    assert tells(notebook) == ["kernel adas-env"]
    note = b"Software\0made on adas-laptop"
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", len(note), b"tEXt") + note + bytes(4)
    from base64 import b64encode

    assert tells(written(f"<img src='data:image/png;base64,{b64encode(png).decode()}'>")) == ["a picture has tEXt"]


# Nothing is unpickled


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def mark(tmp_path) -> Path:
    """A file that is there once a trap has gone off; and the proof that it does, where a pickle is run."""
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()
    mark.unlink()
    return mark


def traps(path: Path, mark: Path) -> Iterator[None]:
    """Write the trap to a file in one way after another: as Python's pickle, and as PyTorch's two formats."""
    path.write_bytes(pickle.dumps({"what": {}, "state": Trap(mark)}))
    yield
    for zipped in (True, False):
        torch.save({"what": {}, "state": Trap(mark)}, path, _use_new_zipfile_serialization=zipped)
        yield


def test_a_checkpoint_that_is_a_trap_is_refused_and_not_run(tmp_path, mark):
    for _ in traps(tmp_path / "run.pt", mark):
        with pytest.raises(CheckpointMismatch, match="run.pt is no checkpoint"):
            load_checkpoint(tmp_path / "run.pt", {})
        assert not mark.exists()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_that_is_a_trap_is_refused_and_not_run(tmp_path, mark, name):
    config = LoRAConfig(2)
    save_adapter(lora.inject(tiny_llama(), config), tmp_path / "a", config)
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    for _ in traps(tmp_path / "a" / name, mark):
        model = tiny_llama()
        with pytest.raises(AdapterMismatch, match="missing or damaged"):
            load_adapter(model, tmp_path / "a")
        assert not mark.exists() and not lora.lora_layers(model)


def test_a_model_that_is_a_trap_is_refused_and_not_run(tmp_path, mark):
    from transformers import AutoTokenizer

    from rapidadapt_lessons.lm.download import ensure_model
    from rapidadapt_lessons.lm.model import load_model

    folder = tmp_path / "model"
    tiny_llama().config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(ensure_model()), local_files_only=True).save_pretrained(folder)
    for _ in traps(folder / "pytorch_model.bin", mark):
        with pytest.raises(ModelNotFound, match="no usable model.*never run"):
            load_model(str(folder))
        assert not mark.exists()


FOLDERS = ("rapidadapt_lessons", "tools", "scale", "benchmarks")
CODE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
UNSAFE_CALLS = {
    "eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load", "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip
UNSAFE_MODULES = {"marshal", "shelve", "dill", "joblib", "cloudpickle"}
# joblib's processes get pickles that this process has just made, never a file: that much of it is let through.
BETWEEN_PROCESSES = {"joblib": {"Parallel", "cpu_count", "delayed", "parallel_config"}}


def unsafe(code: str) -> list[str]:
    """Return the places where code runs what it reads: unpickling, evaluation, a shell."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module, imported = getattr(node, "module", None) or "", [alias.name for alias in node.names]
            if set(imported) <= BETWEEN_PROCESSES.get(module, set()):
                continue
            names = [*imported, module]
            found += [name for name in names if name.partition(".")[0] in UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        if name in UNSAFE_CALLS:
            found.append(name)
        if name.endswith("torch.load") and options.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        for option in ("shell", "allow_pickle", "trust_remote_code"):
            if options.get(option, "False") != "False":
                found.append(f"{option}={options[option]}")
    return found


@pytest.mark.parametrize("path", CODE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_code_runs_what_it_reads(path):
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(x)", "import dill", "import joblib", "from joblib import Parallel, load",
        "pickle.load(f)", "yaml.load(f)", "torch.load(f)",
        "torch.load(f, weights_only=False)", "subprocess.run(c, shell=True)", "np.load(f, allow_pickle=True)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)", "os.system(c)",
    ],
)  # fmt: skip
def test_unsafe_code_is_found(line):
    assert unsafe(line) != []
    assert unsafe("model.eval()\ntorch.load(f, weights_only=True)\nyaml.safe_load(f)\nre.compile(p)") == []


# A reader's data are data

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "=HYPERLINK(1)", "%s %(x)s %d", "{x} {y} {0} {x.a}",
    "!ls", "%run x.py", "__import__('os')", "[a](javascript:b)", "a | b", "# head", "$x_{1}$", "\\N{BULLET}",
    "&lt;b&gt;",
]  # fmt: skip


def test_hostile_cells_come_through_letter_by_letter(tmp_path):
    """Into the task, and into the prompts, whose template has braces of its own."""
    from rapidadapt_lessons.choosing.own_data import read_pairs
    from rapidadapt_lessons.prompting.prompts import Template, build_prompts

    rows = [(f"{cell} {i}", f"{cell} {i + 100}") for i, cell in enumerate(HOSTILE)]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (tmp_path / "my.csv").write_text("\n".join(["x,y", *quoted]) + "\n", encoding="utf-8")
    task = read_pairs(tmp_path / "my.csv")
    assert {tuple(e) for e in (*task.support_pool, *task.query_set)} == set(rows)
    for prompt in build_prompts(task.query_set, task.support_pool[:3], Template(task.cue)):
        assert all(e.x in prompt.text and e.y in prompt.text for e in task.support_pool[:3])


def test_a_report_shows_hostile_names_and_labels_letter_by_letter():
    from dataclasses import replace

    import mistune

    from rapidadapt_lessons.choosing.choose import Limits, choose
    from rapidadapt_lessons.choosing.report import report_text
    from tests.choosing.test_choose import TASK, TRIALS

    render = mistune.create_markdown(escape=False, plugins=["table"])  # a reader that lets HTML through
    for text in HOSTILE:
        task = replace(TASK, title=text, source=f"{text}.csv", labels=(text, "no"), cue="{x}: {y}\n" + text)
        page = render(report_text(task, TRIALS, choose(TRIALS, Limits(16))))
        assert not re.search(r"<(script|img|a)\b", page) and page.count("<h1>") == 1 and page.count("<table>") == 1
        from html import unescape

        shown = unescape(re.sub(r"<[^>]+>", "", page))
        assert shown.count(text) == 4, page


def test_a_file_that_is_not_text_or_has_a_huge_cell_is_told(tmp_path):
    from rapidadapt_lessons.choosing.own_data import read_pairs

    for data in (b"x,y\na\0b,c\n", b"x,y\n" + b"a" * 2_000_000 + b",c\n"):
        (tmp_path / "my.csv").write_bytes(data)
        with pytest.raises(CourseError, match="What to do: "):
            read_pairs(tmp_path / "my.csv")
