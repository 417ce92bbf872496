"""Badges and the first cell on Colab come from one address, and installing there keeps what must be kept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from xml.etree import ElementTree

import nbformat
import places
import pytest
import slides
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rapidadapt_lessons.errors import CourseError, DownloadFailed
from rapidadapt_lessons.lm import download
from rapidadapt_lessons.setup import colab, doctor, learn2learn

ADDRESS = "https://github.com/ada/engine"


def lesson() -> nbformat.NotebookNode:
    result = new_output("execute_result", {"text/plain": "2"}, execution_count=1)
    cells = [new_markdown_cell("# One"), new_code_cell("1 + 1", execution_count=1, outputs=[result])]
    return new_notebook(cells=[*cells, new_markdown_cell("Two.")])


# One address


@pytest.mark.parametrize("path", [places.ROOT / "README.md", *places.lessons()], ids=lambda path: path.name)
def test_a_file_says_what_the_address_makes(path):
    wanted = places.planned([path] if path.suffix == ".ipynb" else [])[path]
    assert places.read(path) == wanted, f"{path.name} is out of date: run `make places`"


def test_every_lesson_has_its_badges_or_is_named():
    names = {path.name for path in (places.ROOT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in places.lessons()} == names - set(places.NOT_YET)
    assert len(places.lessons()) >= 6


def test_no_other_file_of_the_project_holds_the_address_in_its_own_words():
    """A copy in a lesson's text, a page or a script would be left behind when the address changes."""
    owner, name = places.owner_and_name(places.repository())
    listed = subprocess.run(["git", "ls-files"], cwd=places.ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    told = re.compile(rf"github\.com/{owner}/{name}|mybinder\.org/v2/gh/{owner}|{owner}\.github\.io")
    written = {places.ROOT / "README.md", places.ROOT / "pyproject.toml", *places.lessons()}
    paths = {places.ROOT / file for file in listed.stdout.splitlines()} - written
    texts = {path: path.read_bytes().decode("utf-8", "ignore") for path in paths if path.is_file()}
    assert [path.name for path, text in texts.items() if told.search(text)] == []


def test_another_address_changes_badges_and_cell_and_nothing_else():
    before, after = (places.with_places(lesson(), "01_one", address) for address in (ADDRESS, "https://github.com/x/y"))
    for cell, other in zip(before.cells[1:3], after.cells[1:3]):
        assert "ada/engine" in cell.source or "ada.github.io/engine" in cell.source
        assert "ada/engine" not in other.source and "ada.github.io" not in other.source
    assert [cell.source for cell in before.cells[3:]] == [cell.source for cell in after.cells[3:]] == ["1 + 1", "Two."]


def test_writing_twice_is_writing_once_and_outputs_are_kept():
    once = places.with_places(lesson(), "01_one", ADDRESS)
    text = nbformat.writes(once)
    assert nbformat.writes(places.with_places(nbformat.reads(text, 4), "01_one", ADDRESS)) == text
    nbformat.validate(once)
    (output,) = once.cells[3].outputs
    assert output.data["text/plain"] == "2" and (once.cells[3].execution_count, output.execution_count) == (2, 2)
    assert [cell.execution_count for cell in once.cells if cell.cell_type == "code"] == [1, 2]


@pytest.mark.parametrize("bad", ["https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b/", "a/b"])
def test_an_address_that_no_badge_can_be_made_of_is_refused(bad):
    with pytest.raises(ValueError, match="OWNER/NAME"):
        places.owner_and_name(bad)


def test_check_names_what_is_out_of_date_and_changes_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\nText.\n")
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{ADDRESS}"\n')
    path = tmp_path / "notebooks" / "01_one.ipynb"
    nbformat.write(lesson(), path)
    monkeypatch.setattr(places, "ROOT", tmp_path)
    before = path.read_bytes()
    assert places.main(["--check"]) == 1
    assert path.read_bytes() == before and "01_one.ipynb is out of date" in capsys.readouterr().out
    assert places.main([]) == 0
    assert places.main(["--check"]) == 0
    assert (tmp_path / "README.md").read_text().startswith("# Title\n\n<!-- places")
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/x/y"\n')
    assert places.main(["--check"]) == 1


def test_badges_lie_in_the_project_and_can_be_read():
    """A picture from elsewhere would ask the network whenever a lesson is opened."""
    line = places.badges("01_one", ADDRESS, "../docs/badges")
    assert not re.search(r"!\[[^\]]*\]\(https?:", line) and len(re.findall(r"!\[[^\]]+\]", line)) == 3
    for name, label, colour in places.PICTURES:
        tree = ElementTree.fromstring((places.ROOT / "docs" / "badges" / f"{name}.svg").read_text(encoding="utf-8"))
        assert tree.get("aria-label") == label
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, f"white on {colour} is hard to read (WCAG 2.2, 1.4.3)"


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour such as "#0a5c8a" (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def test_slides_have_neither_badges_nor_the_cell():
    shown = slides.arrange(places.with_places(lesson(), "01_one", ADDRESS))
    assert [cell.source for cell in shown.cells] == ["# One", "1 + 1", "Two."]


# The cell


def run_cell(source: str, modules: dict, pips: list) -> None:
    """Run the cell as IPython does, with these modules standing in for installed ones."""

    class Shell:
        def run_line_magic(self, name, line, **_):
            pips.append((name, line))
            sys.modules.update(modules)

    exec(TransformerManager().transform_cell(source), {"get_ipython": Shell})


def test_the_cell_installs_only_where_the_package_is_missing(monkeypatch):
    source = places.setup_source(lesson(), ADDRESS)
    assert len(source.splitlines()) <= 8
    calls, pips = [], []
    package, stand_in = type(sys)("rapidadapt_lessons"), type(sys)("rapidadapt_lessons.setup")
    stand_in.colab = type("colab", (), {"install": staticmethod(lambda *built: calls.append(built))})
    for name in ("rapidadapt_lessons", "rapidadapt_lessons.setup"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now raises ImportError
    run_cell(source, {"rapidadapt_lessons": package, "rapidadapt_lessons.setup": stand_in}, pips)
    assert calls == [()]
    assert pips == [("pip", f"install --quiet --no-deps git+{ADDRESS}@{places.REF}")]
    run_cell(source, {}, pips)
    assert len(pips) == 1 and len(calls) == 2


def test_only_a_lesson_with_learn2learn_has_it_built():
    with_l2l = lesson()
    with_l2l.cells[1].source = "from rapidadapt_lessons.setup import learn2learn as l2l"
    assert places.setup_source(with_l2l, ADDRESS).endswith('colab.install("learn2learn")')
    assert places.setup_source(lesson(), ADDRESS).endswith("colab.install()")
    stored = {path.name: nbformat.read(path, as_version=4) for path in places.lessons()}
    built = [name for name, nb in stored.items() if '"learn2learn"' in nb.cells[2].source]
    assert built == ["06_maml_from_scratch.ipynb"]


# What it installs


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which the package came with a notebook; the list tells what was done there."""
    done: list = []
    monkeypatch.setattr(doctor, "came_with_a_notebook", lambda: True)
    monkeypatch.setattr(doctor, "requirements", lambda: ["numpy>=2.4", "peft>=0.21,<0.22", "torch>=2.13", "rich>=15"])
    found = {"numpy": "2.0.2", "torch": "2.10.0+cu128", "rich": "13.9", "rapidadapt-lessons": "0.1.0"}
    monkeypatch.setattr(colab, "installed", lambda: found)
    (tmp_path / "requirements.lock").write_text("# pins\npyyaml==6.0.3\nrich==15.0.0\ntorch==2.13.0\n")
    monkeypatch.setattr(doctor, "shared_file", lambda name: tmp_path / name)
    monkeypatch.setattr(colab, "loaded", lambda modules: {"numpy", "rapidadapt-lessons"})
    monkeypatch.setattr(colab, "pip_install", lambda wanted, keep: done.append((wanted, keep)))
    monkeypatch.setattr(learn2learn, "installed_version", lambda: None)
    monkeypatch.setattr(learn2learn, "build", lambda: done.append("learn2learn"))
    status = download.ModelStatus("missing", places.ROOT, 0, "")
    monkeypatch.setattr(download, "check_model", lambda: status)
    monkeypatch.setattr(download, "ensure_model", lambda progress: done.append("model"))
    return done


def test_torch_and_what_runs_already_are_kept_and_the_rest_brought_up_to_date(machine, capsys):
    colab.install()
    assert machine == [(["peft>=0.21,<0.22", "rich==15.0.0"], ["numpy==2.0.2", "torch==2.10.0+cu128"]), "model"]
    assert capsys.readouterr().out.count("\n") == 2


def test_a_requirement_is_found_in_the_lock_however_it_is_spelled(machine):
    assert colab.at_locked_versions(["PyYAML>=6,<7", "peft>=0.21"]) == ["pyyaml==6.0.3", "peft>=0.21"]


def test_what_the_kernel_uses_is_replaced_only_where_nothing_else_fits_and_a_restart_is_asked_for(machine, monkeypatch):
    asked = []

    def pip_install(wanted, keep):
        asked.append(keep)
        if "numpy==2.0.2" in keep:
            raise DownloadFailed("pip said: ResolutionImpossible", "")
        found = {"numpy": "2.5", "torch": "2.10.0+cu128", "rich": "15", "peft": "0.21"}
        monkeypatch.setattr(colab, "installed", lambda: found)

    monkeypatch.setattr(colab, "pip_install", pip_install)
    with pytest.raises(CourseError, match="numpy had to be replaced.*\nWhat to do: restart the kernel"):
        colab.install()
    assert asked == [["numpy==2.0.2", "torch==2.10.0+cu128"], ["torch==2.10.0+cu128"]]
    colab.install()  # after the restart
    assert len(asked) == 2 and machine == ["model"]


def test_an_older_transformers_that_the_kernel_uses_is_replaced_and_a_restart_asked_for(machine, monkeypatch):
    found = {"numpy": "2.0.2", "torch": "2.10.0+cu128", "rich": "15", "peft": "0.18"}
    monkeypatch.setattr(colab, "installed", lambda: dict(found))
    monkeypatch.setattr(colab, "loaded", lambda modules: {"numpy", "peft"})

    def pip_install(wanted, keep):
        machine.append((wanted, keep))
        found["peft"] = "0.21.2"

    monkeypatch.setattr(colab, "pip_install", pip_install)
    with pytest.raises(CourseError, match="^peft had to be replaced"):
        colab.install()
    assert machine == [(["peft>=0.21,<0.22"], ["numpy==2.0.2", "torch==2.10.0+cu128"])]


def test_of_two_distributions_of_one_name_the_one_that_is_imported_counts(tmp_path, monkeypatch):
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        (tmp_path / folder / f"twice-{version}.dist-info").mkdir(parents=True)
        (tmp_path / folder / f"twice-{version}.dist-info" / "METADATA").write_text(f"Name: Twice\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    assert colab.installed()["twice"] == metadata.version("twice") == "2.0"


def test_another_failure_of_pip_replaces_nothing(machine, monkeypatch):
    asked = []

    def pip_install(wanted, keep):
        asked.append(keep)
        raise DownloadFailed("pip said: no network", "")

    monkeypatch.setattr(colab, "pip_install", pip_install)
    with pytest.raises(DownloadFailed, match="no network"):
        colab.install()
    assert len(asked) == 1


def test_learn2learn_is_built_where_a_lesson_asks_for_it(machine):
    colab.install("learn2learn")
    assert machine[1:] == ["learn2learn", "model"]


def test_where_all_is_there_nothing_is_done_or_printed(machine, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "requirements", lambda: ["rich>=13", "torch>=2.13", "jupyterlab>=4.6"])
    monkeypatch.setattr(download, "check_model", lambda: download.ModelStatus("ok", places.ROOT, 1, ""))
    colab.install()
    assert machine == [] and capsys.readouterr().out == ""


def test_where_the_course_was_set_up_nothing_is_done(machine, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "came_with_a_notebook", lambda: False)
    colab.install("learn2learn")
    assert machine == [] and capsys.readouterr().out == ""


def test_this_checkout_did_not_come_with_a_notebook():
    assert doctor.came_with_a_notebook() is False


@pytest.mark.parametrize(
    ("written", "came"),
    [
        ({"url": ADDRESS, "vcs_info": {"vcs": "git", "commit_id": "0"}}, True),
        ({"url": "file:///x", "dir_info": {"editable": True}}, False),
        (None, False),
    ],
)
def test_what_pip_wrote_down_tells_how_the_package_came(monkeypatch, written, came):
    record = type("Record", (), {"read_text": lambda self, name: written and json.dumps(written)})
    monkeypatch.setattr(metadata, "distribution", lambda name: record())
    assert doctor.came_with_a_notebook() is came


def test_the_running_kernels_packages_are_known_by_their_modules():
    assert {"numpy", "pyyaml"} <= colab.loaded(["numpy.linalg", "yaml", "no_such_module"])
    assert colab.installed()["pyyaml"] == metadata.version("PyYAML")


def test_a_wheel_carries_the_lock_all_modules_and_what_lessons_start(tmp_path):
    source = tmp_path / "source"  # building leaves files behind
    for folder in ("rapidadapt_lessons", "scale"):
        shutil.copytree(places.ROOT / folder, source / folder)
    for name in ("pyproject.toml", "README.md", "requirements.lock"):
        shutil.copy(places.ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (lock,) = (name for name in names if name.endswith("share/rapidadapt-lessons/requirements.lock"))
        assert archive.read(lock) == (places.ROOT / "requirements.lock").read_bytes()
    package = places.ROOT / "rapidadapt_lessons"
    files = (file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    wanted = {file.relative_to(places.ROOT).as_posix() for file in files}
    assert {name for name in names if name.startswith("rapidadapt_lessons/")} == wanted
    cells = [cell for path in places.lessons() for cell in nbformat.read(path, as_version=4).cells]
    started = {found for cell in cells for found in re.findall(r'launch\("\.\./(scale/\w+\.py)"', cell.source)}
    assert len(started) == 2 and started <= {name.partition("share/rapidadapt-lessons/")[2] for name in names}


def test_pip_that_fails_is_told_with_its_last_words(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadFailed, match="no-such-package-at-all.*It said:") as raised:
        colab.pip_install(["no-such-package-at-all>=1"], ["numpy==1"])
    assert "run this cell again" in raised.value.remedy


def test_doctor_knows_what_a_notebook_that_came_alone_does_not_need(monkeypatch):
    monkeypatch.setattr(doctor, "came_with_a_notebook", lambda: True)
    monkeypatch.setattr(doctor, "PAGE", ("no-such-package",))
    assert doctor.package_check("no-such-package>=1").status == "ok"
    assert doctor.package_check("other-package>=1").status == "fail"
    assert doctor.package_check("numpy>=99").status == "warn"
    assert "requirements.lock" not in doctor.package_check("numpy>=99").remedy
    monkeypatch.setattr(learn2learn, "installed_version", lambda: None)
    assert doctor.learn2learn_check().status == "warn"
