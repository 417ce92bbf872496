"""A reader's own CSV: read, split, and refused with the lines to mend."""

from __future__ import annotations

import pytest

from rapidadapt_lessons.choosing import csv_file
from rapidadapt_lessons.choosing.own_data import MOST_QUERIES, read_data, read_pairs, split
from rapidadapt_lessons.errors import BadData, BadPrompt
from rapidadapt_lessons.lm.tasks import Example

FREE = [(f"in {i}", f"out {i}") for i in range(30)]
LABELLED = [(f"text {i}", ("good", "bad", "so so")[i % 3]) for i in range(30)]


def write(folder, rows, header=("x", "y"), separator=",", encoding="utf-8"):
    path = folder / "my_file.csv"
    lines = [separator.join(header), *(separator.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def everything(task) -> set[Example]:
    return {*task.support_pool, *task.query_set}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_of_pairs_becomes_a_task(tmp_path, separator, encoding):
    task = read_pairs(write(tmp_path, FREE, separator=separator, encoding=encoding))
    assert everything(task) == {Example(*row) for row in FREE}
    assert len(task.query_set) == 10 and len(task.support_pool) == 20
    assert not {e.x for e in task.support_pool} & {e.x for e in task.query_set}
    assert task.labels == () and task.name == "my_file" and task.title == "my file"


def test_the_split_is_a_random_draw_that_repeats(tmp_path):
    path = write(tmp_path, FREE)
    assert read_pairs(path) == read_pairs(path)
    assert read_pairs(path, seed=1).query_set != read_pairs(path).query_set
    assert [e.x for e in read_pairs(path).query_set] != [x for x, _ in FREE[:10]]


def test_few_answers_are_labels_and_held_out_evenly(tmp_path):
    task = read_pairs(write(tmp_path, LABELLED))
    assert task.labels == ("bad", "good", "so so")
    counts = [sum(e.y == label for e in task.query_set) for label in task.labels]
    assert sum(counts) == 10 and max(counts) - min(counts) <= 1
    uneven = [(f"t {i}", "good" if i else "bad") for i in range(30)]
    assert read_pairs(write(tmp_path, uneven)).labels == ()  # one "bad" is no label


def test_a_large_file_holds_out_no_more_than_enough(tmp_path):
    task = read_pairs(write(tmp_path, [(f"i {i}", f"o {i}") for i in range(500)]))
    assert len(task.query_set) == MOST_QUERIES and len(task.support_pool) == 500 - MOST_QUERIES


def test_pairs_that_occur_twice_count_once_and_empty_lines_not_at_all(tmp_path):
    task = read_pairs(write(tmp_path, [*FREE, FREE[0], ("", ""), ("  in   1 ", " out 1")]))
    assert everything(task) == {Example(*row) for row in FREE}


def test_columns_by_name(tmp_path):
    path = write(tmp_path, [("7", b, a) for a, b in FREE], header=("id", "answer", "question"))
    assert everything(read_pairs(path, x="question", y="answer")) == {Example(*row) for row in FREE}


def test_quotation_marks_keep_commas_and_line_breaks(tmp_path):
    path = write(tmp_path, [*FREE, ('"a, ""b""\nc"', "d")])
    assert Example('a, "b" c', "d") in everything(read_pairs(path))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("Köln,1\nGießen,2\n".encode("latin-1"), "Latin-1"),
        ("“Köln”,1\n".encode("cp1252"), "Windows-1252"),
        ("Köln,1\n".encode("utf-16"), "UTF-16"),
        ("\ufeffKöln,1\n".encode(), "UTF-8 with a byte-order mark"),
        ("Köln,1\n".encode(), "UTF-8"),
    ],
)
def test_encodings(data, told):
    text, encoding = csv_file.decode(data, "my.csv")
    assert encoding == told and "Köln" in text and not text.startswith("\ufeff")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_and_separators_of_other_kinds(tmp_path, ends):
    path = tmp_path / "my.csv"
    rows = ["x;y", *(f"a{i},b;c" for i in range(8)), '"two\nlines";"d;e"', "un\u2028cut;f"]
    path.write_bytes(ends.join(rows).encode())
    found = everything(read_pairs(path))
    assert len(found) == 10 and {Example("two lines", "d;e"), Example("un cut", "f"), Example("a3,b", "c")} <= found
    assert csv_file.read_csv(path).delimiter == ";"


