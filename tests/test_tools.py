"""The scripts in tools/: set-up picks up where it stopped, and stored notebooks hold nothing of the machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize("names", [["notes"], ["notes", bootstrap.LOCK], ["notes", bootstrap.STAMP]])
def test_a_folder_that_is_no_environment_is_not_cleared(venvs, tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SetupFailed, match=r"no virtual environment.*\nWhat to do: name another folder"):
        bootstrap.create_venv(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names) and venvs == []


def test_a_broken_environment_is_cleared_and_what_it_links_to_is_not(venvs, tmp_path):
    (tmp_path / "elsewhere" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", bootstrap.LOCK):
        (tmp_path / "env" / name).touch()
    (tmp_path / "env" / "lib").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    bootstrap.create_venv(tmp_path / "env")
    assert {path.name for path in (tmp_path / "env").iterdir()} == {"pyvenv.cfg", bootstrap.LOCK}
    assert (tmp_path / "elsewhere" / "lib").is_dir()


def test_a_folder_that_was_named_by_mistake_is_left_as_it_is(venvs, pips, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert bootstrap.main(["--venv", str(tmp_path)]) == 1
    assert "What to do: name another folder" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["years of work"]
    (tmp_path / "file").touch()
    assert bootstrap.main(["--venv", str(tmp_path / "file")]) == 1
    assert "What to do: name another folder" in capsys.readouterr().err


def test_an_empty_folder_becomes_an_environment(venvs, pips, tmp_path):
    bootstrap.create_venv(tmp_path)
    assert venvs == [tmp_path]


def test_clearing_that_is_interrupted_can_be_taken_up(venvs, tmp_path, monkeypatch):
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
    (tmp_path / "pyvenv.cfg").touch()

    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bootstrap.shutil, "rmtree", interrupted)
        bootstrap.create_venv(tmp_path)
    bootstrap.create_venv(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"pyvenv.cfg"}


@pytest.mark.parametrize(("system", "symlinks"), [("posix", True), ("nt", False)])
def test_python_is_linked_where_links_can_be_made(tmp_path, monkeypatch, system, symlinks):
    """A copy of uv's Python does not start on macOS."""
    asked = {}
    monkeypatch.setattr(bootstrap.venv, "create", lambda folder, **options: asked.update(options))
    folder = tmp_path / "venv"
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        bootstrap.create_venv(folder)
    assert asked == {"symlinks": symlinks, "with_pip": True}


@pytest.fixture
def venvs(monkeypatch):
    """Make environments that hold a pyvenv.cfg only, and work; record where."""
    made = []

    def create(folder, **options):
        made.append(Path(folder))
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "pyvenv.cfg").touch()

    monkeypatch.setattr(bootstrap.venv, "create", create)
    monkeypatch.setattr(bootstrap, "venv_works", lambda folder: (folder / "pyvenv.cfg").exists())
    return made


def stamp_of(folder: Path) -> dict:
    return json.loads((folder / bootstrap.STAMP).read_text(encoding="utf-8"))


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_an_environment_that_was_moved_is_made_anew_with_the_same_torch(venvs, pips, tmp_path, how, capsys):
    old, new = tmp_path / "old" / ".venv", tmp_path / "new" / ".venv"
    bootstrap.set_up(old, "default")
    (tmp_path / "old" / ".venv" / "jupyter").write_text(f"#!{old}/bin/python")
    if how == "moved":
        (tmp_path / "old").rename(tmp_path / "new")
    else:
        shutil.copytree(tmp_path / "old", tmp_path / "new")
    pips.clear()
    capsys.readouterr()
    bootstrap.set_up(new, "auto")
    assert venvs == [old, new] and not (new / "jupyter").exists()
    assert any("--editable" in call for call in pips) and not any(CPU_INDEX in call for call in pips)
    assert str(old) in capsys.readouterr().out
    assert stamp_of(new)["environment"] == str(new.resolve()) and stamp_of(new)["torch"] == "default"
    pips.clear()
    bootstrap.set_up(new, "auto")
    assert venvs == [old, new] and pips == []


def test_an_environment_that_is_reached_by_a_link_is_not_moved(venvs, pips, tmp_path):
    old, new = tmp_path / "old" / ".venv", tmp_path / "new" / ".venv"
    bootstrap.set_up(old, "auto")
    (tmp_path / "link").symlink_to(tmp_path / "old", target_is_directory=True)
    bootstrap.set_up(tmp_path / "link" / ".venv", "auto")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "old").symlink_to(tmp_path / "new", target_is_directory=True)  # the old place still leads there
    calls = len(pips)
    bootstrap.set_up(new, "auto")
    assert venvs == [old] and len(pips) == calls and stamp_of(new)["environment"] == str(old)


def test_a_course_that_was_moved_away_from_its_environment_is_installed_again(venvs, pips, tmp_path):
    folder = tmp_path / "env"
    bootstrap.set_up(folder, "auto")
    (folder / bootstrap.STAMP).write_text(json.dumps(stamp_of(folder) | {"course": str(tmp_path / "gone")}))
    pips.clear()
    bootstrap.set_up(folder, "auto")
    assert venvs == [folder] and any("--editable" in call for call in pips)
    assert stamp_of(folder)["course"] == str(bootstrap.ROOT)


