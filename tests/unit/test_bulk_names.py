"""Columns of an input that are called as those which prediction adds."""

import io
from pathlib import Path

import pytest
from bulk_parts import OUTPUTS, Fake, found, given_file, run

from newslora.config import DataSettings
from newslora.predict.bulk import print_source


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_columns_of_the_input_that_have_an_added_ones_name_are_kept(name: str, suffix: str, tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "error": f"ticket {n}", "predicted": "by hand", "input_error": "x"} for n in range(5)]
    source, notes = given_file(tmp_path, name, rows), []
    run(source, tmp_path / f"out{suffix}", note=notes.append)
    for row, given_row in zip(found(tmp_path / f"out{suffix}"), rows, strict=True):
        assert row["text"] == given_row["text"]
        assert row["input_input_error"] == given_row["error"]
        assert row["input_error"] == "x"
        assert row["input_predicted"] == "by hand"
        assert row["predicted"] in Fake.labels
        assert row["error"] is None
    assert notes == [
        "The input has columns of these names too; kept: 'error' as 'input_input_error', 'predicted' as 'input_predicted'."
    ]


def test_a_text_in_a_column_of_an_added_name_is_shown_all_the_same(tmp_path: Path) -> None:
    source, shown, notes = given_file(tmp_path, "in.csv", [{"error": "a text"}]), io.StringIO(), []
    settings = DataSettings(text_columns=("error",), header=True)
    assert print_source(Fake(), str(source), shown, settings, note=notes.append).failed == 0
    assert shown.getvalue().split("\t")[2] == "a text\n"
    assert len(notes) == 1
