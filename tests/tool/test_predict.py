"""`predict`: answers with their probabilities, many at a time; streams; and two columns more for a CSV."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from adapt_parts import use_small_model, write_csv

from rapidadapt_lessons import cli
from rapidadapt_lessons.choosing import csv_file, methods
from rapidadapt_lessons.errors import BadData, CourseError
from rapidadapt_lessons.lm.download import DEFAULT_MODEL
from rapidadapt_lessons.lm.tasks import Example
from rapidadapt_lessons.lora import files
from rapidadapt_lessons.lora import layers as lora
from rapidadapt_lessons.prompting import scoring
from rapidadapt_lessons.prompting.prompts import Template, build_prompt
from rapidadapt_lessons.tool import predict
from rapidadapt_lessons.tool.predict import (
    Predictor,
    formulas,
    lines_of_stream,
    load_predictor,
    predict_csv,
    predict_lines,
)
from rapidadapt_lessons.tool.saved_prompt import Adapted, read_adapted

TEMPLATE = Template("Input: {x}\nOutput: {y}", separator="\n\n")
SHOWN = tuple(Example(f"word {i}", ("good", "bad")[i % 2]) for i in range(6))
TEXTS = ["a cat", "the quick brown fox jumps over it", "no", "why not  \n go?", "é ü", "one two three", "no", "-5"]
HOW = {
    "labels": Adapted(DEFAULT_MODEL, methods.FEW, TEMPLATE, SHOWN, ("bad", "good")),
    "calibrated": Adapted(DEFAULT_MODEL, methods.CALIBRATED, TEMPLATE, SHOWN, ("bad", "good"), (0.9, 0.1)),
    "written": Adapted(DEFAULT_MODEL, methods.FEW, TEMPLATE, SHOWN, max_new_tokens=4),
    "zero-shot": Adapted(DEFAULT_MODEL, methods.ZERO, TEMPLATE, max_new_tokens=4),
    "adapter": Adapted(DEFAULT_MODEL, methods.LORA, TEMPLATE, (), ("bad", "good"), adapter=True),
}


@pytest.fixture
def small(monkeypatch):
    return use_small_model(monkeypatch.setattr)


def saved(folder, small, how: Adapted):
    """Write what `adapt` would, with an adapter that changes much."""
    folder.mkdir()
    (folder / "prompt.json").write_text(how.to_json(), encoding="utf-8")
    if how.adapter:
        model = small[0]
        lora.inject(model, methods.ADAPTER)
        for i, layer in enumerate(lora.lora_layers(model).values()):
            torch.nn.init.normal_(layer.lora_B, generator=torch.Generator().manual_seed(i))
        files.save_adapter(model, folder / "adapter", methods.ADAPTER)
        lora.remove(model)
    return folder


# Answers


@pytest.mark.parametrize("kind", HOW)
def test_an_answer_does_not_depend_on_what_else_is_asked(small, tmp_path, monkeypatch, kind):
    predictor = load_predictor(saved(tmp_path / "out", small, HOW[kind]))
    together = predictor.answers(TEXTS)
    for at_once in (1, 3):
        monkeypatch.setattr(predict, "AT_ONCE", at_once)
        apart = predictor.answers(TEXTS)
        assert [a.text for a in apart] == [a.text for a in together]
        assert [a.probability for a in apart] == pytest.approx([a.probability for a in together], abs=1e-4)
    assert together[2] == together[6] and len(together) == len(TEXTS) and predictor.answers([]) == []


@pytest.mark.parametrize("kind", ["labels", "calibrated"])
def test_a_label_and_its_share_among_the_labels(small, tmp_path, kind):
    how = HOW[kind]
    predictor = load_predictor(saved(tmp_path / "out", small, how))
    prompts = [build_prompt(" ".join(text.split()), SHOWN, TEMPLATE) for text in TEXTS]
    p = scoring.label_logprobs(*small, prompts, ["bad", "good"]).double().exp()
    p = p / torch.tensor(how.prior or (1.0, 1.0))
    p = p / p.sum(-1, keepdim=True)
    for answer, row in zip(predictor.answers(TEXTS), p):
        assert answer.text == how.labels[int(row.argmax())]
        assert answer.probability == pytest.approx(float(row.max()), 1e-3)


def test_a_written_answer_is_the_greedy_one_and_its_probability_that_of_its_tokens(small, tmp_path):
    predictor = load_predictor(saved(tmp_path / "out", small, HOW["written"]))
    prompts = [build_prompt(text, SHOWN, TEMPLATE) for text in TEXTS[:3]]
    written = scoring.generate_answers(*small, prompts, max_new_tokens=4)
    for prompt, text, answer in zip(prompts, written, predictor.answers(TEXTS[:3])):
        assert answer.text == " ".join(text.split()) and 0 <= answer.probability <= 1
        [scored] = scoring.score_continuations(*small, [(prompt.text, f" {text}\n")], cache=False)
        assert answer.probability == pytest.approx(math.exp(scored.total), rel=1e-2)


def test_the_adapter_is_in_use(small, tmp_path):
    with_it = load_predictor(saved(tmp_path / "a", small, HOW["adapter"])).answers(TEXTS)
    without = Predictor(*small, HOW["adapter"]).answers(TEXTS)
    assert [a.probability for a in with_it] != pytest.approx([a.probability for a in without], abs=1e-3)


# What is written down


@pytest.mark.parametrize("kind", HOW)
def test_how_a_model_is_asked_is_written_down_as_it_is(small, tmp_path, kind):
    assert read_adapted(saved(tmp_path / "out", small, HOW[kind])) == HOW[kind]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1}, {"examples": [["a"]]}, {"examples": [["a", 1]]}, {"examples": "ab"}, {"examples": ["ab"]},
        {"examples": [[]]}, {"labels": ["a"]}, {"labels": ["a", "a"]}, {"prior": [1.0]}, {"prior": [0.5, 0]},
        {"prior": ["x", "y"]}, {"max_new_tokens": 0}, {"max_new_tokens": True}, {"adapter": "yes"}, {"pattern": "{x}"},
        {"separator": " "}, {"model": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, change):
    written = json.loads(HOW["calibrated"].to_json()) | change
    (tmp_path / "prompt.json").write_text(json.dumps(written))
    with pytest.raises(CourseError, match="damaged, or of another version"):
        read_adapted(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "[" * 100_000], ids=["", "{", "[]", "null", "3", "deep"])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "prompt.json").write_text(text)
    with pytest.raises(CourseError, match="prompt.json"):
        read_adapted(tmp_path)


def test_no_other_model_is_loaded_because_a_file_says_so(small, tmp_path, capsys):
    how = Adapted("someone/else", methods.ZERO, TEMPLATE)
    folder = saved(tmp_path / "out", small, how)
    assert cli.main(["predict", str(folder), "-"]) == 2
    assert "'someone/else', not SmolLM2" in capsys.readouterr().err


def test_folders_that_are_none(small, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name, told in [("none", "none is not a folder"), ("empty", "empty holds no prompt.json")]:
        assert cli.main(["predict", str(tmp_path / name)]) == 2
        assert told in capsys.readouterr().err
    folder = saved(tmp_path / "out", small, HOW["adapter"])
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    assert cli.main(["predict", str(folder)]) == 2
    assert "adapter_model.safetensors in adapter is missing or damaged" in capsys.readouterr().err


# Streams


def test_a_line_for_each_line(small, tmp_path, capsys):
    folder = saved(tmp_path / "out", small, HOW["labels"])
    queries = tmp_path / "queries.txt"
    queries.write_bytes("a cat\r\n\r\nKöln\r\n  \r\nlast".encode("latin-1"))
    assert cli.main(["predict", str(folder), str(queries)]) == 0
    lines = capsys.readouterr().out.split("\n")
    expected = load_predictor(folder).answers(["a cat", "Köln", "last"])
    told = [f"{a.text}\t{a.probability:.3f}" for a in expected]
    assert lines == [told[0], "", told[1], "", told[2], ""]


def test_more_lines_than_are_answered_together(small, tmp_path, capsys):
    folder = saved(tmp_path / "out", small, HOW["labels"])
    (tmp_path / "q.txt").write_text("".join(f"text {i}\n" for i in range(predict.AT_ONCE + 5)))
    assert cli.main(["predict", str(folder), str(tmp_path / "q.txt")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == predict.AT_ONCE + 5


def test_standard_input(small, tmp_path, capsys, monkeypatch):
    folder = saved(tmp_path / "out", small, HOW["labels"])
    for arguments in ([], ["-"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeffa cat\nKöln\n".encode())))
        assert cli.main(["predict", str(folder), *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == list(predict_lines(load_predictor(folder), [["a cat", "Köln"]])) and len(lines) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fine\nK\xf6ln\n")))
    assert cli.main(["predict", str(folder)]) == 2
    assert "line 2 is not UTF-8" in capsys.readouterr().err


def test_a_stream_is_answered_before_it_ends():
    """Lines that are there are given out while the writer still waits for an answer."""
    reading, writing = os.pipe()
    answered = threading.Event()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(b"first\n")
            file.flush()
            assert answered.wait(60)
            file.write(b"second\nthird\n")

    threading.Thread(target=write, daemon=True).start()
    with os.fdopen(reading, "rb") as stream:
        groups = lines_of_stream(stream)
        assert next(groups) == ["first"]
        answered.set()
        assert [line for group in groups for line in group] == ["second", "third"]


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"a\r\n\r\nb\r\n", b"a\rb\n\n", b"a" * 150_000 + b"\nb\n"])
def test_lines_of_a_file_descriptor_are_those_of_any_other_stream(tmp_path, content):
    (tmp_path / "q.txt").write_bytes(content)
    with (tmp_path / "q.txt").open("rb") as stream:
        found = [line for group in lines_of_stream(stream) for line in group]
    assert found == [line.decode().rstrip("\r\n") for line in io.BytesIO(content)]


@pytest.mark.parametrize(
    ("interrupt", "status", "told"), [(False, 2, "line 2 is not UTF-8"), (True, 130, "Interrupted.")]
)
def test_it_ends_well_while_standard_input_stays_open(small, tmp_path, interrupt, status, told):
    """However it ends, whatever still waits for a line does not keep the program from ending."""
    folder = saved(tmp_path / "out", small, HOW["labels"])
    code = (  # where the tests run in the background, the signal may be ignored
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import adapt_parts; sys.exit(adapt_parts.main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "nowhere", "predict", str(folder)], cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            process.stdin.write(b"a cat\n")
            process.stdin.flush()
            assert b"\t" in process.stdout.readline()
            if interrupt:
                process.send_signal(signal.SIGINT)
            else:
                process.stdin.write(b"K\xf6ln\n")
                process.stdin.flush()
            assert process.wait(60) == status
            said = process.stderr.read().decode()
        finally:
            process.kill()
    assert told in said and "Fatal" not in said and "Traceback" not in said


def test_a_terminal_is_told_what_to_do(small, tmp_path, capsys, monkeypatch):
    folder = saved(tmp_path / "out", small, HOW["labels"])
    for terminal in (True, False):
        stdin = io.TextIOWrapper(io.BytesIO(b"a cat\n"))
        stdin.isatty = lambda answer=terminal: answer
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.main(["predict", str(folder)]) == 0
        said = capsys.readouterr()
        assert said.err == ("Type a query and press Enter; end with Ctrl-D.\n" if terminal else "")
        assert len(said.out.splitlines()) == 1


def test_a_stream_that_is_all_there_is_answered_in_full_batches():
    lines = b"".join(b"%d\n" % i for i in range(150))
    groups = list(lines_of_stream(io.BytesIO(lines)))
    assert [len(group) for group in groups] == [predict.AT_ONCE, predict.AT_ONCE, 150 - 2 * predict.AT_ONCE]


def test_a_line_that_is_too_long_is_named(small, tmp_path, capsys):
    folder = saved(tmp_path / "out", small, HOW["written"])
    (tmp_path / "q.txt").write_text("fine\n" * 70 + "long " * 600 + "\n")
    assert cli.main(["predict", str(folder), str(tmp_path / "q.txt")]) == 2
    said = capsys.readouterr()
    assert "line 71 is " in said.err and "tokens too long" in said.err and "What to do: " in said.err
    assert len(said.out.splitlines()) == predict.AT_ONCE  # what came before


@pytest.mark.parametrize("kind", HOW)
def test_what_just_fits_is_answered(small, tmp_path, kind):
    predictor = load_predictor(saved(tmp_path / "out", small, HOW[kind]))
    n = next(n for n in range(1, 600) if predictor.too_long("a " * n))
    assert n > 300 and predictor.too_long("a " * (n + 4)) > predictor.too_long("a " * n)
    assert predictor.answers(["a " * (n - 1)])[0].probability > 0


# Tables


CELLS = ["=1+1", "-5", "+49 30", "@home", '"two\nlines, ""quoted"""', "", " spaced ", "é"]


