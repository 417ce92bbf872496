"""`adapt`: how a file is read, planned for, tried and reported; what is refused; and starting anew after a kill."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from adapt_parts import FAST, SLOW, small_family, small_model, use_small_model, write_csv
from safetensors.torch import load_file

from rapidadapt_lessons import cli
from rapidadapt_lessons.choosing import methods
from rapidadapt_lessons.choosing.methods import CALIBRATED, FEW, LORA, META, ZERO
from rapidadapt_lessons.choosing.own_data import read_data
from rapidadapt_lessons.errors import BadData, CourseError, TrainingDiverged
from rapidadapt_lessons.lm.tasks import Example, Task, load_task
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.lora.files import load_adapter
from rapidadapt_lessons.tool import adapt, output_folder
from rapidadapt_lessons.tool import plan as adapt_plan
from rapidadapt_lessons.tool.outcome import Outcome
from rapidadapt_lessons.tool.plan import Plan, Planned, make_plan, parse_budget, read_plan
from rapidadapt_lessons.tool.saved_prompt import read_adapted

FREE = [(f"in {i}", f"out {i}") for i in range(24)]
LABELLED = [(f"text {i}", ("good", "bad")[i % 2]) for i in range(24)]


@pytest.fixture
def small(monkeypatch):
    """The commands, with a small model and made-up times."""
    monkeypatch.setattr(methods, "load_family", small_family)
    return use_small_model(monkeypatch.setattr)


def run(*arguments) -> int:
    return cli.main(["adapt", *map(str, arguments)])


def results(folder: Path) -> dict:
    """Return all that must repeat: everything but seconds."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    found.pop("seconds")
    for trial in found["validation"]:
        trial.pop("prepare_seconds"), trial.pop("answer_seconds")
    return found


def weights(folder: Path) -> dict[str, list]:
    return {k: t.tolist() for k, t in load_file(folder / "adapter" / "adapter_model.safetensors").items()}


# What comes out


@pytest.mark.parametrize(
    ("rows", "method", "tried", "chosen", "adapter"),
    [
        (LABELLED, "auto", {ZERO, FEW, CALIBRATED, META, LORA}, {ZERO, FEW, CALIBRATED, META, LORA}, True),
        (FREE, "auto", {ZERO, FEW, META, LORA}, {ZERO, FEW, META, LORA}, True),
        (FREE, "prompt", {ZERO, FEW}, {ZERO, FEW}, False),
        (LABELLED, "calibrated", {ZERO, CALIBRATED}, {CALIBRATED}, False),
        (FREE, "lora", {ZERO, LORA}, {LORA}, True),
        (FREE, "meta", {ZERO, META}, {META}, True),
    ],
)
def test_each_choice_tries_its_methods_and_writes_a_whole_folder(small, tmp_path, rows, method, tried, chosen, adapter):
    out = tmp_path / "out"
    assert run(write_csv(tmp_path / "my.csv", rows), "--method", method, "--out", out) == 0
    found = results(out)
    assert {t["method"] for t in found["validation"]} == tried and found["chosen"] in chosen
    files = {"README.md", "plan.json", "prompt.json", "prompt.txt", "report.html", "results.json"}
    assert {p.name for p in out.iterdir()} == files | ({"adapter"} if adapter else set())
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv", "out"}
    assert len(found["test"]["answers"]) == 6 and found["test"]["of"] == 6
    how = read_adapted(out)
    assert how.method == found["chosen"] and how.adapter == (how.method in (LORA, META))
    assert bool(how.prior) == (how.method == CALIBRATED) and how.labels == (("bad", "good") if rows == LABELLED else ())
    assert bool(how.examples) == (how.method in (FEW, CALIBRATED))


def test_the_three_parts_have_nothing_in_common_and_prompts_show_only_what_is_learned_from(small, tmp_path):
    data = write_csv(tmp_path / "my.csv", LABELLED)
    outcome = adapt.adapt(data, tmp_path / "out", method="calibrated", say=lambda _: None, progress=False)
    pool, validation, test = (set(part) for part in (outcome.task.support_pool, outcome.task.query_set, outcome.test))
    assert len(pool) == 12 and len(validation) == len(test) == 6
    assert not pool & validation and not pool & test and not validation & test
    assert set(outcome.how.examples) <= pool


