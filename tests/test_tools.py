"""The scripts in tools/: set-up picks up where it stopped, and stored notebooks hold nothing of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import bootstrap
import lock
import run_notebooks
from bootstrap import CPU_INDEX, SetupFailed


@pytest.mark.parametrize(
    ("choice", "system", "gpu", "indexes"),
    [
        ("auto", "Linux", False, [CPU_INDEX, None]),
        ("auto", "Windows", False, [CPU_INDEX, None]),
        ("auto", "Linux", True, [None]),
        ("auto", "Darwin", False, [None]),
        ("cpu", "Linux", True, [CPU_INDEX]),
        ("cpu", "Darwin", False, [None]),
        ("cuda", "Linux", False, [None]),
        ("default", "Linux", False, [None]),
        ("https://mirror.example/cu130", "Windows", False, ["https://mirror.example/cu130"]),
    ],
)
def test_where_torch_comes_from(choice, system, gpu, indexes):
    assert bootstrap.torch_indexes(choice, system, gpu) == indexes


@pytest.mark.parametrize(
    ("choice", "system"), [("gpu", "Linux"), ("", "Linux"), ("cuda", "Windows"), ("cuda", "Darwin")]
)
def test_a_torch_that_cannot_be_is_told(choice, system):
    with pytest.raises(SetupFailed, match=f"TORCH={choice}.*\nWhat to do: "):
        bootstrap.torch_indexes(choice, system, False)


@pytest.fixture
def pips(monkeypatch):
    """Record what `bootstrap.pip` is asked to do, and fail where the test says so."""

    class Pips(list):
        fails_on = "nothing"

    calls = Pips()

    def pip(python, *arguments):
        calls.append(arguments)
        if calls.fails_on in arguments:
            raise SetupFailed("pip failed")

    monkeypatch.setattr(bootstrap, "pip", pip)
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    monkeypatch.setattr(bootstrap, "require_compiler", lambda folder: None)
    return calls


def test_an_unreachable_cpu_index_is_told_and_pips_own_index_used(pips, capsys):
    pips.fails_on = CPU_INDEX
    bootstrap.install_torch("python", "auto", switch=False)
    assert [CPU_INDEX in call for call in pips] == [True, False]
    assert all(bootstrap.pinned("torch") in call for call in pips)
    assert {"--retries", "--timeout", "--no-deps"} <= set(pips[0])
    assert capsys.readouterr().out.count("\n") == 1


def test_an_unreachable_index_that_was_asked_for_by_name_is_an_error(pips):
    pips.fails_on = CPU_INDEX
    with pytest.raises(SetupFailed, match="TORCH=default"):
        bootstrap.install_torch("python", "cpu", switch=False)


def test_a_second_install_does_nothing(pips, tmp_path):
    bootstrap.install(tmp_path, "auto")
    assert any("--requirement" in call for call in pips)
    pips.clear()
    bootstrap.install(tmp_path, "auto")
    assert pips == []


def test_an_interrupted_install_is_taken_up_again(pips, tmp_path):
    pips.fails_on = "--editable"
    with pytest.raises(SetupFailed):
        bootstrap.install(tmp_path, "auto")
    pips.clear()
    pips.fails_on = "nothing"
    bootstrap.install(tmp_path, "auto")
    assert any("--editable" in call for call in pips)


def test_another_torch_replaces_the_one_that_is_there_and_auto_keeps_it(pips, tmp_path):
    bootstrap.install(tmp_path, "auto")
    assert not any("--force-reinstall" in call for call in pips)
    pips.clear()
    bootstrap.install(tmp_path, "default")
    assert any("--force-reinstall" in call and bootstrap.pinned("torch") in call for call in pips)
    pips.clear()
    bootstrap.install(tmp_path, "auto")
    assert pips == []


def test_a_changed_lock_is_installed(pips, tmp_path, monkeypatch):
    bootstrap.install(tmp_path, "auto")
    pips.clear()
    monkeypatch.setattr(bootstrap, "inputs_digest", lambda: "another")
    bootstrap.install(tmp_path, "auto")
    assert any("--requirement" in call for call in pips)


def test_an_old_python_is_told_with_a_remedy():
    with pytest.raises(SetupFailed, match=r"Python 3\.10 .* needs 3\.11 or later\.\nWhat to do: .*PYTHON="):
        bootstrap.require_python((3, 10))
    bootstrap.require_python((3, 11))


def test_a_missing_compiler_is_told_before_anything_is_installed(tmp_path, monkeypatch):
    if os.name == "nt":
        pytest.skip("the compiler is on no path there")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(SetupFailed, match="no-such-compiler"):
        bootstrap.require_compiler(tmp_path)
    (tmp_path / "lib" / "site-packages" / "learn2learn").mkdir(parents=True)
    bootstrap.require_compiler(tmp_path)


def test_a_venv_without_pip_is_made_anew(tmp_path):
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (folder / "leftover").touch()
    assert not bootstrap.venv_works(folder)
    bootstrap.create_venv(folder)
    assert bootstrap.venv_works(folder)
    assert not (folder / "leftover").exists()


def test_no_venv_does_not_work(tmp_path):
    assert not bootstrap.venv_works(tmp_path / "none")


def test_the_lock_leaves_out_builds_and_what_cuda_builds_bring():
    versions = {"torch": "2.13.0+cpu", "Markdown_It.py": "4.3", "nvidia-cublas": "12", "triton": "3"}
    assert lock.lines(versions) == "markdown-it-py==4.3\ntorch==2.13.0\n"


@pytest.fixture
def notebook_at(tmp_path):
    """Return a function that writes a notebook of code cells and returns its path."""

    def write(*sources: str) -> Path:
        path = tmp_path / "lesson.ipynb"
        cells = [new_markdown_cell("# A lesson"), *(new_code_cell(source) for source in sources)]
        nbformat.write(new_notebook(cells=cells, metadata={"noise": "x"}), path)
        return path

    return write


def test_a_notebook_is_run_and_stored_the_same_each_time(notebook_at):
    path = notebook_at("import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider", "slider.value + 1")
    assert run_notebooks.main([str(path)]) == 0
    first = path.read_text(encoding="utf-8")
    assert run_notebooks.main([str(path)]) == 0
    assert path.read_text(encoding="utf-8") == first
    stored = nbformat.read(path, as_version=4)
    assert stored.cells[2].outputs[0].data["text/plain"] == "4"
    assert set(stored.metadata) == {"kernelspec", "language_info", "widgets"}
    assert all("execution" not in cell.metadata for cell in stored.cells)
    view = stored.cells[1].outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert stored.metadata.widgets[run_notebooks.WIDGET_STATE]["state"][view]["state"]["value"] == 3


@pytest.mark.parametrize(
    ("source", "told"),
    [("1 / 0", "ZeroDivisionError"), ("import os\nprint('in', os.path.expanduser('~/x'))", "this machine")],
)
def test_a_notebook_that_must_not_be_stored_is_left_as_it_was(notebook_at, capsys, source, told):
    path = notebook_at(source)
    before = path.read_bytes()
    assert run_notebooks.main([str(path)]) == 1
    assert path.read_bytes() == before
    assert told in capsys.readouterr().err


def test_a_notebook_that_is_not_there_is_named(tmp_path, capsys):
    assert run_notebooks.main([str(tmp_path / "*.ipynb")]) == 1
    assert "*.ipynb" in capsys.readouterr().err


def test_machine_paths_are_found_in_outputs_and_not_in_sources():
    inside = str(Path.home() / "x.py")
    clean = new_code_cell(f"open({inside!r})", outputs=[new_output("stream", text="~/x.py")])
    dirty = new_code_cell("pass", outputs=[new_output("stream", text=f"fine\nread {inside}")])
    assert run_notebooks.machine_paths(new_notebook(cells=[clean])) == []
    assert len(run_notebooks.machine_paths(new_notebook(cells=[clean, dirty]))) == 1


def test_the_conda_file_is_what_the_lock_and_pyproject_make():
    import tomllib

    pyproject = tomllib.loads((bootstrap.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = (bootstrap.ROOT / "requirements.lock").read_text(encoding="utf-8")
    (separate,) = pyproject["tool"]["rapidadapt"]["built-separately"]
    made = lock.conda_file(pyproject, pins, separate)
    assert (bootstrap.ROOT / "environment.yml").read_text(encoding="utf-8") == made
