"""Answers from an adapted model, each with its probability: many at a time, streaming, or as two columns of a CSV.

Answers and probabilities are those of `answers.best_answers`.
"""

from __future__ import annotations

import io
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..choosing.csv_file import CsvFile, read_csv, read_text, write_rows
from ..errors import BadData, CourseError
from ..files import write_whole
from ..lm.download import DEFAULT_MODEL
from ..lm.model import context_length, load_model
from ..lm.types import Model, Tokenizer
from ..lora.files import load_adapter
from ..prompting import scoring
from ..prompting.answers import Answer, best_answers
from .saved_prompt import Adapted, read_adapted

AT_ONCE = 64  # queries answered together
CHUNK = 65536  # bytes that are read from a stream at once, at most
MOST_CHARACTERS = 100_000  # of a query: a longer one is not even cut into tokens
ANSWER, PROBABILITY = "prediction", "probability"


@dataclass(frozen=True)
class Predictor:
    """A model with its adapter in it, and how it is asked."""

    model: Model
    tokenizer: Tokenizer
    how: Adapted

    def answers(self, texts: Sequence[str], *, progress: bool = False) -> list[Answer]:
        """Answer every text, those of like length together. Runs of white space become one space, in answers too.

        Raises BadPrompt where a text is empty or too long for the model; `too_long` tells beforehand.
        """
        from tqdm.auto import tqdm

        texts = [" ".join(text.split()) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        prior = torch.tensor(self.how.prior) if self.how.prior else None
        options = {"prior": prior, "max_new_tokens": self.how.max_new_tokens}
        found: dict[int, Answer] = {}
        for start in tqdm(range(0, len(order), AT_ONCE), desc="answering", disable=not progress, leave=False):
            chunk = order[start : start + AT_ONCE]
            prompts = [self.how.prompt(texts[i]) for i in chunk]
            answers = best_answers(self.model, self.tokenizer, prompts, self.how.labels, **options)
            found |= zip(chunk, (Answer(" ".join(text.split()), probability) for text, probability in answers))
        return [found[i] for i in range(len(texts))]

    def too_long(self, text: str) -> int:
        """Return by how many tokens a text is too long for the model, its prompt and answer included; 0 if it fits."""
        prompt, count = self.how.prompt(" ".join(text.split())), lambda t: scoring.count_tokens(self.tokenizer, t)
        answer = max(map(count, scoring.label_continuations(prompt, self.how.labels)), default=0)
        # What is written is cut into tokens again to be scored, with its end: a little room for that.
        room = answer or self.how.max_new_tokens + 8
        return max(0, count(prompt.text) + room - context_length(self.model))


def load_predictor(folder: str | Path) -> Predictor:
    """Load what `adapt` wrote into the course's own model. Raises CourseError for another folder, or another model."""
    how = read_adapted(folder)
    if how.model != DEFAULT_MODEL:  # and never load whatever a file names
        raise CourseError(f"this belongs to the model {how.model!r}, not {DEFAULT_MODEL}.", "adapt again.")
    model, tokenizer = load_model()
    if how.adapter:
        load_adapter(model, Path(folder) / "adapter")
    return Predictor(model, tokenizer, how)


def lines_of_file(path: str | Path) -> Iterator[list[str]]:
    """Yield a text file's lines, AT_ONCE together. Encodings as in `csv_file.decode`."""
    return _in_groups([line.rstrip("\n") for line in io.StringIO(read_text(Path(path))[0], newline=None)])


def lines_of_stream(stream: io.BufferedIOBase) -> Iterator[list[str]]:
    """Yield a stream's lines as they come: those that one read finds there, AT_ONCE at most.

    So a writer that waits for an answer gets it, and one that does not is answered in groups. Raises BadData where a
    line is not UTF-8.
    """
    number, rest, ended = 0, b"", False
    while not ended:
        chunk = stream.read1(CHUNK)  # waits for the first byte alone
        ended = not chunk
        *lines, rest = (rest + chunk).split(b"\n")
        if ended and rest:
            lines.append(rest)
        for group in _in_groups(lines):
            yield [_decoded(line, number + i) for i, line in enumerate(group, start=1)]
            number += len(group)


def _in_groups(lines: Sequence) -> Iterator[Sequence]:
    return (lines[start : start + AT_ONCE] for start in range(0, len(lines), AT_ONCE))


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        remedy = "convert it, or give the file's name: files may be Latin-1."
        raise BadData(f"line {number} is not UTF-8 text.", remedy) from error


def predict_lines(predictor: Predictor, groups: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each line: the answer, a tab, its probability. An empty line stays empty.

    Raises BadData where a line is too long; those of the groups before it are answered.
    """
    before = 0
    for group in groups:
        places = [f"line {before + i}" for i in range(1, len(group) + 1)]
        for cells in _cells(predictor, group, places):
            yield "\t".join(cells) if any(cells) else ""
        before += len(group)


def predict_csv(
    predictor: Predictor, file: CsvFile, column: str, *, progress: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Return a CSV file's header and rows with two columns more, the answer and its probability.

    Rows that are short are filled up with empty cells. Where the column's cell is empty, so are the two new ones.
    Raises BadData, with the line, where there is no such column, or a row or a cell is too long.
    """
    place, width = file.column(column), len(file.header)
    if wide := [line for line, row in file.rows if len(row) > width]:
        raise BadData(f"{file.name}: line {wide[0]} has more cells than the header.", "mend the line.")
    rows = [[*row, *[""] * (width - len(row))] for _, row in file.rows]
    places = [f"{file.name}: line {line}" for line, _ in file.rows]
    new = _cells(predictor, [row[place] for row in rows], places, progress=progress)
    header = [*file.header, *(_new_name(name, file.header) for name in (ANSWER, PROBABILITY))]
    return header, [[*row, *cells] for row, cells in zip(rows, new)]


def _cells(predictor: Predictor, texts: Sequence[str], places: Sequence[str], **options) -> list[tuple[str, str]]:
    """Return each answer and its probability as texts, empty for an empty text. Raises BadData, naming its place, for
    one that is too long."""
    asked = [i for i, text in enumerate(texts) if text.strip()]
    for i in asked:
        far = len(texts[i]) > MOST_CHARACTERS
        if far or (beyond := predictor.too_long(texts[i])):
            by = "far" if far else f"{beyond} tokens"
            raise BadData(f"{places[i]} is {by} too long for the model.", "shorten or delete it.")
    cells = [("", "")] * len(texts)
    for i, answer in zip(asked, predictor.answers([texts[i] for i in asked], **options)):
        cells[i] = answer.text, f"{answer.probability:.3f}"
    return cells


def predict_csv_file(
    folder: Path, table: Path, column: str, out: Path | None, *, overwrite: bool = False, progress: bool = False
) -> str:
    """Answer a column of a CSV file, and write the table to a file, all of it or nothing, or to the standard output.

    It is written as UTF-8, with the delimiter that it came with. Returns what there is to say about it. Raises
    CourseError where `out` is there and `overwrite` was not given, or it cannot be written; and as `predict_csv`.
    """
    if out is not None and out.exists() and not (overwrite and out.is_file()):
        raise CourseError(f"{out.name} is there already.", "name another file with --out, or add --overwrite.")
    file = read_csv(table)
    file.column(column)
    header, rows = predict_csv(load_predictor(folder), file, column, progress=progress)
    if out is None:
        write_rows(sys.stdout, header, rows, file.delimiter)
    else:
        text = io.StringIO(newline="")
        try:
            write_rows(text, header, rows, file.delimiter)
            write_whole(out, text.getvalue().encode("utf-8" if file.encoding == "UTF-8" else "utf-8-sig"))
        except OSError as error:
            raise CourseError(f"{out.name} cannot be written ({error.strerror}).", "name another file.") from error
    empty = sum(not row[-1] for row in rows)
    said = f"{len(rows) - empty} answers" + (f"; {empty} rows have nothing in {column!r}" if empty else "") + "."
    if n := formulas(rows):
        said += f" {n} cells begin with = + - or @ and were written as they are: "
        said += "import the file into a spreadsheet as text."
    return said


def formulas(rows: Iterable[Sequence[str]]) -> int:
    """Return how many cells a spreadsheet would take for a formula: those that begin with = + - or @, numbers aside."""
    number = r"[+-]?[\d.,]+%?"
    return sum(cell[:1] in {*"=+-@"} and not re.fullmatch(number, cell) for row in rows for cell in row)


def _new_name(name: str, taken: Sequence[str]) -> str:
    numbered = (f"{name} {i}" for i in itertools.count(2))
    return next(new for new in itertools.chain([name], numbered) if new not in taken)
