"""Files for the tests of bulk prediction, a classifier that stands in for a real one, and what an output holds."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from newslora.config import DataSettings
from newslora.predict import chunks, partial
from newslora.predict.bulk import Counted, predict_source
from newslora.predict.classifier import Prediction

ROWS = [{"id": str(number), "text": f"text {number} " + "x" * (number % 7)} for number in range(20)]
ROWS[4]["text"] = " "  # one that cannot be classified
OUTPUTS = (".csv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.zst")


class Fake:
    """A classifier whose answer to a text depends on all texts computed with it, as rounding may."""

    labels = ("World", "Sports")
    multi_label = False
    card = SimpleNamespace(label_separator="|", text_columns=("text",))

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.answered: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {"adapter": self.version}

    def rows(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def predictions(self, texts: list[str], abstain: float | None = None) -> list[Prediction]:
        self.answered += texts
        together = hashlib.sha256("\n".join(texts).encode()).digest()
        found = []
        for text in texts:
            share = zlib.crc32(together + text.encode()) / 2**32
            likely = {"World": share, "Sports": 1 - share}
            best = max(likely, key=lambda label: likely[label])
            found.append(Prediction(None if abstain and share < 0.3 else best, likely[best], likely, (best,)))
        return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three rows, a commit after each."""
    monkeypatch.setattr(chunks, "CHUNK", 3)
    monkeypatch.setattr(partial, "COMMIT_SECONDS", 0.0)


def as_csv(rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=8)
    return out.getvalue()


INPUTS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "in.csv": as_csv,
    "in.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "in.csv.zst": lambda rows: zstandard.compress(as_csv(rows)),
    "in.jsonl": as_lines,
    "in.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "in.jsonl.zst": lambda rows: zstandard.compress(as_lines(rows)),
    "in.json": lambda rows: json.dumps(rows).encode(),
    "in.parquet": as_parquet,
}


def given_file(folder: Path, name: str, rows: list[dict[str, str]] = ROWS) -> Path:
    path = folder / name
    path.write_bytes(INPUTS[name](rows))
    return path


def run(source: Path, output: Path, **options: Any) -> Counted:
    return predict_source(options.pop("classifier", Fake()), str(source), output, DataSettings(), **options)


def unpacked(path: Path) -> bytes:
    """What a file of text holds, packed or not."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as stream:
            return bytes(stream.read())
    return content


def found(path: Path) -> list[dict[str, Any]]:
    """The rows of an output, empty cells as None, numbers as numbers."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    content = unpacked(path)
    if ".jsonl" in path.suffixes:
        return [json.loads(line) for line in content.decode().splitlines()]
    lines = io.StringIO(content.decode(), newline="")
    rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(lines)]
    return [row | {"probability": row["probability"] and float(row["probability"])} for row in rows]