def table(path, encoding="utf-8", delimiter=","):
    """Write a table of queries and a number each."""
    rows = [delimiter.join(("query", "n")), *(f"{cell}{delimiter}{i}" for i, cell in enumerate(CELLS))]
    path.write_bytes("\r\n".join([*rows, ""]).encode(encoding))
    return path


@pytest.mark.parametrize(("encoding", "delimiter"), [("utf-8", ","), ("utf-8-sig", ";"), ("latin-1", "\t")])
def test_two_columns_more_and_every_cell_as_it_was(small, tmp_path, capsys, encoding, delimiter):
    folder, source = saved(tmp_path / "out", small, HOW["labels"]), table(tmp_path / "in.csv", encoding, delimiter)
    before, target = source.read_bytes(), tmp_path / "answers.csv"
    arguments = ["predict", str(folder), "--csv", str(source), "--column", "query"]
    assert cli.main([*arguments, "--out", str(target)]) == 0
    said = capsys.readouterr().err
    assert "7 answers; 1 rows have nothing in 'query'" in said and "3 cells begin with = + - or @" in said
    was, now = csv_file.read_csv(source), csv_file.read_csv(target)
    assert now.header == (*was.header, "prediction", "probability") and now.delimiter == delimiter
    assert [row[:2] for _, row in now.rows] == [row for _, row in was.rows]
    asked = [row[0] for _, row in was.rows if row[0].strip()]
    answers = iter(load_predictor(folder).answers(asked))
    for _, row in now.rows:
        answer = next(answers) if row[0].strip() else None
        assert row[2:] == ((answer.text, f"{answer.probability:.3f}") if answer else ("", ""))
    assert source.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", "answers.csv", "out"}
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == target.read_text(encoding="utf-8-sig")


