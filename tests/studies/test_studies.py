"""Studies: rows that are whole, kept through a kill, checked again, and refused when altered."""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import runner as run
from scipy import stats

from rapidadapt_lessons.errors import CourseError
from rapidadapt_lessons.studies import gain, load, records
from rapidadapt_lessons.studies.records import recorded
from tests.studies.toy import STUDY, line

TOY = Path(__file__).with_name("toy.py")
ROOT = TOY.parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "studies")])}


def started(folder: Path, *options: object) -> subprocess.Popen:
    command = [sys.executable, str(TOY), str(folder), *map(str, options)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


@pytest.fixture
def computed(tmp_path) -> Path:
    run.compute(STUDY, str(TOY), tmp_path / "toy.csv", processes=1)
    return tmp_path / "toy.csv"


def test_rows_are_tidy_and_the_header_says_where_they_come_from(computed):
    found = load("toy", folder=computed.parent)
    assert list(found.rows.columns) == ["slope", "kind", "seed", "metric", "value", "seconds"]
    assert len(found.rows) == 4 * 5 * 2 and found.seeds == [0, 1, 2, 3, 4]
    assert found.values("height", slope=1.0, kind="bb").tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]
    tuned = found.tuned("height", over=("slope",), lowest=False)
    assert tuned.rows.query("kind == 'a'")["slope"].unique().tolist() == [1.0]
    assert found.header["script"] == "studies/toy.py" and found.header["runs"] == "20 of 20"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.header["date"]) and "torch 2." in found.header["versions"]


def test_two_processes_compute_what_one_does(computed, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with started(other) as done:
        assert done.wait(120) == 0, done.stderr.read()
        assert "20 of 20 runs to do" in done.stdout.read()
    one, two = load("toy", folder=computed.parent).rows, load("toy", folder=other).rows
    assert one.drop(columns="seconds").equals(two.drop(columns="seconds"))


def test_a_killed_study_goes_on_and_no_row_is_lost_or_doubled(tmp_path):
    with started(tmp_path, "--processes", 1) as first:
        path = tmp_path / "toy.csv"
        deadline = time.monotonic() + 100
        while not (path.exists() and path.read_text().count("height") >= 4):
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
    done = len(load("toy", folder=tmp_path, partial=True).rows) // 2
    with pytest.raises(CourseError, match=rf"has {done} of 20 runs"):
        load("toy", folder=tmp_path)
    with started(tmp_path, "--processes", 1) as second:
        assert second.wait(120) == 0
        assert f"{20 - done} of 20 runs to do" in second.stdout.read()
    rows = load("toy", folder=tmp_path).rows
    assert len(rows) == 40 and not rows.duplicated(["slope", "kind", "seed", "metric"]).any()
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".part")] == ["toy.csv"]


def test_a_disk_that_fills_up_leaves_the_rows_that_were_there(computed, monkeypatch, capsys):
    before = computed.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "write_whole", full)
    assert run.main(STUDY, str(TOY), ["--processes", "1", "--anew"], computed.parent) == 1
    told = capsys.readouterr().err
    assert "toy.csv cannot be read or written: No space left on device" in told and "What to do: make room" in told
    assert computed.read_bytes() == before


def test_a_value_changed_by_hand_is_caught_by_loading_and_by_checking(computed, capsys):
    text = computed.read_text()
    changed = re.sub(r"^1\.0,bb,4,height,6\.0", "1.0,bb,4,height,9.0", text, flags=re.MULTILINE)
    assert changed != text
    computed.write_text(changed)
    with pytest.raises(CourseError, match="altered"):
        load("toy", folder=computed.parent)
    head, _, body = changed.partition("slope,")  # and with the digest made to fit
    head = re.sub("# rows: .*", f"# rows: {records.digest('slope,' + body)}", head)
    computed.write_text(head + "slope," + body)
    assert load("toy", folder=computed.parent).values("height", slope=1.0, kind="bb")[4] == 9.0
    assert run.main(STUDY, str(TOY), ["--check", "--sample", "20"], computed.parent) == 1
    assert "height 9 recorded, 6 now: DIFFERENT" in capsys.readouterr().out


def test_a_check_of_what_is_as_recorded_passes(computed, capsys):
    assert run.main(STUDY, str(TOY), ["--check", "--sample", "3", "--draw", "7"], computed.parent) == 0
    assert capsys.readouterr().out.count(": same") == 6
    assert run.main(STUDY, str(TOY), ["--check", "--quick"], computed.parent) == 0  # no quick study
    assert capsys.readouterr().out == ""


def test_rows_of_another_version_of_the_script_are_refused(computed, tmp_path, capsys):
    script = tmp_path / "toy.py"
    script.write_text('"""Another docstring."""\n\n# a comment\n' + TOY.read_text().split('"""', 2)[2])
    assert run.main(STUDY, str(script), [], computed.parent) == 0, "comments and docstrings do not count"
    script.write_text(TOY.read_text().replace("-0.1 * seed", "-0.2 * seed"))
    for arguments in ([], ["--check"]):
        assert run.main(STUDY, str(script), arguments, computed.parent) == 1
        assert "another version of toy.py" in capsys.readouterr().err
    assert run.main(STUDY, str(script), ["--anew", "--processes", "1"], computed.parent) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("# format: 1", "# format: 2"), "of format 2"),
        (lambda text: text.partition("slope,")[2], "without a header"),
        (lambda text: re.sub("# date: .*\n", "", text), "lacks date"),
        (lambda text: text[: len(text) - 40], "altered"),
        (lambda text: text + "1.0,a,9,height,1.0,0.1\n", "altered"),
    ],
)
def test_a_damaged_file_is_refused(computed, change, words):
    computed.write_text(change(computed.read_text()))
    with pytest.raises(CourseError, match=words) as caught:
        load("toy", folder=computed.parent)
    assert "--anew" in caught.value.remedy


