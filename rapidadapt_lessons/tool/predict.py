"""Answers from an adapted model, each with its probability: many at a time, streaming, or as two columns of a CSV.

Where there are labels, the answer is the likeliest, and its probability is among them. Elsewhere the answer is what
greedy decoding writes, and its probability is that of these very tokens and of an end after them.
"""

from __future__ import annotations

import io
import os
import queue
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..choosing.csv_file import CsvFile, read_csv, read_text, write_rows
from ..errors import BadData, CourseError
from ..lm.download import DEFAULT_MODEL
from ..lm.model import context_length, load_model
from ..lora.files import load_adapter
from ..prompting import scoring
from ..prompting.answers import Answer, best_answers
from .saved_prompt import Adapted, read_adapted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

AT_ONCE = 64  # queries answered together
WAIT = 0.02  # seconds that a stream is given to bring more lines, before those that are there are answered
CHUNK = 65536  # bytes that are read from a stream at once, at most
ANSWER, PROBABILITY = "prediction", "probability"


@dataclass(frozen=True)
class Predictor:
    """A model with its adapter in it, and how it is asked."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    how: Adapted

    def answers(self, texts: Sequence[str], *, at_once: int = AT_ONCE) -> list[Answer]:
        """Answer every text, those of like length together. Runs of white space become one space, in answers too.

        Raises:
            BadPrompt: a text is empty or too long for the model; `too_long` tells beforehand.
        """
        texts = [" ".join(text.split()) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        found: dict[int, Answer] = {}
        for start in range(0, len(order), at_once):
            chunk = order[start : start + at_once]
            found |= zip(chunk, self._together([texts[i] for i in chunk]))
        return [found[i] for i in range(len(texts))]

    def too_long(self, text: str) -> int:
        """Return by how many tokens a text is too long for the model, its prompt and answer included; 0 if it fits."""
        prompt, count = self.how.prompt(" ".join(text.split())), lambda t: scoring.count_tokens(self.tokenizer, t)
        answer = max(map(count, scoring.label_continuations(prompt, self.how.labels)), default=0)
        # What is written is cut into tokens again to be scored, with its end: a little room for that.
        room = answer or self.how.max_new_tokens + 8
        return max(0, count(prompt.text) + room - context_length(self.model))

    def _together(self, texts: Sequence[str]) -> list[Answer]:
        import torch

        prompts = [self.how.prompt(text) for text in texts]
        options = {"prior": torch.tensor(self.how.prior) if self.how.prior else None}
        options["max_new_tokens"] = self.how.max_new_tokens
        found = best_answers(self.model, self.tokenizer, prompts, self.how.labels, **options)
        return [Answer(" ".join(text.split()), probability) for text, probability in found]


def load_predictor(folder: str | Path) -> Predictor:
    """Load what `adapt` wrote into the course's own model.

    Raises:
        CourseError: the folder is not from there, is damaged, or belongs to another model.
    """
    how = read_adapted(folder)
    if how.model != DEFAULT_MODEL:  # and never load whatever a file names
        raise CourseError(f"this belongs to the model {how.model!r}, not {DEFAULT_MODEL}.", "adapt again.")
    model, tokenizer = load_model()
    if how.adapter:
        load_adapter(model, Path(folder) / "adapter")
    return Predictor(model, tokenizer, how)


def lines_of_file(path: str | Path) -> Iterator[list[str]]:
    """Yield a text file's lines, AT_ONCE together. Encodings as in `csv_file.decode`."""
    lines = re.split(r"\r\n|\r|\n", read_text(Path(path))[0])
    lines = lines[:-1] if not lines[-1] else lines
    for start in range(0, len(lines), AT_ONCE):
        yield lines[start : start + AT_ONCE]