def test_no_choice_sees_the_test_split(small, tmp_path):
    """With other answers in the test split, everything but the test's own figures stays as it is."""
    data = write_csv(tmp_path / "my.csv", FREE)
    _, test = adapt.three_parts(read_data(data), seed=0)
    changed = [(x, y if Example(x, y) not in test else f"quite another {i}") for i, (x, y) in enumerate(FREE)]
    run(data, "--out", tmp_path / "a")
    run(write_csv(tmp_path / "other.csv", changed), "--out", tmp_path / "b")
    a, b = results(tmp_path / "a"), results(tmp_path / "b")
    assert a.pop("test")["answers"] != b.pop("test")["answers"]
    assert a == b and weights(tmp_path / "a") == weights(tmp_path / "b")


def test_the_choice_is_that_of_the_validation_split(small, tmp_path, monkeypatch):
    """Whatever the trials say, the best of them wins, and is then asked the test queries."""
    real = methods.prompt_trial

    def rigged(*arguments, calibrated=False):
        trial = real(*arguments, calibrated=calibrated)
        return type(trial)(trial.method, trial.examples, (calibrated,) * len(trial.right), 0.0, 0.0, 0, 0)

    monkeypatch.setattr(methods, "prompt_trial", rigged)
    run(write_csv(tmp_path / "my.csv", LABELLED), "--budget", "1s", "--out", tmp_path / "out")
    found = results(tmp_path / "out")
    assert found["chosen"] == CALIBRATED and found["test"]["right"] < found["test"]["of"]


def test_peft_loads_the_adapter_and_computes_the_same(small, tmp_path):
    from peft import PeftModel

    out = tmp_path / "out"
    run(write_csv(tmp_path / "my.csv", FREE), "--method", "lora", "--out", out)
    model = small_model()
    tokens = torch.tensor([[5, 6, 7, 8]])
    base = model(tokens).logits
    load_adapter(model, out / "adapter")
    ours = model(tokens).logits
    theirs = PeftModel.from_pretrained(small_model(), str(out / "adapter"))(tokens).logits
    assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, base, atol=1e-3)


