"""A run that learns nothing says so, whatever its loss looks like; one that learns does not."""

import logging
from pathlib import Path

import pytest

import newslora


def warnings_of(caplog: pytest.LogCaptureFixture, news_file: Path, backbone: Path, run: Path, rate: float) -> list[str]:
    """Of a training from Python that nobody watches."""
    newslora.train(
        "seed", output=run, report=False, model__backbone=str(backbone), data__source=str(news_file),
        data__validation_rows=16, data__workers=0, train__epochs=4, train__batch_size=8, train__learning_rate=rate,
        train__warmup_steps=2, train__precision="fp32",
    )  # fmt: skip
    return [one.getMessage() for one in caplog.records if (one.name, one.levelname) == ("newslora", "WARNING")]


def test_a_learning_rate_far_too_high_is_told(
    caplog: pytest.LogCaptureFixture, news_file: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    notes = warnings_of(caplog, news_file, tiny_bert, tmp_path / "wild", rate=30.0)
    assert notes
    assert "how frequent each label is" in notes[0]
    assert "After epoch 1 the lowest validation loss is" in notes[0]
    assert notes[0].endswith("lower train.learning_rate (30); where it still falls, train for longer.")


def test_a_warm_up_longer_than_the_run_is_named(
    caplog: pytest.LogCaptureFixture, news_file: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    newslora.train(
        "seed", output=tmp_path / "short", report=False, model__backbone=str(tiny_bert), data__source=str(news_file),
        data__validation_rows=16, data__workers=0, train__epochs=1,
    )  # fmt: skip
    told = [one.getMessage() for one in caplog.records if one.name == "newslora"]
    assert any(line.endswith("its peak. Lower train.warmup_steps, or train for longer.") for line in told)


def test_a_run_that_learns_is_left_alone(
    caplog: pytest.LogCaptureFixture, news_file: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "newslora")
    assert warnings_of(caplog, news_file, tiny_bert, tmp_path / "sound", rate=1e-2) == []
    told = [one.getMessage() for one in caplog.records if one.name == "newslora"]
    assert any("trainable parameters" in line for line in told)
    assert sum(line.startswith("epoch ") and "validation_accuracy" in line for line in told) == 4