def lines_of_stream(stream: IO[bytes]) -> Iterator[list[str]]:
    """Yield a stream's lines as they come: those that are there, AT_ONCE at most, without waiting for more.

    Raises:
        BadData: a line is not UTF-8.
    """
    waiting: queue.Queue[bytes | None] = queue.Queue(maxsize=4 * AT_ONCE)

    def read() -> None:
        try:
            for line in _raw_lines(stream):
                waiting.put(line)
        finally:
            waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    number, ended = 0, False
    while not ended:
        lines: list[bytes] = []
        try:
            while len(lines) < AT_ONCE:
                line = waiting.get(timeout=WAIT if lines else None)
                if ended := line is None:
                    break
                lines.append(line)
        except queue.Empty:
            pass
        texts = []
        for line in lines:
            number += 1
            try:
                texts.append(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                raise BadData(
                    f"line {number} is not UTF-8 text.", "convert it, or give the file's name: files may be Latin-1."
                ) from error
        if texts:
            yield texts


def _raw_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a stream's lines with their line breaks; of a file descriptor, without taking the stream's own lock.

    Python closes the standard input when it ends, and aborts if a thread still waits inside `sys.stdin.buffer`.
    """
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        yield from stream
        return
    rest = b""
    while chunk := os.read(descriptor, CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def predict_lines(predictor: Predictor, groups: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each line: the answer, a tab, its probability. An empty line stays empty.

    Raises:
        BadData: a line is too long; those of the groups before it are answered.
    """
    before = 0
    for group in groups:
        asked = [i for i, text in enumerate(group) if text.strip()]
        for i in asked:
            _require_fits(predictor, group[i], f"line {before + i + 1}")
        answers = dict(zip(asked, predictor.answers([group[i] for i in asked])))
        before += len(group)
        for i in range(len(group)):
            yield f"{answers[i].text}\t{answers[i].probability:.3f}" if i in answers else ""


def predict_csv(
    predictor: Predictor, file: CsvFile, column: str, *, progress: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Return a CSV file's header and rows with two columns more, the answer and its probability.

    Rows that are short are filled up with empty cells. Where the column's cell is empty, so are the two new ones.

    Raises:
        BadData: there is no such column, a row has too many cells, or a cell is too long: with the lines.
    """
    from tqdm.auto import tqdm

    place, width = file.column(column), len(file.header)
    if wide := [line for line, row in file.rows if len(row) > width]:
        raise BadData(f"{file.name}: line {wide[0]} has more cells than the header.", "mend the line.")
    rows = [[*row, *[""] * (width - len(row))] for _, row in file.rows]
    asked = [i for i, row in enumerate(rows) if row[place].strip()]
    for i in asked:
        _require_fits(predictor, rows[i][place], f"{file.name}: line {file.rows[i][0]}")
    order = sorted(asked, key=lambda i: len(rows[i][place]))
    answers: dict[int, Answer] = {}
    with tqdm(total=len(asked), desc="answering", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), AT_ONCE):
            chunk = order[start : start + AT_ONCE]
            answers |= zip(chunk, predictor.answers([rows[i][place] for i in chunk]))
            bar.update(len(chunk))
    header = [*file.header, *(_new_name(name, file.header) for name in (ANSWER, PROBABILITY))]
    new = [[answers[i].text, f"{answers[i].probability:.3f}"] if i in answers else ["", ""] for i in range(len(rows))]
    return header, [[*row, *pair] for row, pair in zip(rows, new)]


def predict_csv_file(
    folder: str | Path,
    table: str | Path,
    column: str,
    out: str | Path | None,
    *,
    overwrite: bool = False,
    progress: bool = False,
    stdout: IO[str],
) -> str:
    """Answer a column of a CSV file, and write the table to a file, all of it or nothing, or to the standard output.

    Returns what there is to say about it. It is written as UTF-8, with the delimiter that it came with.

    Raises:
        CourseError: `out` is there and `overwrite` was not given, or it cannot be written.
        BadData: as `csv_file.read_csv` and `predict_csv`.
    """
    if out is not None and Path(out).exists() and not (overwrite and Path(out).is_file()):
        raise CourseError(f"{Path(out).name} is there already.", "name another file with --out, or add --overwrite.")
    file = read_csv(table)
    file.column(column)
    header, rows = predict_csv(load_predictor(folder), file, column, progress=progress)
    if out is None:
        write_rows(stdout, header, rows, file.delimiter)
    else:
        _replace(Path(out), header, rows, file)
    empty = sum(not row[-1] for row in rows)
    told = [f"{len(rows) - empty} answers" + (f"; {empty} rows have nothing in {column!r}" if empty else "") + "."]
    if n := formulas(rows):
        told.append(
            f"{n} cells begin with = + - or @ and were written as they are: import the file into a spreadsheet as text."
        )
    return " ".join(told)


def _replace(out: Path, header: Sequence[str], rows: Sequence[Sequence[str]], file: CsvFile) -> None:
    """Write a file under a temporary name and rename it. A byte-order mark stays where there was one."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    encoding = "utf-8" if file.encoding == "UTF-8" else "utf-8-sig"
    try:
        with part.open("w", newline="", encoding=encoding) as opened:
            write_rows(opened, header, rows, file.delimiter)
        os.replace(part, out)
    except OSError as error:
        raise CourseError(f"{out.name} cannot be written ({error.strerror}).", "name another file.") from error
    finally:
        part.unlink(missing_ok=True)


def formulas(rows: Iterable[Sequence[str]]) -> int:
    """Return how many cells a spreadsheet would take for a formula: those that begin with = + - or @, numbers aside."""
    return sum(bool(re.match(r"[=+\-@]", cell)) and not _is_number(cell) for row in rows for cell in row)


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?[\d.,]+%?", text))


def _new_name(name: str, taken: Sequence[str]) -> str:
    names = (name if i == 1 else f"{name} {i}" for i in range(1, len(taken) + 2))
    return next(n for n in names if n not in taken)


def _require_fits(predictor: Predictor, text: str, where: str) -> None:
    if len(text) > 100_000 or (beyond := predictor.too_long(text)):
        by = "far" if len(text) > 100_000 else f"{beyond} tokens"
        raise BadData(f"{where} is {by} too long for the model.", "shorten or delete it.")