def test_how_the_file_was_read_is_told_before_anything_else(small, tmp_path, capsys):
    rows = [*FREE, FREE[0], ("lonely", ""), ('"two\nlines; and more"', "ü")]
    data = tmp_path / "my.csv"
    text = "text;answer\r\n" + "".join(f"{x};{y}\r\n" for x, y in rows)
    data.write_bytes(text.encode("latin-1"))
    assert run(data, "--method", "prompt", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "Latin-1, cells separated by a semicolon, 27 rows" in said and "'text' and answers 'answer'" in said
    assert "a cell is missing: 1 row (line 27 has an empty 'answer')" in said
    assert "Duplicates: 1 row, counted once. Conflicting answers: none." in said
    assert "25 different pairs" in said and "13 pairs to learn from, 6 to choose by" in said
    order = [said.index(text) for text in ("Latin-1", "Timing: a query 10 ms", "Plan for 120 s", "Chosen")]
    assert order == sorted(order)


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.values, self.text = set(), [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.values += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


NASTY = '<script>alert(1)</script><img src=x onerror=alert(1)> & "quoted"'


def test_the_report_is_one_page_that_loads_nothing_and_takes_data_for_data(small, tmp_path):
    quoted = '"' + NASTY.replace('"', '""')
    rows = [(f'{quoted} {i}"', f'{quoted[:30]} {i}"') for i in range(24)]
    run(write_csv(tmp_path / "my <b>.csv", rows, header=("<i>x</i>", "y")), "--out", tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open, "a tag was not closed"
    assert page.tags.isdisjoint({"script", "link", "iframe", "a", "i", "object", "base", "form"})
    assert not {name for name, _ in page.values} & {"href", "onerror", "onload", "action"}
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in dict(page.values)["content"]
    assert NASTY in page.text and "<i>x</i>" in page.text
    parts = ("Accuracy by method", "Learning curve", "Mistakes on the test split", "s to prepare", "Memory", "95% int")
    assert all(part in page.text for part in parts)
    figures = [value for name, value in page.values if name == "src"]
    assert len(figures) == 3 and all(figure.startswith("data:image/png;base64,") for figure in figures)
    described = [value for name, value in page.values if name == "alt"]
    assert [text.partition(".")[0] for text in described[1:]] == ["Line chart"] * 2
    assert "test: " in described[0] and all(f"{method} " in described[0] for method in (ZERO, FEW, META, LORA))
    outcome = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    wrong = [a for a in outcome["test"]["answers"] if a["predicted"] != a["answer"]]
    assert wrong and all(a["input"] in " ".join(page.text.split()) for a in wrong)


def test_the_model_card_states_data_seed_versions_use_and_limits(small, tmp_path):
    run(write_csv(tmp_path / "my.csv", FREE), "--seed", "5", "--out", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "24 different pairs: 12 to learn from, 6 to choose by, 6 to test on" in card and "Seed 5" in card
    assert f"torch {torch.__version__.partition('+')[0]}" in card and "transformers" in card
    assert "Intended for" in card and "## Limits" in card and "95% interval" in card


# The plan


def task_of(n: int = 100, labels=("a", "b")) -> Task:
    pairs = tuple(Example(f"x {i}", labels[i % 2] if labels else f"y {i}") for i in range(n + 20))
    return Task("t", "t", "", "{x} is {y}", "{x}", "t.csv", pairs[:n], pairs[n:], tuple(labels))


def plan_for(budget: float, timing=FAST, method="auto", task=None, shots=32, batch_size=8) -> Plan:
    return make_plan(
        task or task_of(), timing, method=method, budget=budget, seed=0, shots=shots, batch_size=batch_size, n_test=20
    )


def by_method(plan: Plan) -> dict[str, Planned]:
    return {p.method: p for p in plan.methods}


def cost(plan: Plan, timing, n_query: int = 20, n_test: int = 20) -> float:
    """Add up what a plan takes, part by part."""
    total = n_test * (timing.answer + timing.write)
    for p in plan.methods:
        evaluations = 1 + (0 if not p.steps else 1 + -(-p.steps // p.eval_every))
        total += evaluations * n_query * timing.answer + p.steps * timing.step
        total += p.examples * timing.shot if not p.steps else 0
        total += p.meta_iterations * adapt_plan.META_INNER * timing.meta_step
    return total


@pytest.mark.parametrize("timing", [FAST, SLOW])
@pytest.mark.parametrize("budget", [20, 60, 120, 600, 3600])
def test_a_plan_keeps_within_its_budget(budget, timing):
    plan = plan_for(budget, timing)
    assert cost(plan, timing) <= budget
    assert {p.method for p in plan.methods} | set(plan.left_out) == {ZERO, FEW, CALIBRATED, META, LORA}


def test_a_larger_budget_buys_steps_up_to_what_the_data_are_worth():
    steps = [by_method(plan_for(budget)).get(LORA, Planned(LORA)).steps for budget in (3, 8, 12, 120, 1200)]
    assert steps[0] == 0 < steps[1] < steps[2] < steps[3] == steps[4] == 125  # 10 times 100 examples, 8 at a time
    metas = [by_method(plan_for(budget)).get(META, Planned(META)).meta_iterations for budget in (12, 36, 120)]
    assert metas[0] == 0 < metas[1] < metas[2] == adapt_plan.META_MOST
    assert "4 updates take" in plan_for(3).left_out[LORA] and "learn a start" in plan_for(12).left_out[META]


def test_what_was_asked_for_is_done_at_least_a_little_whatever_it_takes():
    assert by_method(plan_for(0.1, SLOW, "lora"))[LORA].steps == adapt_plan.LEAST_UPDATES
    meta = by_method(plan_for(0.1, SLOW, "meta"))[META]
    assert meta.steps == adapt_plan.LEAST_UPDATES and meta.meta_iterations == adapt_plan.META_LEAST


def test_long_rows_are_cut_into_more_passes_with_the_same_update():
    for batch_size in (1, 2, 4, 8):
        planned = by_method(plan_for(120, batch_size=batch_size))[LORA]
        assert planned.batch_size * planned.accumulate == 8 and planned.batch_size == batch_size


def test_prompts_without_room_are_left_out():
    plan = plan_for(120, shots=0)
    assert FEW in plan.left_out and CALIBRATED in plan.left_out and LORA in by_method(plan)
    with pytest.raises(BadData, match="no example fits"):
        plan_for(120, method="calibrated", shots=0)
    with pytest.raises(BadData, match="needs labels"):
        adapt_plan.require_method("calibrated", task_of(labels=()))


@pytest.mark.parametrize(("text", "seconds"), [("120s", 120), ("2m", 120), ("1.5h", 5400), ("90", 90), (" 3 s ", 3)])
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "0", "0s", "1d", "inf", "nan", "1e3"])
def test_no_budgets(text):
    with pytest.raises(CourseError, match="the budget is"):
        parse_budget(text)


def test_a_plan_is_written_down_as_it_is(tmp_path):
    path = tmp_path / "plan.json"
    plan = plan_for(60)
    path.write_text(plan.to_json(), encoding="utf-8")
    assert read_plan(path) == plan


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"methods": []}', "[" * 100_000],
    ids=["empty", "list", "object", "null", "no methods", "deep"],
)
def test_no_plans(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(BadData, match="plan.json is no plan"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "magic"},
        {"steps": 0},
        {"steps": "8"},
        {"examples": -1},
        {"batch_size": 0},
        {"steps": 10**9},
        {"x": 1},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path, change):
    written = json.loads(plan_for(60).to_json())
    next(one for one in written["methods"] if one["method"] == LORA).update(change)
    (tmp_path / "plan.json").write_text(json.dumps(written))
    with pytest.raises(BadData, match="is no plan"):
        read_plan(tmp_path / "plan.json")


def test_the_same_plan_gives_the_same_on_a_slower_machine(small, tmp_path, monkeypatch):
    data = write_csv(tmp_path / "my.csv", FREE)
    assert run(data, "--budget", "12s", "--seed", "3", "--out", tmp_path / "fast") == 0
    monkeypatch.setattr(adapt, "time_steps", lambda *_, **__: SLOW)
    assert run(data, "--plan", tmp_path / "fast" / "plan.json", "--out", tmp_path / "slow") == 0
    assert results(tmp_path / "slow") == results(tmp_path / "fast")
    assert weights(tmp_path / "slow") == weights(tmp_path / "fast")
    assert (tmp_path / "slow" / "prompt.json").read_bytes() == (tmp_path / "fast" / "prompt.json").read_bytes()
    run(data, "--budget", "12s", "--seed", "3", "--out", tmp_path / "other")  # without the plan it would do less
    assert results(tmp_path / "other")["validation"] != results(tmp_path / "fast")["validation"]


def test_a_plan_for_more_data_than_there_are_is_refused(small, tmp_path, capsys):
    many = write_csv(tmp_path / "many.csv", [(f"in {i}", f"out {i}") for i in range(60)])
    run(many, "--method", "lora", "--out", tmp_path / "a")
    few = write_csv(tmp_path / "few.csv", FREE)
    assert run(few, "--plan", tmp_path / "a" / "plan.json", "--out", tmp_path / "b") == 2
    assert "asks for 30 examples for LoRA; there are 12" in capsys.readouterr().err
    assert run(few, "--plan", tmp_path / "a" / "plan.json", "--seed", "1", "--out", tmp_path / "b") == 2
    assert "leave --method, --seed and --budget out" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"many.csv", "few.csv", "a"}


# What is refused: a message, exit status 2, nothing written


def csv_text(rows, header=("text", "answer")) -> bytes:
    return ("\n".join(",".join(row) for row in [header, *rows]) + "\n").encode()


BAD_FILES = {
    "empty": (b"", "is empty"),
    "header only": (b"text,answer\n", "has 0 different pairs; 8 to"),
    "one column": (csv_text([(x,) for x, _ in FREE], ("text",)), "has 1 column: 'text'"),
    "three columns": (csv_text([(*row, "z") for row in FREE], ("a", "b", "c")), "--input COLUMN --output COLUMN"),
    "few rows": (csv_text(FREE[:7]), "has 7 different pairs; 8 to"),
    "few usable rows": (csv_text([*FREE[:7], ("a", ""), ("", "b")]), "7 different pairs (2 rows skipped, since a cell"),
    "one label": (csv_text([(x, "yes") for x, _ in FREE]), "every answer in my.csv is 'yes'"),
    "conflict": (csv_text([*FREE, ("in 3", "no"), ("in 4", "b")]), "is 'out 3' in line 5 and 'no' in line 26; 'in 4'"),
    "binary": (bytes(range(256)) * 4, "holds binary data"),
    "NUL": (csv_text([*FREE, ("a\0", "b")]), "holds binary data"),
    "undecodable": (b"text,answer\n" + b"\x01\x81\x8d,b\n" * 9, "neither UTF-8 nor Latin-1"),
    "long cell": (csv_text([*FREE, ("long " * 600, "b")]), "line 26 has "),
    "too many cells": (csv_text([*FREE, ("a", "b", "c")]), "line 26 has 3 cells, not 2"),
    "open quote": (csv_text([*FREE, ('"a', "b")]), "no proper CSV at line 26"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files(small, tmp_path, capsys, kind):
    content, told = BAD_FILES[kind]
    data = tmp_path / "my.csv"
    data.write_bytes(content)
    assert run(data, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert told in said and "What to do: " in said and "Traceback" not in said
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv"} and data.read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.csv", "--out", "out"], "none.csv does not exist"),
        ([".", "--out", "out"], "is a folder"),
        (["my.csv", "--out", "full"], "the output folder full is not empty"),
        (["my.csv", "--out", "my.csv"], "my.csv is a file, and the output is a folder"),
        (["my.csv", "--out", "my.csv/out"], "nothing can be written to the folder my.csv"),
        (["my.csv", "--out", "out", "--method", "magic"], "there is no method 'magic'"),
        (["my.csv", "--out", "out", "--method", "calibrated"], "calibration needs labels"),
        (["my.csv", "--out", "out", "--budget", "soon"], "the budget is 'soon'"),
        (["my.csv", "--out", "out", "--input", "text"], "name both columns"),
        (["my.csv", "--out", "out", "--input", "text", "--output", "z"], "no column 'z'"),
        (["my.csv", "--out", "out", "--plan", "none.json"], "none.json cannot be read"),
        (["my.csv", "--out", "out", "--plan", "my.csv"], "my.csv is no plan"),
        (["my.csv", "--out", "out", "--seed", "-1"], "--seed"),
        (["my.csv"], "--out"),
    ],
)
def test_bad_options(small, tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "my.csv", FREE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert run(*arguments) == 2
    assert told in capsys.readouterr().err
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["full", "full/thesis.txt", "my.csv"]
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


def test_an_empty_output_folder_is_used(small, tmp_path):
    (tmp_path / "out").mkdir()
    assert run(write_csv(tmp_path / "my.csv", FREE), "--method", "prompt", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("link", "out is a link"),
        ("link to nothing", "out is a link"),
        ("mount point", "out cannot be replaced (Device or resource busy)"),
        ("current", "out is the current one"),
    ],
)
def test_an_output_that_could_not_be_put_in_place_is_refused_at_once(small, tmp_path, monkeypatch, capsys, kind, told):
    data, out = write_csv(tmp_path / "my.csv", FREE), tmp_path / "out"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
    if kind.startswith("link"):
        out.symlink_to("elsewhere")
    else:
        out.mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    if kind == "mount point":
        stand_for_a_mount_point(monkeypatch, out)
    if kind == "current":
        monkeypatch.chdir(out)
    monkeypatch.setattr(adapt, "load_model", lambda: pytest.fail("work was begun"))
    assert run(data, "--method", "prompt", "--out", "." if kind == "current" else out) == 2
    assert told in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == before and not (out.exists() and any(out.iterdir()))