def test_an_unknown_study_setting_or_metric_is_named(computed):
    with pytest.raises(CourseError, match="no study 'toys' is recorded") as caught:
        load("toys", folder=computed.parent)
    assert "toy" in caught.value.remedy
    found = load("toy", folder=computed.parent)
    for metric, where, words in (("width", {}, "no row"), ("height", {"slope": 1.0}, "several rows of one seed")):
        with pytest.raises(CourseError, match=words):
            found.values(metric, **where)
    with pytest.raises(CourseError, match="no setting 'colour'"):
        found.values("height", colour="red")
    with pytest.raises(CourseError, match="no setting 'colour'"):
        found.tuned("height", over=("colour",))


def test_values_come_nested_for_a_figure(computed):
    found = load("toy", folder=computed.parent)
    nested = found.nested("height", "kind", "slope")
    assert nested["bb"][1.0] == found.values("height", kind="bb", slope=1.0).tolist() and len(nested["bb"][1.0]) == 5
    assert found.nested("height", "slope", kind="bb") == nested["bb"]
    assert found.nested("height", "kind", "slope", slope=(1.0, 7.0)) == {k: {1.0: v[1.0]} for k, v in nested.items()}
    with pytest.raises(CourseError, match="no setting 'colour'"):
        found.nested("height", "colour")
    with pytest.raises(CourseError, match="no row"):
        found.nested("width", "kind")
    with pytest.raises(CourseError, match="several rows of one seed"):  # one setting was left out
        found.nested("height", "kind")


def test_tuned_runs_are_those_that_are_best_on_validation_for_each_of_the_other_settings():
    """By validation a wants lr 1 and b lr 2, where its test is worse; at lr 3 one seed of b diverged."""
    validation = {("a", 1): (3, 5), ("a", 2): (2, 4), ("b", 1): (1, 1), ("b", 2): (2, 2), ("b", 3): (9, math.nan)}
    rows = [
        {"method": method, "lr": lr, "seed": seed, "metric": metric, "value": value, "seconds": 0.1}
        for (method, lr), values in validation.items()
        for seed, found in enumerate(values)
        for metric, value in (("validation", found), ("test", -found))
    ]
    tuned = records.Records({"study": "x"}, pd.DataFrame(rows)).tuned("validation", over=("lr",), lowest=False)
    assert tuned.nested("test", "method") == {"a": [-3, -5], "b": [-2, -2]}
    assert tuned.rows["lr"].unique().tolist() == [1, 2] and tuned.header == {"study": "x"}
    lowest = tuned.tuned("test", over=("method", "lr"))
    assert lowest.values("validation").tolist() == [3, 5]
    with pytest.raises(CourseError, match="no setting 'colour'"):
        tuned.nested("test", "colour")


def test_a_study_needs_five_seeds_and_settings_alike():
    with pytest.raises(CourseError, match="4 seeds"):
        run.Study("x", "?", line, [{"a": 1}], 1.0, {}, seeds=4)
    for settings in ([{"a": 1}, {"b": 1}], [{"seed": 1}]):
        with pytest.raises(CourseError, match="have the keys"):
            run.Study("x", "?", line, settings, 1.0, {})


@pytest.mark.parametrize("name", recorded())
def test_every_recorded_study_is_whole_and_has_its_script(name):
    found = load(name)
    assert (ROOT / found.header["script"]).is_file() and len(found.seeds) >= 5
    assert found.header["code"] == run.code_digest(ROOT / found.header["script"]), "compute it again: --anew"


def test_means_are_over_all_runs_of_a_seed(computed):
    found = load("toy", folder=computed.parent)
    both = [found.values("height", kind=kind, slope=1.0) for kind in ("a", "bb")]
    means = found.means("height", slope=1.0)
    assert means.tolist() == pytest.approx((sum(both) / 2).tolist()) and list(means.index) == found.seeds
    assert found.means("height", slope=1.0, kind=("bb",)).equals(both[1])
    with pytest.raises(CourseError, match="no row of 'toy'"):
        found.means("width")
    first = found.rows.index[(found.rows["metric"] == "height") & (found.rows["seed"] == 0)][0]
    diverged = replace(found, rows=found.rows.assign(value=found.rows["value"].mask(found.rows.index == first)))
    assert math.isnan(diverged.means("height")[0]) and not math.isnan(diverged.means("height")[1])


def test_a_gain_is_the_mean_of_paired_differences_with_students_interval():
    before, after = pd.Series([0.1, 0.5, 0.3], [0, 1, 2]), pd.Series([0.2, 0.7, 0.6], [0, 1, 2])
    low, high = stats.ttest_1samp([0.1, 0.2, 0.3], 0).confidence_interval(0.95)
    assert gain(after, before) == f"+0.20 ({low:+.2f} to {high:+.2f})"
    assert gain(before, after).startswith("-0.20 (-")
    with pytest.raises(CourseError, match="seeds are"):
        gain(after, before[:2])
