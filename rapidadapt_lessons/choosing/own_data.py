"""A reader's own text pairs, from a CSV file to a `Task`, with messages that say which line to mend.

The first line names the columns; each line after it is a pair, what the model reads and what it should answer.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from ..errors import BadData
from ..lm.tasks import Example, Task
from ..lm.types import Tokenizer
from ..prompting.own_text import MOST_LABELS
from ..prompting.prompts import Template
from .csv_file import DELIMITERS, CsvFile, read_csv

LEAST_ROWS = 8
MOST_ROWS = 2000
MOST_QUERIES = 48
LEAST_OF_LABEL = 3  # times that each label has to occur
MOST_TOKENS = 200  # of one pair; 8 such in a prompt fit the context of 2048
CUE = "Input: {x}\nOutput: {y}"


@dataclass(frozen=True)
class Reading:
    """What a file of pairs held, and how it was read."""

    file: CsvFile
    x: str  # the column that the model reads
    y: str  # the one that it answers
    pairs: tuple[tuple[int, Example], ...]  # every row that can be used, with the line that it begins at
    examples: tuple[Example, ...]  # the different pairs, in the file's order
    labels: tuple[str, ...]  # the answers, where they are a few that return; else empty
    skipped: tuple[str, ...]  # each row that was left out because a cell of it is missing, in words

    def summary(self) -> list[str]:
        """Say how the file was read, in lines for people."""
        file, twice = self.file, len(self.pairs) - len(self.examples)
        lines = [
            f"{file.name}: {file.encoding}, cells separated by a {DELIMITERS[file.delimiter]}, "
            f"{len(file.rows)} rows below the header.",
            f"Columns: {file.names}. The model reads {self.x!r} and answers {self.y!r}.",
        ]
        if file.encoding in ("Latin-1", "Windows-1252"):
            beyond = next((t for e in self.examples for t in e if not t.isascii()), None)
            seen = f' (for instance "{beyond[:40]}")' if beyond else ""
            lines.append(f"Not UTF-8, so it was taken as {file.encoding}: check that letters look right{seen}.")
        if self.skipped:
            lines.append(
                f"Skipped, since a cell is missing: {_count(len(self.skipped), 'row')} ({_some(self.skipped)})."
            )
        duplicates = f"{_count(twice, 'row')}, counted once" if twice else "none"
        lines.append(f"Duplicates: {duplicates}. Conflicting answers: none.")
        kind = f"a choice between {', '.join(map(repr, self.labels))}" if self.labels else "texts to be written"
        lines.append(f"Used: {len(self.examples)} different pairs. The answers are {kind}.")
        counts = Counter(example.y for example in self.examples)
        if not self.labels and len(counts) <= MOST_LABELS and max(counts.values()) >= LEAST_OF_LABEL:
            answer, times = min(counts.items(), key=lambda item: item[1])
            few = f"{answer!r} occurs {_count(times, 'time')} and {LEAST_OF_LABEL} are needed"
            lines.append(f"No choice between labels, since {few}.")
        alike = defaultdict(list)
        for answer in counts:
            alike[answer.casefold()].append(repr(answer))
        for spellings in [spellings for spellings in alike.values() if len(spellings) > 1][:3]:
            different = " and ".join(spellings[:3])
            lines.append(f"{different} count as different answers: write them alike if they are not.")
        return lines


def read_data(
    path: str | Path, *, x: str | None = None, y: str | None = None,
    skip_missing: bool = False, naming: str = 'read_pairs(path, x="question", y="answer")',
) -> Reading:  # fmt: skip
    """Read a CSV file of text pairs. Runs of white space count as one space.

    Args:
        x, y: the columns that the model reads and answers; None where there are two columns.
        skip_missing: leave rows out that lack a cell, and list them; otherwise they are an error.
        naming: how the reader can name columns, for messages.

    Raises BadData, with the lines to mend, where the file is no table of pairs, contradicts itself, or has too few or
    too many pairs, or one answer only.
    """
    file = read_csv(path)
    columns = _columns(file, x, y, naming)
    pairs, skipped = _pairs(file, columns, skip_missing)
    examples = _once(file.name, pairs)
    if not LEAST_ROWS <= len(examples) <= MOST_ROWS:
        few = len(examples) < LEAST_ROWS
        left_out = f" ({_count(len(skipped), 'row')} skipped, since a cell is missing)" if skipped else ""
        raise BadData(
            f"{file.name} has {len(examples)} different pairs{left_out}; {LEAST_ROWS} to {MOST_ROWS} can be used.",
            "add more: 20 are a start, 64 are good." if few else "keep a random part of it in a smaller file.",
        )
    if len({e.y for e in examples}) == 1:
        raise BadData(f"every answer in {file.name} is {examples[0].y!r}.", "give pairs with different answers.")
    names, labels = [file.header[i] for i in columns], _labels(examples)
    if names[1] in labels:
        raise BadData(
            f"the first line of {file.name}, {file.names}, looks like a pair, not like names.",
            "put a line with the columns' names above it, such as text,label; or give the second column another name.",
        )
    return Reading(file, *names, tuple(pairs), tuple(examples), labels, tuple(skipped))


def read_pairs(
    path: str | Path, tokenizer: Tokenizer | None = None, *,
    x: str | None = None, y: str | None = None, cue: str = CUE, seed: int = 0,
) -> Task:  # fmt: skip
    """Read a CSV file of text pairs, and split it into examples to learn from and held-out queries.

    A third of the pairs, 48 at most, are held out, drawn at random. Pairs that occur twice count once. Where there are
    2 to 8 different answers, each at least 3 times, they are taken as labels.

    Args:
        tokenizer: to check that no pair is too long for the model; None to leave that out.
        cue: how one pair is written for the model, with {x} and, at the end, {y}.

    Raises BadData as `read_data`, and where a row lacks a cell or a pair is too long; BadPrompt for a faulty cue.
    """
    Template(cue)  # raises where it is faulty, before anything is read
    reading = read_data(path, x=x, y=y)
    if tokenizer is not None:
        require_short(reading, tokenizer, MOST_TOKENS, cue)
    held_out, rest = split(reading, [min(MOST_QUERIES, len(reading.examples) // 3)], seed)
    return as_task(reading, rest, held_out, cue)


def as_task(reading: Reading, pool: Sequence[Example], queries: Sequence[Example], cue: str = CUE) -> Task:
    """Return a task that is learned from the pool and measured on the queries."""
    stem = Path(reading.file.name).stem
    return Task(
        name=stem, title=stem.replace("_", " "), instruction="Answer as in the examples.", cue=cue, question="{x}",
        source=reading.file.name, support_pool=tuple(pool), query_set=tuple(queries), labels=reading.labels,
    )  # fmt: skip


def split(reading: Reading, sizes: Sequence[int], seed: int) -> list[tuple[Example, ...]]:
    """Split the different pairs at random into parts of these sizes and the rest, each with its share of each label."""
    examples = list(reading.examples)
    random.Random(seed).shuffle(examples)
    if reading.labels:
        examples = _spread(examples)
    cuts = [0, *accumulate(sizes), len(examples)]
    return [tuple(examples[start:end]) for start, end in pairwise(cuts)]


def require_short(reading: Reading, tokenizer: Tokenizer, most: int, cue: str = CUE) -> None:
    """Raise BadData, naming the lines, where a pair as it is written for the model has more than `most` tokens."""
    template = Template(cue)
    texts = [template.shot(*pair) for _, pair in reading.pairs]
    counts = [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
    long = [f"line {line} has {n} tokens" for (line, _), n in zip(reading.pairs, counts) if n > most]
    if long:
        raise BadData(f"{reading.file.name}: {_some(long)}; {most} is the most.", "shorten or delete them.")


def _columns(file: CsvFile, x: str | None, y: str | None, naming: str) -> tuple[int, int]:
    if (x is None) != (y is None):
        raise BadData(f"only one column is named, {x or y!r}.", f"name both columns, or neither: {naming}.")
    if x is None:
        if len(file.header) == 2:
            return 0, 1
        remedy = "two are needed: cells are separated by a comma, a semicolon or a tab."
        if len(file.header) > 2:
            remedy = f"name the two to use: {naming}."
        raise BadData(f"{file.name} has {_count(len(file.header), 'column')}: {file.names}.", remedy)
    places = file.column(x), file.column(y)
    if x == y:
        raise BadData(f"both columns are {x!r}.", f"name two different ones: {naming}.")
    return places


def _pairs(file: CsvFile, columns: Sequence[int], skip_missing: bool) -> tuple[list[tuple[int, Example]], list[str]]:
    """Return each pair with its line, and the rows that were skipped, in words."""
    found, skipped, faulty = [], [], []
    incomplete = skipped if skip_missing else faulty
    width = len(file.header)
    for line, row in file.rows:
        cells = f"line {line} has {_count(len(row), 'cell')}, not {width}"
        if len(row) > width:
            faulty.append(cells)
        elif len(row) <= max(columns) or (len(row) < width and not skip_missing):
            incomplete.append(cells)
        else:
            pair = Example(*(" ".join(row[c].split()) for c in columns))
            if "" in pair:
                incomplete.append(f"line {line} has an empty {file.header[columns[pair.index('')]]!r}")
            else:
                found.append((line, pair))
    if faulty:
        remedy = "mend or delete these lines."
        if any(len(row) > width for _, row in file.rows):
            remedy += ' A text that holds a comma stands in quotation marks: "good, cheap".'
        raise BadData(f"{file.name}: {_some(faulty)}.", remedy)
    return found, skipped


def _once(name: str, pairs: Sequence[tuple[int, Example]]) -> list[Example]:
    """Return each pair once, or say where the file contradicts itself."""
    first: dict[str, tuple[int, Example]] = {}
    against = []
    for line, pair in pairs:
        earlier, known = first.setdefault(pair.x, (line, pair))
        if known.y != pair.y:
            against.append(f"{pair.x[:40]!r} is {known.y[:40]!r} in line {earlier} and {pair.y[:40]!r} in line {line}")
    if against:
        raise BadData(f"{name} contradicts itself: {_some(against, 20)}.", "keep one answer for each input.")
    return [pair for _, pair in first.values()]


def _labels(examples: Sequence[Example]) -> tuple[str, ...]:
    counts = Counter(e.y for e in examples)
    few = 2 <= len(counts) <= MOST_LABELS
    return tuple(sorted(counts)) if few and min(counts.values()) >= LEAST_OF_LABEL else ()


def _spread(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with each label spread evenly over the whole, so that any stretch has its share of each."""
    of, seen, places = Counter(e.y for e in examples), Counter(), {}
    for e in examples:
        seen[e.y] += 1
        places[e] = (seen[e.y] - 0.5) / of[e.y]
    return sorted(examples, key=lambda e: (places[e], e.y))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _some(texts: Sequence[str], most: int = 3) -> str:
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