def test_a_separator_in_quotation_marks_is_none(tmp_path):
    assert read_data(write(tmp_path, FREE, header=('"a,b,c"', "y"), separator=";")).x == "a,b,c"


def test_a_row_begins_where_its_first_line_is(tmp_path):
    path = write(tmp_path, [('"a\nb\nc"', "d"), ("", ""), ("e", "f")])
    assert csv_file.read_csv(path).rows == ((2, ("a\nb\nc", "d")), (6, ("e", "f")))


def test_rows_with_missing_cells_can_be_skipped_and_are_told(tmp_path):
    path = write(tmp_path, [*FREE, ("only",), ("no answer", " "), FREE[0]])
    reading = read_data(path, skip_missing=True)
    assert set(reading.examples) == {Example(*row) for row in FREE}
    assert reading.skipped == ("line 32 has 1 cell, not 2", "line 33 has an empty 'y'")
    said = " ".join(reading.summary())
    assert "UTF-8, cells separated by a comma, 33 rows" in said and "Duplicates: 1 row" in said
    assert "a cell is missing: 2 rows (line 32 has 1 cell, not 2; line 33" in said
    assert "The model reads 'x' and answers 'y'" in said and "30 different pairs" in said
    with pytest.raises(BadData, match="line 2 has 3 cells"):  # a comma that belonged in quotation marks: never guessed
        read_data(write(tmp_path, [("a", "b", "c"), *FREE]), skip_missing=True)


def test_a_row_that_lacks_only_cells_nobody_asked_for_is_used(tmp_path):
    path = write(tmp_path, [(*row, "z") for row in FREE] + [("short", "row")], header=("x", "y", "z"))
    assert Example("short", "row") in read_data(path, x="x", y="y", skip_missing=True).examples


def test_a_file_that_was_taken_as_latin_1_says_so(tmp_path):
    path = write(tmp_path, [*FREE, ("Größe", "größer")], encoding="latin-1")
    assert 'taken as Latin-1: check that letters look right (for instance "Größe")' in " ".join(
        read_data(path).summary()
    )


def test_each_part_of_a_split_has_its_share_of_each_label(tmp_path):
    rows = [(f"t {i}", "rare" if i % 10 == 0 else "often") for i in range(40)]
    reading = read_data(write(tmp_path, rows))
    parts = split(reading, [10, 10], 0)
    assert [len(part) for part in parts] == [10, 10, 20]
    assert [sum(e.y == "rare" for e in part) for part in parts] == [1, 1, 2]
    assert {e for part in parts for e in part} == set(reading.examples)
    assert split(reading, [10, 10], 0) == parts != split(reading, [10, 10], 1)


@pytest.mark.parametrize("cell", ["=1+1", "+49 30", "-5", "@home", '=LINK("http://x";"y")', "a\tb", " c", "d,e\nf"])
def test_cells_are_data_in_and_out(tmp_path, cell):
    path = tmp_path / "my.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv_file.write_rows(file, ("x", "y"), [(cell, "z")], ",")
    assert csv_file.read_csv(path).rows == ((2, (cell, "z")),)


def test_a_cell_that_never_ends(tmp_path):
    refused(write(tmp_path, [*FREE, ('"' + "a" * 200_000, "b")]), "more than 131072 letters at line 32")


def refused(path, *told, **options):
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(BadData) as caught:
        read_pairs(path, **options)
    for text in told:
        assert text in str(caught.value)
    assert "What to do: " in str(caught.value) and str(path.parent) not in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_no_file(tmp_path):
    refused(tmp_path / "none.csv", "none.csv does not exist")
    refused(tmp_path, "is a folder")


