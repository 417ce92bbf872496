"""The commands: what they do, what they print, and their exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rapidadapt_lessons import cli
from rapidadapt_lessons.errors import CourseError, NotEnoughDisk
from rapidadapt_lessons.lm import download
from rapidadapt_lessons.setup import doctor
from rapidadapt_lessons.setup import learn2learn as l2l
from rapidadapt_lessons.setup.doctor import Check

GOOD, BAD = Check("good", "ok", "1.0"), Check("model", "fail", "[b]M[/b] is not in ~/cache", "run setup")


@pytest.fixture
def machine(monkeypatch):
    """A machine whose state the test sets; `done` lists what was built and fetched."""

    class Machine:
        learn2learn: str | None = l2l.VERSION
        model = "ok"
        done: list[str] = []

    state = Machine()
    state.done = []
    folder = Path.home() / "cache" / "M"

    def build():
        state.done.append("learn2learn")

    def ensure_model(*, progress):
        state.done.append(f"model, progress={progress}")
        return folder

    monkeypatch.setattr(l2l, "installed_version", lambda: state.learn2learn)
    monkeypatch.setattr(l2l, "build", build)
    monkeypatch.setattr(download, "check_model", lambda **_: download.ModelStatus(state.model, folder, 0, ""))
    monkeypatch.setattr(download, "ensure_model", ensure_model)
    return state


def test_setup_builds_and_fetches_what_is_missing(machine, capsys):
    machine.learn2learn, machine.model = None, "missing"
    assert cli.main(["setup"]) == 0
    assert machine.done == ["learn2learn", "model, progress=True"]
    said = capsys.readouterr().out
    assert "Building learn2learn 0.2.0" in said and f"Fetching {download.DEFAULT_MODEL}" in said
    assert str(Path("~/cache/M")) in said and str(Path.home()) not in said


def test_setup_on_a_machine_that_is_set_up_builds_nothing(machine, capsys):
    assert cli.main(["setup"]) == 0
    assert "learn2learn" not in machine.done
    said = capsys.readouterr().out
    assert "Building" not in said and "Fetching" not in said and "Set up" in said


def test_a_course_error_is_one_message_without_traceback_and_exit_status_2(machine, monkeypatch, capsys):
    def full(*, progress):
        raise NotEnoughDisk("the disk has 12 MB free.", "free some space.")

    monkeypatch.setattr(download, "ensure_model", full)
    assert cli.main(["setup"]) == 2
    assert capsys.readouterr().err == "Error: the disk has 12 MB free.\nWhat to do: free some space.\n"


def test_a_bug_is_not_hidden(machine, monkeypatch):
    monkeypatch.setattr(l2l, "installed_version", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["setup"])


@pytest.mark.parametrize(
    ("checks", "status"), [([GOOD], 0), ([GOOD, Check("x", "warn", "y", "z")], 0), ([GOOD, BAD], 1)]
)
def test_doctors_exit_status_says_whether_a_lesson_is_blocked(monkeypatch, capsys, checks, status):
    monkeypatch.setattr(doctor, "run_checks", lambda: checks)
    assert cli.main(["doctor"]) == status
    assert doctor.summary(checks) in capsys.readouterr().out


def test_doctor_shows_every_check_value_and_remedy_as_they_are(monkeypatch, capsys):
    warning = Check("slow", "warn", "0.5 GB", "close <things>.")
    monkeypatch.setattr(doctor, "run_checks", lambda: [GOOD, warning, BAD])
    cli.main(["doctor"])
    said = capsys.readouterr().out
    assert all(check.name in said and check.detail in said for check in (GOOD, warning, BAD))
    assert "What to do: run setup." in said and "close <things>. " in said


def test_doctor_as_json(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "run_checks", lambda: [GOOD, BAD])
    assert cli.main(["doctor", "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first == {"name": "good", "status": "ok", "detail": "1.0", "remedy": ""}
    assert second["status"] == "fail" and second["remedy"] == "run setup"


@pytest.mark.parametrize("arguments", [["no-such-command"], ["doctor", "--no-such-option"]])
def test_a_command_line_that_makes_no_sense_is_named(arguments, capsys):
    assert cli.main(arguments) == 2
    assert arguments[-1] in capsys.readouterr().err


def test_the_module_can_be_run():
    done = subprocess.run([sys.executable, "-m", "rapidadapt_lessons", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "setup" in done.stdout and "doctor" in done.stdout


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run_checks", interrupted)
    assert cli.main(["doctor"]) == 130
    said = capsys.readouterr()
    assert said.err.strip() == "Interrupted." and not said.out


def test_the_help_of_adapt_names_the_limits_that_hold(capsys):
    assert cli.main(["adapt", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "8 to 2000 text pairs" in said and "comes on top" in said and "starts anew" in said
    assert "goes on" not in said and "unfinished" not in said


def test_course_error_from_doctor(monkeypatch, capsys):
    def broken():
        raise CourseError("the list of packages is nowhere.", "install the course.")

    monkeypatch.setattr(doctor, "run_checks", broken)
    assert cli.main(["doctor"]) == 2
    assert "nowhere" in capsys.readouterr().err
