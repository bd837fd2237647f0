"""Six times the rows take the same memory: read, set aside, cut, tokenised, ordered and batched."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from newslora.config import DataSettings
from newslora.data.batches import Rows, epoch_batches
from newslora.data.splits import load_splits, write_quarantine
from newslora.data.tokens import tokenize


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bound a hundred times lower, so that few rows are many."""
    for name, value in {"store.SPILL": 2**14, "store.CHUNK": 2**9, "store.BUFFER": 2**7}.items():
        monkeypatch.setattr(f"newslora.data.{name}", value)
    monkeypatch.setattr("newslora.data.texts.BUFFER", 2**7)
    monkeypatch.setattr("newslora.data.tokens.ROWS_A_CALL", 2**7)
    for module in ("order", "splits"):
        monkeypatch.setattr(f"newslora.data.{module}.FEW", 2**9)


def peak(path: Path, rows: int, tokenizer: Any) -> int:
    """Bytes Python and numpy held at most; mapped files are not among them."""
    with path.open("w") as stream:
        stream.write("label,title\n")
        stream.writelines(f"{'ab'[row % 2]},striker {row} scores twice\n,without a label\n" for row in range(rows))
    tracemalloc.start()
    try:
        settings = DataSettings(source=str(path), max_quarantine_share=1, validation_rows=100, train_rows=rows - 200)
        splits = load_splits(settings, 42)
        write_quarantine(path.with_suffix(".quarantine"), [splits.train])
        table = Rows(tokenize(tokenizer, splits.train.texts, 64, path.parent / "cache"), splits.train.labels, 0)
        seen = 0
        for chosen in epoch_batches(table.lengths, 16, 42, 0, by_length=True):
            seen += len(table.batch(chosen))
        assert (seen, len(splits.validation), len(splits.train.quarantined)) == (rows - 200, 100, rows)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("small_machine")
def test_memory_does_not_grow_with_rows(tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    peak(tmp_path / "first.csv", 600, tokenizer)  # what is loaded once
    small, large = peak(tmp_path / "small.csv", 1_000, tokenizer), peak(tmp_path / "large.csv", 6_000, tokenizer)
    assert large < 1.1 * small, f"{small:,} bytes at 1,000 rows, {large:,} at 6,000"
