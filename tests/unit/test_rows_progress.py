"""The bar of `newslora predict`: rows, rows a second and time left."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from newslora.cli import predict
from newslora.cli.app import main
from newslora.cli.screen import RowsProgress


class Bar:
    """A bar by a clock that tests set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.said = 100.0, io.StringIO()
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.progress = RowsProgress(Console(file=self.said, width=120, get_time=lambda: self.now))

    def after(self, seconds: float, rows: int, share: float | None) -> str:
        """What is shown where this is told so long after the last."""
        self.now += seconds
        self.progress.told(rows, share)
        drawn = io.StringIO()
        Console(file=drawn, width=120).print(self.progress._bar.get_renderable())
        return " ".join(re.sub("[\u2500-\u257f]", "", drawn.getvalue()).split())


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Bar:
    return Bar(monkeypatch)


def test_rows_a_second_and_time_left(bar: Bar) -> None:
    assert bar.after(3, 0, 0.0) == "0% 0 rows - rows/s --:-- left"
    assert bar.after(10, 1000, 0.125).startswith("12% 1,000 rows 100 rows/s")
    # 4,000 rows in 20 seconds; of the source, the last ten took a quarter, and five eighths are left
    assert bar.after(10, 4000, 0.375) == "38% 4,000 rows 200 rows/s 00:25 left"
    assert bar.after(180, 200_000, 1.0) == "100% 200,000 rows 1,000 rows/s 00:00 left"
    assert bar.said.getvalue() == ""


def test_what_an_earlier_sitting_did_is_no_speed_of_this_one(bar: Bar) -> None:
    assert bar.after(3, 5000, 0.5).startswith("50% 5,000 rows - rows/s")
    assert bar.said.getvalue() == "Continuing after row 5,000\n"
    assert bar.after(10, 6000, 0.625).startswith("62% 6,000 rows 100 rows/s")
    assert bar.after(10, 7000, 0.75) == "75% 7,000 rows 100 rows/s 00:20 left"


def test_a_source_of_unknown_length_has_a_speed_and_no_time_left(bar: Bar) -> None:
    bar.after(0, 0, None)
    assert bar.after(5, 500, None).endswith("500 rows 100 rows/s left")


def test_predict_shows_it(
    make_adapter: Callable[..., Path], news_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(predict, "remarks", lambda: Console(file=screen, width=120, force_terminal=True, no_color=True))
    adapter = make_adapter(tmp_path / "adapter", text_columns=("title",))
    assert main(["predict", str(adapter), str(news_file), "-o", str(tmp_path / "out.jsonl")]) == 0
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"100%\s+40 rows\s+[\d,]+ rows/s\s+\d?\d:\d\d\s+left", shown), shown
