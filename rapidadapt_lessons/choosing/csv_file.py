"""A CSV file as it lies on disk: its encoding, its delimiter, its header, and its rows with their lines.

Cells are data: none is changed, interpreted or left out. Pandas would lose a row's line and its number of cells, which
messages need; charset-normalizer takes short texts in Latin-1 for Central European ones."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadData

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_AS_UTF8 = 'save it as "CSV UTF-8" in your spreadsheet.'


@dataclass(frozen=True)
class CsvFile:
    """What was read."""

    name: str  # without its folder
    encoding: str  # "UTF-8", "UTF-8 with a byte-order mark", "UTF-16", "Latin-1" or "Windows-1252"
    delimiter: str
    header: tuple[str, ...]  # the names of the columns, from the first line
    rows: tuple[tuple[int, tuple[str, ...]], ...]  # every other row that is not empty: the line it begins at, its cells

    @property
    def names(self) -> str:
        """The names of the columns, for messages."""
        return ", ".join(map(repr, self.header))

    def column(self, name: str) -> int:
        """Return where a column stands. Raises BadData where there is no such column, or more than one."""
        if self.header.count(name) != 1:
            how = "no" if name not in self.header else "more than one"
            raise BadData(f"{self.name} has {how} column {name!r}; it has {self.names}.", "name one of these.")
        return self.header.index(name)


def read_csv(path: str | Path) -> CsvFile:
    """Read a CSV file. The delimiter is the one of comma, semicolon and tab that the first line has most of.

    Raises BadData, with the line, where the file is missing, empty, not text, or no proper CSV.
    """
    path = Path(path)
    text, encoding = read_text(path)
    first = text.partition("\n")[0]
    if not first.strip():
        raise BadData(f"{path.name} is empty, or its first line is.", "put the names of the columns there.")
    bare = re.sub(r'"[^"]*"', "", first)  # a delimiter in quotation marks is none
    delimiter = max(DELIMITERS, key=bare.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, end = [], 0  # the line at which the row before ends
    try:
        for row in reader:
            rows.append((end + 1, tuple(row)))
            end = reader.line_num
    except csv.Error as error:
        problem = f"is no proper CSV at line {reader.line_num}: {error}."
        remedy = 'put a text with quotation marks in quotation marks, and double those inside: "say ""hi""".'
        if "field limit" in str(error):
            problem = f"has a cell of more than {csv.field_size_limit()} letters at line {end + 1}."
            remedy = "shorten it; if a quotation mark was opened and never closed, close it."
        raise BadData(f"{path.name} {problem}", remedy) from error
    header = tuple(name.strip() for name in rows[0][1])
    filled = tuple((line, row) for line, row in rows[1:] if any(cell.strip() for cell in row))
    return CsvFile(path.name, encoding, delimiter, header, filled)


def read_text(path: Path) -> tuple[str, str]:
    """Return a text file's text and the name of its encoding. Raises BadData where it is missing, or not text."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise BadData(f"{path.name} {what}.", "give the path of a file; on Binder or Colab, upload it first.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path.name} cannot be read ({error.strerror}).", "check its permissions.") from error
    return decode(data, path.name)


def decode(data: bytes, name: str) -> tuple[str, str]:
    """Return the text that bytes stand for, and its encoding: UTF-8; UTF-16 with its mark; else one byte a letter.

    What is not UTF-8 counts as Latin-1 (or its extension Windows-1252) unless it holds control characters, or is
    mostly UTF-8: then it is binary data, or damaged, and BadData is raised.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    marked = data.startswith(codecs.BOM_UTF8)
    codec = "utf-16" if utf16 else "utf-8-sig"
    if "\0" in data.decode(codec, errors="ignore"):
        raise BadData(f"{name} holds binary data, not text.", _AS_UTF8)
    try:
        return data.decode(codec), "UTF-16" if utf16 else "UTF-8 with a byte-order mark" if marked else "UTF-8"
    except UnicodeDecodeError as error:
        if utf16:
            raise BadData(f"{name} begins like UTF-16 text and is none (byte {error.start}).", _AS_UTF8) from error
        cause = error
    letters = [c for c in data.decode("utf-8", errors="surrogateescape") if c > "\x7f"]
    damaged = sum("\udc80" <= c <= "\udcff" for c in letters)
    control = re.search(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]", data)
    if not marked and not control and damaged * 2 > len(letters):
        encoding = "Windows-1252" if re.search(rb"[\x80-\x9f]", data) else "Latin-1"
        with suppress(UnicodeDecodeError):
            return data.decode(encoding), encoding
    faulty = f"byte {cause.start} is {data[cause.start]:#04x}"
    raise BadData(f"{name} is neither UTF-8 nor Latin-1 text ({faulty}).", _AS_UTF8) from cause


def write_rows(file, header: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str) -> None:
    """Write rows as CSV. Every cell comes out of `read_csv` as it went in, also one that begins with = + - or @."""
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
