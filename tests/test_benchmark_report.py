"""The report of speed and memory: its sums are right, the README shows what it says, and nothing is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import imported_benchmark

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def report():
    with imported_benchmark("report") as module:
        yield module


@pytest.fixture
def kept(report, tmp_path, monkeypatch):
    """A folder of its own for what is measured. Returns a function that puts a piece there."""
    monkeypatch.setattr(report, "KEPT", tmp_path)

    def put(name: str, **values) -> None:
        common = {"day": "2026-01-02", "machine": "A processor, 2 cores", "busy_before": 3.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(common | values))

    return put


def put_lesson(report, put, path: Path, seconds: float, held: float, **more) -> None:
    peak = {"rss": 2 * held, "pss": held}  # mapped files count twice in RSS
    put(f"lesson-{path.stem}", **{"seconds": seconds, "first_seconds": 4.0, "peak": peak} | more)


def wrong_sums(report, text: str) -> list[str]:
    """Return what the summary of a report says that its table of lessons does not."""
    rows = re.findall(r"^\| \[(\d\d)\S*\]\(\S+\)[^|]*\| (\d+) \| ([\d.]+|none) \| \d+ \| (\d+) \|", text, re.MULTILINE)
    summary, wrong = report.summary_of(text), []
    if rows:
        if f"| {report.minutes(sum(int(row[1]) for row in rows))}" not in summary:
            wrong.append("the total")
        largest = max(rows, key=lambda row: int(row[3]))
        if not re.search(rf"lesson \d\d \| {largest[3]} MB", summary):
            wrong.append("the memory")
        if not re.search(rf"\| {max(float(row[2]) for row in rows if row[2] != 'none'):.1f} s \|", summary):
            wrong.append("the first result")
    everything = len(rows) == len(report.lessons())
    if ("all lessons" in summary) != everything:
        wrong.append("how many lessons there are")
    return wrong


def test_the_readme_shows_what_the_report_says(report):
    text, readme = (path.read_text(encoding="utf-8") for path in (report.REPORT, report.README))
    assert report.summary_of(readme) == report.summary_of(text)
    assert wrong_sums(report, text) == []
    for path in [*report.lessons(), *report.benchmarks()]:
        assert path.stem in text, "write it anew: python benchmarks/report.py --write"


def test_the_report_names_no_folder_and_no_machine(report):
    import getpass
    import platform

    text = report.REPORT.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", text)
    assert platform.node() not in re.findall(r"[\w.-]+", text)
    assert getpass.getuser() not in re.findall(r"\w+", text)
    assert platform.node() not in report.machine()


def test_a_changed_figure_is_found(report, kept):
    for path in report.lessons():
        put_lesson(report, kept, path, 10.4, 5e8, code=report.code_digest(path))
    text = report.report_text()
    assert wrong_sums(report, text) == [] and "all lessons" in report.summary_of(text)
    assert report.minutes(10 * len(report.lessons())) in report.summary_of(text)
    assert wrong_sums(report, text.replace("| 10 |", "| 11 |", 1)) == ["the total"]
    assert wrong_sums(report, text.replace("| 500 |", "| 501 |", 1)) == ["the memory"]
    assert wrong_sums(report, text.replace("| 4.0 |", "| 4.1 |", 1)) == ["the first result"]


def test_what_was_not_measured_is_said(report, kept):
    text = report.report_text()
    assert text.count("not measured |") == len(report.lessons())
    assert text.count("Not measured yet.") == len(report.benchmarks())
    put_lesson(report, kept, report.lessons()[0], 1.0, 1e8, code=report.code_digest(report.lessons()[0]))
    assert f"1 of {len(report.lessons())} lessons" in report.summary_of(report.report_text())


def test_over_the_budget_stale_and_busy_are_said(report, kept):
    first, second, *_ = report.lessons()
    put_lesson(report, kept, first, 899.0, 2.01e9, code="another", busy_before=80.0)
    text = report.report_text()
    assert "2010 MB (**over**)" in text and "| **no** |" in text and "14 min 59 s |" in text
    assert f"{first.stem}](../notebooks/{first.name}) (changed since)" in text
    assert f"too long: {first.stem}." in text and "too long*" in report.summary_of(text)
    put_lesson(report, kept, second, 2.0, 1e8, code=report.code_digest(second))
    assert "15 min 1 s (**over**)" in report.report_text()


def test_a_lesson_is_measured_with_all_its_processes(report, tmp_path):
    """A kernel that takes 200 MB, and a child of its own that takes 300 MB, for a second at the same time."""
    import nbformat

    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'x = b\"1\" * 300_000_000; input()'],"
    cells = ["x = 1", "y = b'1' * 200_000_000", f"{child} stdin=-1)\nimport time; time.sleep(4); print(1); p.kill()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    before = path.read_bytes()
    piece = report.measure_lesson(path)
    assert 5e8 < piece["peak"]["rss"] < 9e8
    assert piece["first_seconds"] <= piece["seconds"] and piece["code"] == report.code_digest(path)
    assert path.read_bytes() == before and piece["flops"] > 1e9


def test_a_piece_that_fails_keeps_the_last_one(report, kept, capsys):
    kept("setup", cold_seconds=1.0, warm_seconds=0.5)

    def fail():
        raise RuntimeError("no network")

    assert report.keep("setup", fail) == ["setup"]
    assert "no network" in capsys.readouterr().err and report.load("setup")["cold_seconds"] == 1.0
    assert "| 1 s; 0 s |" in report.report_text() and "too long" not in report.report_text()


def test_pieces_are_picked_by_the_beginning_of_their_names(report):
    assert report.pick(report.lessons(), None) == [] and report.pick(report.lessons(), "all") == report.lessons()
    assert [path.stem[:2] for path in report.pick(report.lessons(), "03,00")] == ["00", "03"]
    with pytest.raises(SystemExit, match="no 99"):
        report.pick(report.lessons(), "00,99")


def test_what_is_not_kept_stays_as_the_report_tells_it(report, kept, tmp_path):
    """A report is written; everything that was kept is lost; the next report says the same, and takes new pieces."""
    first, second, third, *_ = report.lessons()
    put_lesson(report, kept, first, 61.0, 2.5e9, code=report.code_digest(first), flops=1.6e11)
    put_lesson(report, kept, second, 9.0, 1e9, code="0123456789abcdef", first_seconds=None, busy_before=80.0)
    kept("setup", cold_seconds=125.0, warm_seconds=7.0, busy_before=80.0)
    kept("benchmark-maml", lines=["a  b", "", "c"], machine="Another, 4 cores")
    text = report.report_text()
    for path in tmp_path.iterdir():
        path.unlink()
    assert report.report_text(earlier=report.from_report(text)) == text
    for said in (
        "2 min 5 s; 7 s",
        "a  b\n\nc",
        "too long: set-up, ",
        "1 min 10 s",
        "(changed since)",
        "| 0.16 |",
        "| unknown |",
    ):
        assert said in text
    put_lesson(report, kept, third, 30.0, 3e9, code="another")
    kept("benchmark-maml", lines=["new"])
    text = report.report_text(earlier=report.from_report(text))
    assert "3 of 11 lessons, one after another | 1 min 40 s" in text and "3000 MB" in text
    assert "new" in text and "a  b" not in text
    assert wrong_sums(report, text) == []


def test_nothing_is_read_from_a_report_that_tells_nothing(report, kept):
    assert report.from_report(report.report_text()) == {}


def test_without_pss_a_lesson_is_held_to_rss(report):
    assert report.held({"peak": {"rss": 3e9, "pss": 1e9}}) == 1e9
    assert report.held({"peak": {"rss": 3e9, "pss": 0}}) == 3e9


def test_the_time_on_another_machine_is_worked_out_from_its_speed(report, kept):
    first, second, *_ = report.lessons()
    put_lesson(report, kept, first, 99.0, 1e9, code="", flops=report.BUDGET_FLOPS / 3)
    put_lesson(report, kept, second, 10.0, 1e9, code="")
    assert "worked out" not in report.report_text()  # not for every lesson that was measured
    put_lesson(report, kept, second, 10.0, 1e9, code="", flops=2 * report.BUDGET_FLOPS)
    assert "1 min 49 s |" in report.report_text() and "was set | 53 s |" in report.report_text()
