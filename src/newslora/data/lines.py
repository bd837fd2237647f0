"""A text file, plain or packed, line by line, from any line on; and how far it is read."""

import contextlib
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from newslora.errors import DataError

LINE_LIMIT = 40_000_000  # characters; a file without line ends must not fill the memory
OVERLONG = f"a line of over {LINE_LIMIT:,} characters"
BLOCK = 1 << 20  # bytes or characters passed over at a time
BOM = b"\xef\xbb\xbf"
OTHERS = {  # how a file begins that is no text: what it is, and the way out
    b"\xff\xfe": "UTF-16. Save it as UTF-8",
    b"\xfe\xff": "UTF-16. Save it as UTF-8",
    b"\x1f\x8b": "packed by gzip. Let its name end in .gz, once for each time it was packed",
    b"\x28\xb5\x2f\xfd": "packed by zstd. Let its name end in .zst, once for each time it was packed",
    b"PK\x03\x04": "a ZIP archive, as Excel's workbooks are. Unpack it, or save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. Save it as CSV UTF-8",
    b"PAR1\x15": "Parquet. Let its name end in .parquet",
}
FROM_WINDOWS = "iconv -f WINDOWS-1252 -t UTF-8"  # of Latin-1 too, which but for control characters is a part of it
UTF8_WAY = (
    "save the file as UTF-8: in Excel as 'CSV UTF-8', or, where all of it is in Windows-1252 or Latin-1, by "
    f"{FROM_WINDOWS} FILE > NEW"
)


@dataclass(slots=True)
class Meter:
    """How far a source is read; its reader keeps it, and whoever shows progress looks."""

    share: float | None = None  # 0 to 1; None where that cannot be told


class Line(NamedTuple):
    """One line with its end."""

    text: str  # of an overlong line, the first LINE_LIMIT characters
    size: int  # bytes of the whole line, unpacked
    overlong: bool


def json_lines_remark(line: str) -> str | None:
    """A remark where the first of some lines, each of which is a text, looks like JSON lines."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(json.loads(line), dict):
            return (
                "The first line is a JSON object, and is taken for a text as it stands: standard input is one text a line. "
                "JSON lines are read from a file whose name ends in .jsonl."
            )
    return None


class LineReader:
    """The lines of a UTF-8 file; undecodable bytes become lone surrogates, found row by row later.

    Args:
        path: a text file; one that ends in .gz or .zst is unpacked.
        start: bytes (unpacked) to leave out, up to a line's end. Plain files jump there, packed ones are unpacked so far.
        meter: told how far the file is read.

    Raises:
        DataError: it begins as no text in UTF-8 does.
    """

    def __init__(self, path: Path, start: int = 0, meter: Meter | None = None) -> None:
        self._size, self._meter = max(1, path.stat().st_size), meter or Meter()
        self._raw = path.open("rb")
        try:
            stream = io.BufferedReader(_unpacked(path, self._raw))
            first = stream.peek(8)[:8]
            if other := next((OTHERS[begin] for begin in OTHERS if first.startswith(begin)), None):
                raise DataError(f"The file {path} is {other}.")
            if len(first) > 3 and 0 in first and (first[:4:2] == b"\0\0" or first[1:4:2] == b"\0\0"):
                raise DataError(
                    f"The file {path} is not UTF-8 but UTF-16, or no text: every other byte is 0. Save it as UTF-8."
                )
            self._before = len(BOM) if start == 0 and first.startswith(BOM) else 0
            _pass_over(stream, start)
            encoding = "utf-8-sig" if start == 0 else "utf-8"
            self._text = io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="")
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> "LineReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._text.close()
        self._raw.close()

    def __iter__(self) -> "LineReader":
        return self

    def __next__(self) -> Line:
        text = self._text.readline(LINE_LIMIT)
        if not text:
            raise StopIteration
        size, overlong = self._before + _bytes(text), False
        self._before = 0
        if len(text) >= LINE_LIMIT and not text.endswith(("\n", "\r")):
            overlong = True
            while more := self._text.readline(BLOCK):
                size += _bytes(more)
                if more.endswith(("\n", "\r")):
                    break
        self._meter.share = self._raw.tell() / self._size
        return Line(text, size, overlong)

    def rest(self) -> str:
        """All that was not read yet, at once."""
        return self._text.read()


def _unpacked(path: Path, raw: IO[bytes]) -> Any:
    if path.suffix.lower() == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        return pa.input_stream(raw, compression="zstd")  # zstandard.open ends a truncated file without a word
    return raw


def _pass_over(stream: io.BufferedReader, count: int) -> None:
    if isinstance(stream.raw, io.BufferedReader):  # a plain file
        stream.seek(count)
        return
    while count and (passed := stream.read(min(count, BLOCK))):
        count -= len(passed)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


# control characters but tab and line end -> their signs in Unicode, or the sign for what is no character
_SIGNS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_SIGNS |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def visible(text: str) -> str:
    """The text for a terminal, which would obey its control characters; each becomes one sign, as ESC does U+241B."""
    return text if text.isprintable() else text.translate(_SIGNS)


def printable(text: str) -> str:
    """The text, with escapes for lone surrogates, which stand for broken bytes and which nothing can write."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
