"""A reader's own text pairs, from a CSV file to a `Task`, with messages that say which line to mend.

The file has a first line with the names of the columns, and from the second line on one pair a line: what the model
reads, and what it should answer. Nothing is written, and the file is read as it is on disk.
"""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BadData
from .prompting import Template
from .tasks import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST_ROWS = 12  # 8 to learn from and 4 to be tested on
MOST_ROWS = 2000
MOST_QUERIES = 48
MOST_LABELS = 8  # a file with more different answers is no choice between labels
MOST_TOKENS = 200  # of one pair; 8 such in a prompt fit the context of 2048
CUE = "Input: {x}\nOutput: {y}"


def read_pairs(
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    cue: str = CUE,
    seed: int = 0,
) -> Task:
    """Read a CSV file of text pairs, and split it into examples to learn from and held-out queries.

    A third of the pairs, 48 at most, are held out, drawn at random. Pairs that occur twice count once. Where there are
    2 to 8 different answers, each at least 3 times, they are taken as labels.

    Args:
        tokenizer: to check that no pair is too long for the model; None to leave that out.
        x: the column that the model reads; None for the first of two.
        y: the column that it should answer; None for the second of two.
        cue: how one pair is written for the model, with {x} and, at the end, {y}.
        seed: of the split.

    Raises:
        BadData: the file is missing, not text, not a table of pairs, contradicts itself, has too few or too many
            pairs, or one that is too long: with the lines to mend.
        BadPrompt: the cue lacks {x} or {y}.
    """
    path = Path(path)
    Template(cue)  # raises where it is faulty, before anything is read
    pairs = _pairs(path, x, y)
    examples = _once(path, pairs)
    if not LEAST_ROWS <= len(examples) <= MOST_ROWS:
        few = len(examples) < LEAST_ROWS
        raise BadData(
            f"{path.name} has {len(examples)} different pairs; {LEAST_ROWS} to {MOST_ROWS} can be used.",
            "add more: 20 are a start, 64 are good." if few else "keep a random part of it in a smaller file.",
        )
    _require_short(path, pairs, tokenizer, cue)
    labels = _labels(examples)
    if len({e.y for e in examples}) == 1:
        raise BadData(f"every answer in {path.name} is {examples[0].y!r}.", "give pairs with different answers.")
    random.Random(seed).shuffle(examples)
    if labels:
        examples = _dealt(examples, labels)
    held_out = min(MOST_QUERIES, len(examples) // 3)
    return Task(
        name=path.stem,
        title=path.stem.replace("_", " "),
        instruction="Answer as in the examples.",
        cue=cue,
        question="{x}",
        source=path.name,
        support_pool=tuple(examples[held_out:]),
        query_set=tuple(examples[:held_out]),
        labels=labels,
    )


def _pairs(path: Path, x: str | None, y: str | None) -> list[tuple[int, Example]]:
    """Return each pair with its line in the file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise BadData(f"{path.name} {what}.", "give the path of a CSV file; on Binder or Colab, upload it first.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(
            f"{path.name} is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}).",
            'save it as "CSV UTF-8" in your spreadsheet.',
        ) from error
    if "\0" in text:
        raise BadData(f"{path.name} holds binary data, not text.", 'save it as "CSV UTF-8" in your spreadsheet.')
    first = text.partition("\n")[0]
    if not first.strip():
        raise BadData(f"{path.name} is empty, or its first line is.", "put the names of the columns there.")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        columns = _columns(path, header, x, y)
        found, faulty = [], []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue  # an empty line
            if len(row) != len(header):
                faulty.append(f"line {reader.line_num} has {len(row)} cell{'s' * (len(row) != 1)}, not {len(header)}")
                continue
            pair = Example(*(" ".join(row[c].split()) for c in columns))
            if not pair.x or not pair.y:
                faulty.append(f"line {reader.line_num} has an empty {header[columns[0 if not pair.x else 1]]!r}")
                continue
            found.append((reader.line_num, pair))
    except csv.Error as error:
        raise BadData(
            f"{path.name} is no proper CSV at line {reader.line_num}: {error}.",
            'put a text with quotation marks in quotation marks, and double those inside: "say ""hi""".',
        ) from error
    if faulty:
        raise BadData(f"{path.name}: {_some(faulty)}.", "mend or delete these lines.")
    return found


def _columns(path: Path, header: Sequence[str], x: str | None, y: str | None) -> tuple[int, int]:
    names = ", ".join(map(repr, header))
    if (x is None) != (y is None):
        raise BadData(f"x={x!r} and y={y!r}.", "name both columns, or neither.")
    if x is None:
        if len(header) != 2:
            raise BadData(
                f"{path.name} has {len(header)} column{'s' * (len(header) != 1)}: {names}.",
                'name the two to use: read_pairs(path, x="question", y="answer").',
            )
        return 0, 1
    for name in (x, y):
        if header.count(name) != 1:
            how = "no" if name not in header else "more than one"
            raise BadData(f"{path.name} has {how} column {name!r}; it has {names}.", "name two of these.")
    if x == y:
        raise BadData(f"x and y are both {x!r}.", "name two different columns.")
    return header.index(x), header.index(y)


def _once(path: Path, pairs: Sequence[tuple[int, Example]]) -> list[Example]:
    """Return each pair once, or say where the file contradicts itself."""
    first: dict[str, tuple[int, Example]] = {}
    against = []
    for line, pair in pairs:
        earlier, known = first.setdefault(pair.x, (line, pair))
        if known.y != pair.y:
            against.append(f"{pair.x[:40]!r} is {known.y[:40]!r} in line {earlier} and {pair.y[:40]!r} in line {line}")
    if against:
        raise BadData(f"{path.name} contradicts itself: {_some(against)}.", "keep one answer for each input.")
    return [pair for _, pair in first.values()]


def _require_short(path: Path, pairs, tokenizer, cue: str) -> None:
    if tokenizer is None:
        return
    template = Template(cue)
    texts = [template.shot(*pair) for _, pair in pairs]
    counts = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    long = [f"line {line} has {n} tokens" for (line, _), n in zip(pairs, counts) if n > MOST_TOKENS]
    if long:
        raise BadData(f"{path.name}: {_some(long)}; {MOST_TOKENS} is the most.", "shorten or delete them.")


def _labels(examples: Sequence[Example]) -> tuple[str, ...]:
    counts = Counter(e.y for e in examples)
    few = 2 <= len(counts) <= MOST_LABELS
    return tuple(sorted(counts)) if few and min(counts.values()) >= 3 else ()


def _dealt(examples: Sequence[Example], labels: Sequence[str]) -> list[Example]:
    """Return the examples with the labels in turn as far as they reach, so that the held-out part is balanced."""
    columns = [[e for e in examples if e.y == label] for label in labels]
    rounds = range(max(map(len, columns)))
    return [column[i] for i in rounds for column in columns if i < len(column)]


def _some(texts: Sequence[str], most: int = 3) -> str:
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
