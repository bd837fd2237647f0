"""The records of a CSV file, one at a time, from any record on; a lost quote costs the line it stands in."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from newslora.data.lines import OVERLONG, Line, LineReader, Meter

_TOLD = re.compile(r'"?sep=([^"]?)"?', re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
SHOWN = 200  # characters of a line that cannot be read


class CsvRecord(NamedTuple):
    """Cells, why they cannot be trusted, if they cannot, and where the record ends, as `RawRow.end`."""

    cells: list[str]
    problem: str | None
    end: int


def find_delimiter(path: Path, kind: str) -> tuple[str, int]:
    """What stands between cells, and the byte where records begin: behind `sep=;`, which Excel takes for its own.

    `kind` is '.csv' or '.tsv'.
    """
    begin, text = 0, ""
    with LineReader(path) as lines:
        for line in lines:
            begin += line.size
            if text := line.text.strip():
                break
    if told := _TOLD.fullmatch(text):
        return told[1] or "\t", begin  # the tab of 'sep=\t' is a blank at the line's end
    # csv.Sniffer guesses wrongly on prose; what a first line holds most of outside of quotes is right for tables of text
    bare = _QUOTED.sub("", text)
    return "\t" if kind == ".tsv" else max(",;\t", key=bare.count), 0


def csv_records(path: Path, delimiter: str, end: int = 0, meter: Meter | None = None) -> Iterator[CsvRecord]:
    """The records that begin at byte `end`, blank lines left out; cells have at most `csv.field_size_limit()` characters.

    A lost quote swallows lines until the next quote, the limit or the end of the file: only the line that opens it is given
    up, the swallowed ones are read again. The next quote is known by what follows it, which a closing quote allows in a
    record of one line only, as in `"Striker" scores,Sports`.
    """
    with LineReader(path, end, meter) as stream:
        again: deque[Line] = deque()  # lines to be read once more
        taken: list[Line] = []  # lines of the record being read

        def lines() -> Iterator[str]:
            while line := again.popleft() if again else next(stream, None):
                taken.append(line)
                if line.overlong:
                    raise csv.Error
                yield line.text

        def given_up() -> CsvRecord:
            """The first line taken, with what is wrong; the others are to be read again."""
            first, *others = taken
            again.extendleft(reversed(others))
            taken[1:] = []
            problem = (
                f"a quote is never closed where its cell ends, or a cell has over {csv.field_size_limit():,} characters"
            )
            problem = f"not readable as CSV: {OVERLONG if first.overlong else problem}"
            return CsvRecord([first.text.rstrip("\r\n")[:SHOWN]], problem, end + first.size)

        reader = csv.reader(lines(), delimiter=delimiter, strict=True)
        while True:
            try:
                record = CsvRecord(next(reader), None, end + sum(line.size for line in taken))
            except StopIteration:
                return
            except csv.Error:
                cells = _forgiven(taken[0], delimiter) if len(taken) == 1 else None
                record = given_up() if cells is None else CsvRecord(cells, None, end + taken[0].size)
                reader = csv.reader(lines(), delimiter=delimiter, strict=True)
            end = record.end
            taken.clear()
            if record.cells:  # not a blank line
                yield record


def _forgiven(line: Line, delimiter: str) -> list[str] | None:
    """The cells of a line that is a record by itself once text may follow a closing quote; None where it is not."""
    reader = csv.reader(["" if line.overlong else line.text, ""], delimiter=delimiter)
    try:
        cells = next(reader)
    except csv.Error:
        return None
    return cells if reader.line_num == 1 and not line.overlong else None
