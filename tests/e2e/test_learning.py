"""A run that learns nothing says so, whatever its loss looks like; one that learns does not."""

from pathlib import Path

import newslora
from newslora.training.watch import Silent


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(news_file: Path, backbone: Path, run: Path, rate: float) -> list[str]:
    watcher = Notes()
    newslora.train(
        "seed", output=run, report=False, watcher=watcher, model__backbone=str(backbone), data__source=str(news_file),
        data__validation_rows=16, data__workers=0, train__epochs=4, train__batch_size=8, train__learning_rate=rate,
        train__warmup_steps=2, train__precision="fp32",
    )  # fmt: skip
    return [note for note in watcher.notes if "how frequent each label is" in note]


def test_a_learning_rate_far_too_high_is_told(news_file: Path, tiny_bert: Path, tmp_path: Path) -> None:
    notes = train(news_file, tiny_bert, tmp_path / "wild", rate=30.0)
    assert notes
    assert "After epoch 1 the lowest validation loss is" in notes[0]
    assert notes[0].endswith("lower train.learning_rate (30).")


def test_a_run_that_learns_is_left_alone(news_file: Path, tiny_bert: Path, tmp_path: Path) -> None:
    assert train(news_file, tiny_bert, tmp_path / "sound", rate=1e-2) == []