def stand_for_a_mount_point(monkeypatch, folder: Path) -> None:
    """Let a folder be neither renamed, nor replaced, nor deleted, as the system does for a mount point."""

    def refusing(real):
        def call(*paths, **options):
            if str(folder) in map(str, paths):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            return real(*paths, **options)

        return call

    for name in ("rename", "replace", "rmdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))


def test_too_little_room_is_told_before_anything_is_done(small, tmp_path, monkeypatch, capsys):
    usage = shutil._ntuple_diskusage(100, 90, 10_000_000)
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda _: usage)
    assert run(write_csv(tmp_path / "my.csv", FREE), "--out", tmp_path / "out") == 2
    assert "has 10 MB free; 64 MB are needed" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv"}


@pytest.mark.parametrize("when", ["report", "adapter"])
def test_a_disk_that_fills_up_while_writing(small, tmp_path, monkeypatch, capsys, when):
    """Nothing is left, and the same command works once there is room."""
    data, out = write_csv(tmp_path / "my.csv", FREE), tmp_path / "out"
    real = Path.write_text

    def full(path=None, *arguments, **options):
        if when == "report" and path.name != "report.html":
            return real(path, *arguments, **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*(Path, "write_text") if when == "report" else (adapt, "save_adapter"), full)
        assert run(data, "--method", "lora", "--out", out) == 2
    said = capsys.readouterr().err
    assert "the disk is full; out was not written" in said and "free some space and give the same command" in said
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv"}
    assert run(data, "--method", "lora", "--out", out) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv", "out"}


