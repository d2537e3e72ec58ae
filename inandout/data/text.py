"""Write text files atomically, and read CSV text as Excel, LibreOffice, pandas, Windows and macOS write it.

Accepted are UTF-8 and UTF-16 with a byte order mark, the separators comma, semicolon and tab, a first line such as
`sep=;`, column names in any case, blanks around values, empty rows, an index column without a name, `nan` and similar
for an empty cell, `True` and `1.0` for labels, backslashes in relative paths, and file names in another Unicode form.
"""

import codecs
import csv
import io
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from inandout.errors import InputError
from inandout.files import replacing

csv.field_size_limit(2**31 - 1)  # a synthetic image may have thousands of sources; the default is 131072 characters

_NO_NUMBER = {"", "nan", "<na>", "n/a", "na", "none", "null", "nat"}
"""Spellings of an empty cell, in lower case."""
_NO_TEXT = {"nan", "<na>"}
"""The same in columns of free text, where `none` may be a name."""
_LABELS = {"false": "0", "true": "1", "0.0": "0", "1.0": "1"}
SPLITS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
"""Other words for the splits."""


class Table(NamedTuple):
    """A CSV file."""

    columns: list[str]
    """Names in lower case."""
    rows: list[tuple[int, list[str]]]
    """Line number and cells of every row that is not empty."""


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `\n` line ends to a temporary file, and rename it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def decode_text(content: bytes) -> str:
    """Decode a file by its byte order mark; without one it is UTF-8.

    Raises:
        UnicodeError: the bytes are in another encoding, or no text.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16")
    else:
        text = content.decode("utf-8-sig")
    if "\0" in text:
        raise UnicodeError("not UTF-8 text: it contains NUL characters")
    return text


def read_table(path: Path, text: str) -> Table:
    """Split CSV text into cells; the separator is the one that finds the columns `image` and `label`.

    Raises:
        InputError: a column is repeated, or the quotes are damaged.
    """
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r"\ufeff?sep=(.)\r?", first)
    separator = stated[1] if stated else _separator(text)
    reader = csv.reader(
        io.StringIO(rest if stated else text, newline=""),  # keeps line breaks inside prompts
        delimiter=separator,
        skipinitialspace=f"image{separator} " in text or f"label{separator} " in text,  # else a prompt may begin so
    )
    try:
        lines = [(reader.line_num + bool(stated), cells) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, after line {reader.line_num}: {error}; correct the row") from error
    filled = [(line, cells) for line, cells in lines if any(cell.strip() for cell in cells)]
    if not filled:
        return Table([], [])
    columns = [cell.strip().lower() for cell in filled[0][1]]
    rows = filled[1:]
    if columns[0] in ("", "unnamed: 0") and all(cells[0].strip().isdecimal() for _, cells in rows):
        columns, rows = columns[1:], [(line, cells[1:]) for line, cells in rows]  # the index of pandas
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: the columns {repeated} appear more than once; remove or rename one of each")
    return Table(columns, rows)


def _separator(text: str) -> str:
    header = next((line for line in text.splitlines() if line.strip()), "").lower()
    for separator in (",", ";", "\t"):
        names = {cell.strip().strip('"').strip() for cell in header.split(separator)}
        if {"image", "label"} <= names:
            return separator
    return ","


def clean_row(row: dict[str, str]) -> dict[str, str]:
    """Return the cells of a row by column, without blanks and other spellings of nothing; prompts are unchanged."""
    return {name: _clean(name, value) for name, value in row.items()}


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def to_cell(text: str) -> str:
    """Return text for a CSV cell that spreadsheets do not run as a formula: `'` stands before one."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_cell(cell: str) -> str:
    """Return the text from which `to_cell` made the cell."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _clean(name: str, value: str) -> str:
    if name == "prompt":
        return from_cell(value)
    plain = from_cell(value.strip())
    lower = plain.lower()
    if name == "label":
        return _LABELS.get(lower, plain)
    if name == "split":
        return "" if lower in _NO_NUMBER else SPLITS.get(lower, lower)
    if name in ("mask", "seed", "alpha"):
        return "" if lower in _NO_NUMBER else plain
    if name in ("defect", "group"):
        return "" if lower in _NO_TEXT else plain
    return plain


def path_problem(text: str) -> str:
    """Return why a path of a manifest cannot be used on this computer, and the fix; "" if it can."""
    if not text or text == ".":
        return "no file is named; give a path, relative to the manifest"
    if "\0" in text or any(len(part.encode()) > 255 for part in re.split(r"[/\\]", text)):
        return "not a file name; give a path, relative to the manifest"
    if re.match(r"\w[\w+.-]+:/", text):
        return "addresses are not read; download the file, and give a path, relative to the manifest"
    if os.name != "nt" and re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return "a path of Windows does not exist here; give paths relative to the manifest"
    return ""


def locate(folder: Path, path: Path) -> Path:
    """Return the path of a file named by a manifest in `folder`.

    Backslashes separate folders, unless a file has them in its name. A name in another Unicode form is found: macOS
    writes `u` and a combining diaeresis for `ü`.
    """
    text = str(path)
    plain = folder / path.expanduser() if text.startswith("~") else folder / path
    if text.isascii() and "\\" not in text:
        return plain
    if os.path.lexists(plain):
        return plain
    slashes = folder / text.replace("\\", "/")
    forms = [folder / unicodedata.normalize(form, str(slashes)) for form in ("NFC", "NFD")]
    return next((form for form in (slashes, *forms) if os.path.lexists(form)), slashes)
