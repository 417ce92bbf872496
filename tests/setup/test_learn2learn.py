"""learn2learn through its one door: MAML works, nothing unneeded is imported, failures leave no trace."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from rapidadapt_lessons.errors import CourseError, DownloadFailed, MissingPackage
from rapidadapt_lessons.setup import learn2learn as l2l


def ours() -> dict:
    """Return what `sys.modules` holds of learn2learn."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "learn2learn"}


@pytest.fixture
def not_imported():
    """Take learn2learn out of `sys.modules` for the test, and put back what was there after it."""
    kept = ours()
    for name in kept:
        del sys.modules[name]
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture
def fake_learn2learn(tmp_path, monkeypatch, not_imported):
    """Return a function that puts a package named learn2learn, with the given maml.py, first on the path."""

    def write(maml: str, init: str = "raise ImportError('torchvision')\n") -> None:
        (tmp_path / "learn2learn" / "algorithms").mkdir(parents=True)
        (tmp_path / "learn2learn" / "__init__.py").write_text(init)
        (tmp_path / "learn2learn" / "algorithms" / "__init__.py").write_text(init)
        (tmp_path / "learn2learn" / "algorithms" / "maml.py").write_text(maml)
        (tmp_path / "learn2learn" / "algorithms" / "helper.py").write_text("x = 1\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    return write


class Recorder:
    """Stands in for `subprocess.Popen`: remembers the commands, and each says the same and ends in the same way."""

    def __init__(self, said: str = "", returncode: int = 0):
        self.commands, self.environments = [], []
        self.stdout, self.returncode = [said], returncode

    def __call__(self, command, *, env, **_):
        self.commands.append(command)
        self.environments.append(env)
        return nullcontext(self)


@pytest.mark.parametrize("first_order", [False, True])
def test_one_inner_step_gives_the_analytic_meta_gradient(first_order):
    """With prediction wx, inner loss (wa-b)²/2 and outer loss (w'c-d)²/2, where w' = w - r·a(wa-b):

    d outer / dw = c(w'c-d)·(1 - r·a²), and without second derivatives just c(w'c-d).
    """
    w, rate, a, b, c, d = 0.7, 0.1, 2.0, -1.0, 1.5, 0.5
    linear = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(linear.weight, w)
    maml = l2l.import_maml()(linear, lr=rate, first_order=first_order)
    learner = maml.clone()
    x, query = torch.tensor([[a]], dtype=torch.float64), torch.tensor([[c]], dtype=torch.float64)
    learner.adapt((learner(x) - b).square().sum() / 2)
    adapted = w - rate * a * (w * a - b)
    assert learner.module.weight.item() == pytest.approx(adapted, abs=1e-12)
    ((learner(query) - d).square().sum() / 2).backward()
    expected = c * (adapted * c - d) * (1 if first_order else 1 - rate * a**2)
    assert linear.weight.grad.item() == pytest.approx(expected, abs=1e-12)
    assert linear.weight.item() == w


def test_importing_maml_needs_neither_torchvision_nor_gym():
    """Both are made impossible to import, whether they are installed or not."""
    code = (
        "import json, sys\n"
        "for name in ('torchvision', 'gym', 'qpth', 'pytorch_lightning'): sys.modules[name] = None\n"
        "from rapidadapt_lessons.setup import learn2learn as l2l\n"
        "l2l.import_maml()\n"
        "print(json.dumps(sorted(name for name, module in sys.modules.items() if module)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout))
    assert "learn2learn.algorithms.maml" in loaded
    assert loaded & {"torchvision", "gym", "learn2learn.vision", "learn2learn.gym", "learn2learn.data"} == set()


def test_two_calls_return_the_same():
    assert l2l.import_maml() is l2l.import_maml()


def test_the_documented_path_to_maml_works_afterwards_and_other_names_explain_themselves(not_imported):
    maml = l2l.import_maml()
    import learn2learn

    assert learn2learn.algorithms.MAML is maml
    assert not hasattr(learn2learn, "vision")
    with pytest.raises(AttributeError, match=r"learn2learn\.vision is not loaded.*MAML only"):
        _ = learn2learn.vision


def test_a_learn2learn_that_was_imported_in_full_is_used_as_it_is(fake_learn2learn):
    fake_learn2learn("class MAML: pass\n", init="")
    full = importlib.import_module("learn2learn")
    maml = importlib.import_module("learn2learn.algorithms.maml").MAML
    assert l2l.import_maml() is maml
    assert sys.modules["learn2learn"] is full


def test_missing_learn2learn_is_told_with_a_remedy(monkeypatch, not_imported):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"learn2learn 0\.2\.0 is not installed") as caught:
        l2l.import_maml()
    assert "python -m rapidadapt_lessons setup" in caught.value.remedy
    assert ours() == {}


@pytest.mark.parametrize(
    ("maml", "named"),
    [
        ("import learn2learn.algorithms.helper\nimport no_such_module\n", "no_such_module"),
        ("import learn2learn.algorithms.helper\nraise RuntimeError('broken on purpose')\n", "broken on purpose"),
        ("pass\n", "MAML"),
    ],
)
def test_a_failed_import_leaves_nothing_half_done(fake_learn2learn, maml, named):
    fake_learn2learn(maml)
    with pytest.raises(MissingPackage, match=named) as caught:
        l2l.import_maml()
    assert "doctor" in caught.value.remedy
    assert ours() == {}


def test_a_failed_import_leaves_what_was_imported_before(fake_learn2learn):
    fake_learn2learn("raise RuntimeError('broken on purpose')\n", init="")
    before = {"learn2learn": importlib.import_module("learn2learn")}
    with pytest.raises(MissingPackage, match="broken on purpose"):
        l2l.import_maml()
    assert ours() == before


def test_build_does_nothing_when_the_version_is_there(monkeypatch):
    pip = Recorder()
    monkeypatch.setattr(subprocess, "Popen", pip)
    monkeypatch.setattr(l2l, "installed_version", lambda: l2l.VERSION)
    l2l.build()
    assert pip.commands == []


def test_build_has_cython_regenerate_and_leaves_dependencies_out(monkeypatch):
    pip = Recorder()
    answers = iter([None, l2l.VERSION])
    monkeypatch.setattr(subprocess, "Popen", pip)
    monkeypatch.setattr(l2l, "installed_version", lambda: next(answers))
    monkeypatch.setattr(l2l, "compiler_problem", lambda: None)
    l2l.build()
    tools, package = pip.commands
    assert tools[:4] == package[:4] == [sys.executable, "-m", "pip", "install"]
    assert set(l2l.BUILD_TOOLS) <= set(tools)
    assert {"--no-deps", "--no-build-isolation", "-C--global-option=build_ext", "learn2learn==0.2.0"} <= set(package)
    assert pip.environments[1]["CYTHON_FORCE_REGEN"] == "1"


@pytest.mark.parametrize(
    ("said", "kind", "named", "remedy"),
    [
        ("ERROR: No matching distribution found for learn2learn==0.2.0", DownloadFailed, "No matching", "connection"),
        ("error: command 'cc' failed with exit code 1", CourseError, "exit code 1", "ompiler|xcode|Visual"),
        ("python: No module named pip", MissingPackage, "no pip", "ensurepip"),
    ],
)
def test_a_failed_build_says_why_and_what_to_do(monkeypatch, said, kind, named, remedy):
    monkeypatch.setattr(subprocess, "Popen", Recorder(said, returncode=1))
    monkeypatch.setattr(l2l, "installed_version", lambda: None)
    monkeypatch.setattr(l2l, "compiler_problem", lambda: None)
    with pytest.raises(CourseError, match=named) as caught:
        l2l.build()
    assert type(caught.value) is kind
    assert any(word in caught.value.remedy for word in remedy.split("|"))


def test_a_build_that_lands_elsewhere_is_noticed(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Recorder())
    monkeypatch.setattr(l2l, "installed_version", lambda: None)
    monkeypatch.setattr(l2l, "compiler_problem", lambda: None)
    with pytest.raises(MissingPackage, match="nowhere"):
        l2l.build()


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is on no path there")
def test_no_compiler_is_told_before_anything_is_run(monkeypatch):
    pip = Recorder()
    monkeypatch.setattr(subprocess, "Popen", pip)
    monkeypatch.setattr(l2l, "installed_version", lambda: None)
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(CourseError, match="'no-such-compiler'") as caught:
        l2l.build()
    assert "ompiler" in caught.value.remedy or "xcode" in caught.value.remedy
    assert pip.commands == []


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is on no path there")
def test_missing_python_headers_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(l2l.sysconfig, "get_path", lambda name: str(tmp_path))
    problem = l2l.compiler_problem()
    assert str(tmp_path) in problem.problem and "Python.h" in problem.problem
    assert "-dev" in problem.remedy


def test_installed_version_is_none_when_absent(monkeypatch):
    def absent(name):
        raise l2l.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(l2l.metadata, "version", absent)
    assert l2l.installed_version() is None