def test_training_that_diverges_is_told_and_the_rest_goes_on(small, tmp_path, monkeypatch):
    def diverge(*_, **__):
        raise TrainingDiverged("the loss became nan.", "lower the rate.")

    monkeypatch.setattr(methods, "adapter_trial", diverge)
    data = write_csv(tmp_path / "my.csv", FREE)
    assert run(data, "--out", tmp_path / "out") == 0
    assert results(tmp_path / "out")["failed"][LORA] == "the loss became nan."
    assert not (tmp_path / "out" / "adapter").exists()
    assert run(data, "--method", "lora", "--out", tmp_path / "other") == 2


# Killed, and two at once


def worker(where: str, *arguments) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, killed where it is said."""
    command = [sys.executable, str(Path(__file__).parents[1] / "adapt_parts.py"), where, "adapt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("where", ["training", "writing"])
def test_a_killed_run_leaves_nothing_at_its_output_and_the_same_command_then_succeeds(small, tmp_path, where):
    data, out = write_csv(tmp_path / "my.csv", FREE), tmp_path / "out"
    assert worker(where, data, "--method", "lora", "--out", out).returncode == -signal.SIGKILL
    assert not out.exists()
    written = {p.name for p in (tmp_path / ".out.unfinished").iterdir()}
    assert ("report.html" in written) == (where == "writing")
    (tmp_path / ".out.unfinished" / "stray").touch()
    assert run(data, "--method", "lora", "--out", out) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv", "out"}
    whole = tmp_path / "whole"
    assert run(data, "--method", "lora", "--out", whole) == 0
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}
    assert results(out) == results(whole) and weights(out) == weights(whole)


def test_an_interrupted_run_leaves_nothing(small, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(adapt, "answered_right", interrupted)
    assert run(write_csv(tmp_path / "my.csv", FREE), "--method", "lora", "--out", tmp_path / "out") == 130
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv"}


def test_what_appeared_at_the_output_meanwhile_is_left_alone(small, tmp_path, monkeypatch, capsys):
    data, out, real = write_csv(tmp_path / "my.csv", FREE), tmp_path / "out", adapt.page

    def slow(outcome):
        out.mkdir()
        (out / "thesis.txt").write_text("precious")
        return real(outcome)

    monkeypatch.setattr(adapt, "page", slow)
    assert run(data, "--method", "prompt", "--out", out) == 2
    assert "out cannot be written (Directory not empty)" in capsys.readouterr().err
    assert [p.read_text() for p in out.iterdir()] == ["precious"]
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv", "out"}


def test_a_second_run_with_the_same_output_is_refused_while_one_is_under_way(small, tmp_path, monkeypatch, capsys):
    """With the same options, with others, and from another process; the first one ends as if it were alone."""
    data, out, seen = write_csv(tmp_path / "my.csv", FREE), tmp_path / "out", []
    real, begun = adapt.time_steps, []

    def meanwhile(*arguments, **options):
        begun.append(1)
        if len(begun) == 1:
            for method in ("prompt", "lora"):
                seen.append(run(data, "--method", method, "--out", out))
                seen.append(capsys.readouterr().err)
            other = worker("nowhere", data, "--method", "prompt", "--out", out)
            seen.extend([other.returncode, other.stderr])
        return real(*arguments, **options)

    monkeypatch.setattr(adapt, "time_steps", meanwhile)
    assert run(data, "--method", "prompt", "--out", out) == 0
    assert seen[::2] == [2, 2, 2] and all("output out is already under way" in told for told in seen[1::2]), seen
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv", "out"}


def test_a_run_that_begins_as_another_ends_is_refused_before_it_works(small, tmp_path, monkeypatch, capsys):
    data, out, real = write_csv(tmp_path / "my.csv", FREE), tmp_path / "out", adapt.load_model

    def slow():
        monkeypatch.setattr(adapt, "load_model", real)
        assert run(data, "--method", "prompt", "--out", out) == 0
        monkeypatch.setattr(adapt, "time_steps", lambda *_, **__: pytest.fail("work was begun"))
        return real()

    monkeypatch.setattr(adapt, "load_model", slow)
    assert run(data, "--method", "prompt", "--out", out) == 2
    assert "the output folder out is not empty" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"my.csv", "out"}


# The real model


def test_the_real_model_learns_plurals_from_a_file(real_model, tmp_path, monkeypatch):
    from rapidadapt_lessons.tool import predict

    task = load_task("plurals")
    data = write_csv(tmp_path / "plurals.csv", [*task.support_pool, *task.query_set][:40])
    plan = Plan("lora", 0, 60.0, (Planned(ZERO), Planned(LORA, 20, steps=14, eval_every=14)), {})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    for module in (adapt, predict):
        monkeypatch.setattr(module, "load_model", lambda: real_model)
    assert run(data, "--plan", tmp_path / "plan.json", "--out", tmp_path / "out") == 0
    assert not lora.lora_layers(real_model[0])
    found = results(tmp_path / "out")
    baseline, trained = (sum(trial["right"]) for trial in found["validation"])
    assert baseline <= 2 and trained >= 6 and found["test"]["right"] >= 6 and found["test"]["of"] == 10
    predictor = predict.load_predictor(tmp_path / "out")
    try:
        answers = predictor.answers([a["input"] for a in found["test"]["answers"]])
    finally:
        lora.remove(real_model[0])
    assert [a.text for a in answers] == [a["predicted"] for a in found["test"]["answers"]]


@pytest.mark.parametrize(
    ("answers", "right", "told"),
    [
        (["yes"] * 4 + ["no"] * 3, 6, "Always answering 'yes' would get 4."),
        (["yes"] * 4 + ["no"] * 3, 3, "would get 4. It is no better than that"),
        (["7", "8", "9"], 0, "It is no better than that"),
        (["7", "8", "9"], 2, "95% interval"),
    ],
)
def test_the_result_is_told_beside_what_the_commonest_answer_gets(answers, right, told):
    examples = [Example(f"x {i}", y) for i, y in enumerate(answers)]
    found = SimpleNamespace(how=SimpleNamespace(method="few-shot"), right=right, test=examples, interval=(0.1, 0.9))
    said = Outcome.sentence(found)
    assert told in said and ("no better" in said) == ("no better" in told)
    assert ("Always" in said) == (right <= 1 or len(set(answers)) < len(answers))


def test_the_command_that_is_told_at_the_end_works_from_here(tmp_path, monkeypatch):
    use_small_model(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    said = []
    rows = "".join(f"{word},{'good' if i % 2 else 'bad'}\n" for i, word in enumerate("abcdefghijklmnopqrstuvwxyz"))
    Path("my.csv").write_text(f"word,kind\n{rows}")
    adapt.adapt("my.csv", "sub/my out", method="prompt", budget=1.0, say=said.append, progress=False)
    assert "predict 'sub/my out' QUERIES.txt" in said[-1] and Path("sub/my out/report.html").is_file()