@pytest.mark.parametrize("writable", [True, False])
def test_a_stamp_without_places_is_good_and_gets_them(venvs, pips, tmp_path, monkeypatch, writable):
    folder = tmp_path / "env"
    bootstrap.create_venv(folder)
    old = {"inputs": bootstrap.inputs_digest(), "torch": "cpu"}
    (folder / bootstrap.STAMP).write_text(json.dumps(old))

    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        if not writable:
            patch.setattr(Path, "write_text", refuse)
        bootstrap.set_up(folder, "auto")
    assert venvs == [folder] and pips == []
    places = {"environment": str(folder.resolve()), "course": str(bootstrap.ROOT)}
    assert stamp_of(folder) == (old | places if writable else old)


def test_an_intel_mac_is_told_before_anything_is_installed(pips, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "x86_64")
    with pytest.raises(SetupFailed, match=r"Intel.*\nWhat to do: .*Colab or Binder"):
        bootstrap.install(tmp_path, "auto")
    assert pips == []
    bootstrap.require_torch_build("https://mirror.example/own", "Darwin", "x86_64")
    for system, machine in (("Darwin", "arm64"), ("Linux", "x86_64")):
        bootstrap.require_torch_build("auto", system, machine)


def test_of_two_set_ups_at_once_one_waits_and_finds_everything_done(venvs, pips, tmp_path, monkeypatch, capsys):
    folder, waits = tmp_path / "env", threading.Event()
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *arguments, **options: done)

    def sleep(seconds):
        waits.set()
        threading.Event().wait(0.01)

    monkeypatch.setattr(bootstrap, "time", SimpleNamespace(sleep=sleep))
    second = threading.Thread(target=bootstrap.main, args=(["--venv", str(folder)],))
    record = bootstrap.pip

    def slow_pip(python, *arguments):
        if not pips:
            second.start()
            waits.wait(10)
        record(python, *arguments)

    monkeypatch.setattr(bootstrap, "pip", slow_pip)
    assert bootstrap.main(["--venv", str(folder)]) == 0
    second.join(30)
    assert venvs == [folder] and sum("--editable" in call for call in pips) == 1
    assert capsys.readouterr().out.count("Another set-up is under way; waiting for it ...\n") == 1


def test_the_lock_is_held_against_other_processes(venvs, tmp_path):
    folder = tmp_path / "env"
    code = "import bootstrap, pathlib, sys; print(bootstrap.is_locked(bootstrap.open_lock(pathlib.Path(sys.argv[1]))))"
    ask = [sys.executable, "-c", code, str(folder)]
    with bootstrap.one_at_a_time(folder):
        assert subprocess.check_output(ask, cwd=bootstrap.ROOT / "tools", text=True) == "True\n"
        bootstrap.create_venv(folder)
        assert subprocess.check_output(ask, cwd=bootstrap.ROOT / "tools", text=True) == "True\n"
    assert subprocess.check_output(ask, cwd=bootstrap.ROOT / "tools", text=True) == "False\n"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_what_is_set_up_already_needs_no_lock(venvs, pips, tmp_path, monkeypatch, number, capsys):
    """A shared checkout may be read-only."""
    bootstrap.set_up(tmp_path / "env", "auto")
    pips.clear()

    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with bootstrap.one_at_a_time(tmp_path / "env"):
        bootstrap.set_up(tmp_path / "env", "auto")
    assert pips == [] and "waiting" not in capsys.readouterr().out


def test_a_disk_without_locks_does_not_stop_set_up(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with bootstrap.one_at_a_time(tmp_path / "env"):
        pass


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


@pytest.mark.parametrize("form", ["text/html", "image/png"])
def test_a_widget_is_not_stored_where_html_or_a_picture_tells_the_same(form):
    a, b, c, d = (letter * 32 for letter in "abcd")
    state = {
        a: {"model_name": "VBoxModel", "state": {"children": [f"IPY_MODEL_{b}"], "layout": f"IPY_MODEL_{c}"}},
        b: {"model_name": "TextModel", "state": {"value": "an earlier guess"}},
        c: {"model_name": "LayoutModel", "state": {}},
        d: {"model_name": "HTMLModel", "state": {"value": "has no other form"}},
    }
    view = run_notebooks.WIDGET_VIEW
    both = new_output("display_data", {view: {"model_id": a}, form: "<details>", "text/plain": "?"})
    alone = new_output("display_data", {view: {"model_id": d}, "text/plain": "HTML()"})
    notebook = new_notebook(cells=[new_markdown_cell("?"), new_code_cell(outputs=[both, alone])])
    notebook.metadata["widgets"] = {run_notebooks.WIDGET_STATE: {"state": state}}
    tidy = run_notebooks.tidy(notebook)
    first, second = tidy.cells[1].outputs
    assert set(first.data) == {form, "text/plain"}
    [(name, left)] = tidy.metadata.widgets[run_notebooks.WIDGET_STATE].state.items()
    assert left.model_name == "HTMLModel" and second.data[view].model_id == name
