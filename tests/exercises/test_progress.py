"""Progress: written whole or not at all, never lost, and shown and exported as it is."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
from filelock import FileLock

from rapidadapt_lessons import cli, learner
from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.exercises import progress
from rapidadapt_lessons.exercises.catalogue import EXERCISES


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new folder" / "progress.json"


def test_tries_are_counted_and_solved_stays_solved(file):
    for solved in (False, True, False):
        assert progress.record("lora.scaling", solved, file) == ""
    entry = progress.read_progress(file)["lora.scaling"]
    assert entry["tries"] == 3 and entry["first_tried"] <= entry["solved"] <= entry["last_tried"]
    assert '"lora.scaling": {\n' in file.read_text(), "people should be able to read the file"


def test_nothing_is_there_before_the_first_try(file):
    assert progress.read_progress(file) == {}
    assert not file.parent.exists()


WRITER = """
import sys
from pathlib import Path
from rapidadapt_lessons.exercises import progress
for i in range(25):
    assert progress.record(sys.argv[2], False, Path(sys.argv[1])) == ""
"""


def test_several_notebooks_at_once_lose_nothing(file):
    """Two write the same exercise, and a third another one."""
    names = ("lora.scaling", "lora.scaling", "lora.merge")
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in names]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    entries = progress.read_progress(file)
    assert entries["lora.scaling"]["tries"] == 50 and entries["lora.merge"]["tries"] == 25


def test_a_lock_that_is_held_for_long_is_told(file, monkeypatch):
    monkeypatch.setattr(learner, "LOCK_SECONDS", 0.1)
    file.parent.mkdir()
    with FileLock(f"{file}.lock"):
        assert "another program holds progress.json.lock" in progress.record("lora.scaling", True, file)
    assert progress.record("lora.scaling", True, file) == ""


DAMAGED = {
    "cut off": b'{"format": 1, "exercises": {"lora.scal',
    "empty": b"",
    "a list": b"[]",
    "no exercises": b'{"format": 1}',
    "not UTF-8": b'{"exercises": {"\xff": 1}}',
    "an entry without tries": b'{"exercises": {"lora.scaling": {"solved": null}}}',
    "a number for a time": b'{"exercises": {"lora.scaling": {"tries": 1, "solved": 3}}}',
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_kept_aside_and_told(file, what):
    file.parent.mkdir()
    for number in (1, 2):
        file.write_bytes(DAMAGED[what])
        note = progress.record("lora.merge", True, file)
        aside = file.with_name(f"progress.damaged-{number}.json")
        assert aside.read_bytes() == DAMAGED[what] and str(aside) in note
        assert list(progress.read_progress(file)) == ["lora.merge"]


@pytest.mark.parametrize("what", DAMAGED)
def test_reading_a_damaged_file_says_so_and_leaves_it(file, what):
    file.parent.mkdir()
    file.write_bytes(DAMAGED[what])
    with pytest.raises(CourseError, match="cannot be read"):
        progress.read_progress(file)
    shown = progress.panel(file)
    assert "cannot be read" in repr(shown) and "0 of 25 done" in repr(shown)
    assert file.read_bytes() == DAMAGED[what]


def test_a_disk_that_fills_up_leaves_the_old_file(file, monkeypatch):
    progress.record("lora.scaling", True, file)
    before = file.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in progress.record("lora.merge", True, file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir() if path.suffix != ".lock") == ["progress.json"]


def test_where_progress_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(learner.VARIABLE)
    assert learner.progress_file().name == "progress.json" and "rapidadapt-lessons" in str(learner.progress_file())
    monkeypatch.setenv(learner.VARIABLE, str(tmp_path / "mine.json"))
    assert learner.progress_file() == tmp_path / "mine.json"
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert learner.progress_file() is None
    monkeypatch.delenv("NBGRADER_EXECUTION")
    (tmp_path / ".no-progress").write_text("")
    assert learner.progress_file() is None
    (tmp_path / ".no-progress").unlink()
    monkeypatch.setenv(learner.VARIABLE, "off")
    assert learner.progress_file() is None and progress.record("lora.scaling", True) == ""
    assert "not kept here" in repr(progress.panel())


def test_the_panel_says_what_is_done_tried_and_next(file):
    first, second, third = (exercise.name for exercise in EXERCISES[:3])
    progress.record(first, True, file)
    progress.record(third, False, file)
    shown = progress.panel(file)
    assert shown.next == second
    assert [shown.states[name] for name in (first, second, third)] == ["done", "to do", "tried"]
    text, html = repr(shown), shown._repr_html_()
    assert "Exercises: 1 of 25 done, 1 more tried." in text and "Exercises: 1 of 25 done, 1 more tried." in html
    assert f"[x] {first}  [ ] {second}" in text and f"[~] {third}" in text and EXERCISES[1].title in text
    assert f"✓ {first} (done)" in html and f"… {third} (tried)" in html
    assert text.isascii(), "not every console knows other signs"


def test_the_panel_when_all_is_done(file):
    for exercise in EXERCISES:
        progress.record(exercise.name, True, file)
    assert progress.panel(file).next is None and "All done." in repr(progress.panel(file))


def test_names_that_are_no_exercises_of_today_do_no_harm(file):
    progress.record("an.old.exercise", True, file)
    assert "0 of 25 done" in repr(progress.panel(file))


def rows(path):
    with open(path, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_export_has_a_row_for_each_exercise(file, tmp_path):
    progress.record("lora.scaling", False, file)
    progress.record("lora.scaling", True, file)
    progress.record("lora.merge", False, file)
    found = rows(progress.export_csv(tmp_path / "out.csv", "Ada, L.", file))
    assert [row["exercise"] for row in found] == [exercise.name for exercise in EXERCISES]
    by_name = {row["exercise"]: row for row in found}
    assert {row["learner"] for row in found} == {"Ada, L."}
    done, tried, todo = (by_name[name] for name in ("lora.scaling", "lora.merge", "maml.meta_loss"))
    assert (done["state"], done["tries"]) == ("done", "2") and done["solved"]
    assert (tried["state"], tried["tries"], tried["solved"]) == ("tried", "1", "")
    assert (todo["state"], todo["tries"], todo["first_tried"]) == ("to do", "0", "")


def test_an_export_that_cannot_be_written_is_told(file, tmp_path):
    with pytest.raises(CourseError, match="cannot be written"):
        progress.export_csv(tmp_path / "no folder" / "out.csv", "", file)


def test_the_command_shows_and_exports(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(learner.VARIABLE, str(file))
    progress.record(EXERCISES[0].name, True)
    assert cli.main(["progress"]) == 0
    assert "1 of 25 done" in capsys.readouterr().out
    assert cli.main(["progress", "--export", str(tmp_path / "out.csv"), "--learner", "Ada"]) == 0
    assert "Written: " in capsys.readouterr().out and rows(tmp_path / "out.csv")[0]["learner"] == "Ada"
    file.write_text("{")
    assert cli.main(["progress", "--export", str(tmp_path / "out.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err