def test_a_file_is_replaced_only_when_told(small, tmp_path, capsys, monkeypatch):
    folder, source = saved(tmp_path / "out", small, HOW["labels"]), table(tmp_path / "in.csv")
    before = source.read_bytes()
    arguments = ["predict", str(folder), "--csv", str(source), "--column", "query", "--out", str(source)]
    assert cli.main(arguments) == 2
    assert "in.csv is there already" in capsys.readouterr().err and source.read_bytes() == before

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_rows", full)
        assert cli.main([*arguments, "--overwrite"]) == 2
    assert "cannot be written (No space left" in capsys.readouterr().err and source.read_bytes() == before
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert csv_file.read_csv(source).header == ("query", "n", "prediction", "probability")
    assert cli.main([*arguments, "--overwrite"]) == 0  # again: the names are taken
    assert csv_file.read_csv(source).header[4:] == ("prediction 2", "probability 2")
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", "out"}


def test_rows_that_are_short_are_filled_up_and_longer_ones_named(small, tmp_path):
    predictor = Predictor(*small, HOW["labels"])
    short = csv_file.read_csv(write_csv(tmp_path / "s.csv", [("a", "1"), ("b",)]))
    assert [row[:2] for row in predict_csv(predictor, short, "text")[1]] == [["a", "1"], ["b", ""]]
    wide = csv_file.read_csv(write_csv(tmp_path / "w.csv", [("a", "1"), ("b", "2", "3")]))
    with pytest.raises(BadData, match="line 3 has more cells"):
        predict_csv(predictor, wide, "text")
    long = csv_file.read_csv(write_csv(tmp_path / "l.csv", [("a", "1"), ("long " * 600, "2"), ("x" * 120_000, "3")]))
    with pytest.raises(BadData, match=r"l\.csv: line 3 is \d+ tokens too long"):
        predict_csv(predictor, long, "text")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--csv", "in.csv"], "--csv needs --column"),
        (["--column", "query"], "go with --csv"),
        (["--out", "x.csv"], "go with --csv"),
        (["q.txt", "--csv", "in.csv", "--column", "query"], "no other file"),
        (["--csv", "in.csv", "--column", "nothing"], "no column 'nothing'"),
        (["--csv", "none.csv", "--column", "query"], "none.csv does not exist"),
        (["none.txt"], "none.txt does not exist"),
        (["in.csv"], "in.csv is a table, and lines are asked"),
        (["some/IN.TSV"], "predict DIR < FILE"),
        (["--csv", "in.csv", "--column", "query", "--out", "no/where.csv"], "where.csv cannot be written"),
        (["--csv", "in.csv", "--column", "query", "--out", "out", "--overwrite"], "out is there already"),
    ],
)
def test_bad_options(small, tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "out", small, HOW["labels"])
    table(tmp_path / "in.csv")
    assert cli.main(["predict", "out", *arguments]) == 2
    said = capsys.readouterr()
    assert told in said.err and not said.out
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", "out"}


def test_which_cells_a_spreadsheet_would_take_for_formulas():
    assert formulas([["=1", "-5", "+4", "@a"], ["-x", "a=b", "-1,5", ""]]) == 3
