"""Each check says what it found, with the value, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from rapidadapt_lessons.errors import MissingPackage
from rapidadapt_lessons.lm import download, model
from rapidadapt_lessons.setup import doctor, learn2learn
from rapidadapt_lessons.setup.doctor import Check

Usage = namedtuple("Usage", "total used free")
GOOD, WARNING = Check("good", "ok", "1.0"), Check("slow", "warn", "0.5 GB", "close <things>.")
BAD = Check("bad", "fail", "not there", "install it")


def model_is(monkeypatch, state: str, detail: str = "", path: Path | None = None, size: int = 542_000_000) -> None:
    status = download.ModelStatus(state, path or Path.home() / "cache" / "M", size, detail)
    monkeypatch.setattr(download, "check_model", lambda **_: status)


def test_everything_is_checked_once_and_well_on_a_machine_that_is_set_up(monkeypatch):
    model_is(monkeypatch, "ok")
    checks = doctor.run_checks()
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"Python", "torch", "learn2learn", "model", "device", "free memory", "free disk", "network"} <= set(names)
    assert [check for check in checks if check.status == "fail"] == []
    assert all(bool(check.remedy) == (check.status != "ok") for check in checks)


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.1")
    check = doctor.python_check()
    assert (check.status, check.detail) == ("fail", "3.10.1")
    assert "3.11" in check.remedy


def test_a_missing_package_fails():
    check = doctor.package_check("no-such-package>=1.2,<2")
    assert (check.name, check.status) == ("no-such-package", "fail")
    assert "not installed" in check.detail and ">=1.2" in check.detail
    assert "requirements.lock" in check.remedy


@pytest.mark.parametrize(
    ("found", "status"),
    [("0.9", "warn"), ("1.0", "ok"), ("1.9.9", "ok"), ("1.5+cpu", "ok"), ("1.5rc1", "ok"), ("2.0", "warn")],
)
def test_a_package_is_held_to_its_range(monkeypatch, found, status):
    monkeypatch.setattr(metadata, "version", lambda name: found)
    check = doctor.package_check("thing>=1.0,<2")
    assert check.status == status
    assert found in check.detail
    assert (status == "ok") or (">=1.0" in check.detail and check.remedy)


def test_requirements_come_from_what_pip_recorded_when_there_is_no_pyproject(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "package" / "doctor.py"))
    recorded = ["numpy>=2", 'pytest>=9; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: recorded)
    assert doctor.requirements() == ["numpy>=2"]


def test_requirements_that_are_nowhere_are_an_error(monkeypatch, tmp_path):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "package" / "doctor.py"))
    monkeypatch.setattr(metadata, "requires", absent)
    with pytest.raises(MissingPackage, match="rapidadapt-lessons"):
        doctor.requirements()


def test_learn2learn_that_cannot_be_imported_fails(monkeypatch):
    def broken():
        raise MissingPackage("learn2learn 0.2.0 is not installed.", "build it")

    monkeypatch.setattr(learn2learn, "import_maml", broken)
    assert doctor.learn2learn_check() == Check("learn2learn", "fail", "learn2learn 0.2.0 is not installed.", "build it")


def test_another_learn2learn_is_a_warning(monkeypatch):
    monkeypatch.setattr(learn2learn, "import_maml", lambda: object)
    monkeypatch.setattr(learn2learn, "installed_version", lambda: "0.1.7")
    check = doctor.learn2learn_check()
    assert check.status == "warn"
    assert "0.1.7" in check.detail and "0.2.0" in check.detail and "setup" in check.remedy


def test_a_model_that_is_there_is_told_with_size_and_place(monkeypatch):
    model_is(monkeypatch, "ok")
    check = doctor.model_check()
    assert check.status == "ok"
    assert download.DEFAULT_MODEL in check.detail and "542 MB" in check.detail
    assert str(Path("~/cache/M")) in check.detail and str(Path.home()) not in check.detail


@pytest.mark.parametrize(
    ("state", "word", "remedy"), [("missing", "not in", "fetches"), ("damaged", "wrong sum", "replaces")]
)
def test_a_model_that_is_missing_or_damaged_fails(monkeypatch, state, word, remedy):
    model_is(monkeypatch, state, "wrong sum in model.safetensors")
    check = doctor.model_check()
    assert check.status == "fail"
    assert download.DEFAULT_MODEL in check.detail and word in check.detail and str(Path("~/cache/M")) in check.detail
    assert "python -m rapidadapt_lessons setup" in check.remedy and remedy in check.remedy


def test_a_byte_that_changed_on_disk_is_found(monkeypatch, tmp_path):
    """The real check, on a real folder in which one byte changed and the modification time did not."""
    folder = tmp_path / download.DEFAULT_MODEL
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    download._write_manifest(folder, download.SMOLLM2)
    monkeypatch.setenv("RAPIDADAPT_CACHE", str(tmp_path))
    assert doctor.model_check().status == "ok"
    written = (folder / "model.safetensors").stat()
    (folder / "model.safetensors").write_bytes(b"weighty")
    os.utime(folder / "model.safetensors", ns=(written.st_atime_ns, written.st_mtime_ns))
    check = doctor.model_check()
    assert check.status == "fail" and "model.safetensors" in check.detail


@pytest.fixture
def denied(monkeypatch, tmp_path):
    """A cache below a folder that may not be entered; for root, who may enter any, by way of `os.stat`."""
    inside = tmp_path / "locked" / "cache"
    (inside / download.DEFAULT_MODEL).mkdir(parents=True)
    monkeypatch.setenv("RAPIDADAPT_CACHE", str(inside))
    stat = os.stat

    def guarded(path, *arguments, **options):
        if not isinstance(path, int) and Path(path).is_relative_to(inside):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", guarded)


def test_a_disk_whose_cache_may_not_be_looked_at_is_told_and_no_error(denied):
    assert doctor.disk_check().name == "free disk"


def test_a_model_that_may_not_be_read_is_not_called_damaged(denied):
    check = doctor.model_check()
    assert check.status == "fail" and "may not be read" in check.detail and "damaged" not in check.detail
    assert check.remedy == "ask for read rights, or name another folder in RAPIDADAPT_CACHE"


@pytest.mark.parametrize(
    ("free", "status"), [(2_000_000_000, "ok"), (1_999_999_999, "warn"), (1_000_000_000, "warn"), (900_000_000, "fail")]
)
def test_memory(monkeypatch, free, status):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    check = doctor.memory_check()
    assert check.status == status
    assert f"{free / 1e9:.1f} GB" in check.detail
    assert bool(check.remedy) == (status != "ok")


@pytest.mark.parametrize(("state", "status"), [("missing", "fail"), ("ok", "ok")])
def test_a_full_disk_fails_unless_the_model_is_there_already(monkeypatch, tmp_path, state, status):
    monkeypatch.setenv("RAPIDADAPT_CACHE", str(tmp_path / "not" / "made" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**8, 10**8))
    model_is(monkeypatch, state)
    check = doctor.disk_check()
    assert check.status == status
    assert "0.1 GB" in check.detail
    if status == "fail":
        assert "0.9 GB" in check.detail and "RAPIDADAPT_CACHE" in check.remedy


def test_looking_at_the_disk_makes_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RAPIDADAPT_CACHE", str(tmp_path / "new"))
    assert doctor.disk_check().name == "free disk"
    assert list(tmp_path.iterdir()) == []


def test_the_device_is_named(monkeypatch):
    import torch

    monkeypatch.setattr(model, "pick_device", lambda name: torch.device("cpu"))
    assert doctor.device_check().detail.startswith("cpu, ")
    monkeypatch.setattr(model, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert doctor.device_check() == Check("device", "ok", "cuda: Some GPU")


def test_a_torch_that_does_not_load_fails(monkeypatch):
    def broken(name):
        raise OSError("libtorch.so is missing")

    monkeypatch.setattr(model, "pick_device", broken)
    check = doctor.device_check()
    assert check.status == "fail" and "libtorch.so" in check.detail and check.remedy


def test_the_network_is_needed_only_for_what_is_absent():
    assert doctor.network_check([GOOD, WARNING]).status == "ok"
    assert "not needed" in doctor.network_check([GOOD]).detail
    needed = doctor.network_check([GOOD, BAD])
    assert needed.status == "warn" and "bad" in needed.detail and "setup" in needed.remedy
    assert doctor.network_check([Check("free memory", "fail", "0.1 GB", "close")]).status == "ok"


def test_summary():
    assert doctor.summary([GOOD, GOOD]) == "All checks passed: ready."
    assert doctor.summary([GOOD, WARNING]) == "Ready, with something to know about: slow."
    assert doctor.summary([GOOD, WARNING, BAD]) == "1 of 3 checks failed: bad."


def test_a_path_outside_the_home_folder_is_shown_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "me")
    assert doctor.short_path(tmp_path / "me" / "cache") == str(Path("~/cache"))
    assert doctor.short_path(tmp_path / "other") == str(tmp_path / "other")