def test_no_text(tmp_path):
    path = tmp_path / "my.csv"
    damaged = ("x,y\n" + "Köln,größer\n").encode().replace("ö".encode(), b"\xf6", 1)
    path.write_bytes(damaged)
    refused(path, "neither UTF-8 nor Latin-1", "byte 5 is 0xf6", "CSV UTF-8")
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xee,\xdd")
    refused(path, "neither UTF-8 nor Latin-1", "byte 0 is 0x89")
    path.write_bytes(b"x,y\n\0\0,1\n")
    refused(path, "binary")
    path.write_bytes(b"\xff\xfex\0,\0y\0\n\0\x00\xdc")
    refused(path, "like UTF-16")
    path.write_text("")
    refused(path, "empty")


@pytest.mark.parametrize(
    ("header", "options", "told"),
    [
        (("x",), {}, "has 1 column: 'x'"),
        (("a", "b", "c"), {}, "3 columns: 'a', 'b', 'c'"),
        (("a", "b", "c"), {"x": "a", "y": "z"}, "no column 'z'"),
        (("a", "a", "c"), {"x": "a", "y": "c"}, "more than one column 'a'"),
        (("a", "b", "c"), {"x": "a"}, "only one column is named, 'a'"),
        (("a", "b", "c"), {"x": "a", "y": "a"}, "both columns are 'a'"),
    ],
)
def test_which_columns(tmp_path, header, options, told):
    rows = [tuple(f"{c} {i}" for c in header) for i in range(20)]
    refused(write(tmp_path, rows, header=header), told, **options)


def test_the_lines_to_mend_are_named(tmp_path):
    path = write(tmp_path, [*FREE[:3], ("only",), *FREE[3:], ("no answer", " "), ("", "no input")])
    refused(path, "line 5 has 1 cell, not 2", "line 33 has an empty 'y'", "line 34 has an empty 'x'")
    many = write(tmp_path, [("a", "")] * 9 + FREE)
    refused(many, "line 2 has", "line 4 has", "and 6 more")
    refused(write(tmp_path, [('"a"b', "c"), *FREE]), "no proper CSV at line 2")


def test_a_text_with_a_comma_is_told_about_quotation_marks(tmp_path):
    refused(write(tmp_path, [*FREE, ("good, cheap", "yes")]), "line 32 has 3 cells", '"good, cheap"')


def test_a_file_without_names_of_columns_loses_no_pair(tmp_path):
    refused(write(tmp_path, LABELLED[1:], header=LABELLED[0]), "looks like a pair", "such as text,label")
    assert read_data(write(tmp_path, FREE[1:], header=FREE[0])).labels == ()  # free texts tell nothing


def test_why_answers_are_no_labels_is_told(tmp_path):
    told = read_data(write(tmp_path, [*LABELLED, ("odd", "other")])).summary()
    assert "No choice between labels, since 'other' occurs 1 time and 3 are needed." in told
    told = read_data(write(tmp_path, [*LABELLED, *((f"text {i}", "Good") for i in range(30, 34))])).summary()
    assert any("'Good' count as different answers" in line and "'good'" in line for line in told)
    for rows in (LABELLED, FREE):
        said = " ".join(read_data(write(tmp_path, rows)).summary())
        assert "No choice" not in said and "different answers" not in said


def test_a_file_that_contradicts_itself(tmp_path):
    path = write(tmp_path, [*FREE, ("in 3", "another")])
    refused(path, "'in 3' is 'out 3' in line 5 and 'another' in line 32")


def test_how_many(tmp_path):
    refused(write(tmp_path, FREE[:7]), "7 different pairs; 8 to 2000")
    assert read_pairs(write(tmp_path, FREE[:8])).query_set
    refused(write(tmp_path, [(f"i {i}", f"o {i}") for i in range(2001)]), "2001", "smaller file")
    refused(write(tmp_path, [(x, "yes") for x, _ in FREE]), "every answer", "'yes'")


def test_how_long(tmp_path, real_model):
    path = write(tmp_path, [*FREE, ("word " * 250, "out")])
    refused(path, "line 32 has 2", "200 is the most", tokenizer=real_model[1])
    assert read_pairs(write(tmp_path, FREE), real_model[1]).query_set


def test_a_faulty_cue_is_told_first(tmp_path):
    with pytest.raises(BadPrompt, match="needs"):
        read_pairs(tmp_path / "none.csv", cue="no place")
