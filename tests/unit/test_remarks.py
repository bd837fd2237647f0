"""Training says which columns it read, what the labels are called and how many rows each has; and asks where that is odd."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from newslora.config import DataSettings
from newslora.data.remarks import remarks
from newslora.data.splits import load_splits
from newslora.errors import DataError


def told(path: Path, labels: list[Any], **more: Any) -> list[str]:
    rows = [{"title": f"title {n}", "text": f"text {n}", "label": label} for n, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = DataSettings(source=str(path), **({"validation_rows": 10} | more))
    return remarks(load_splits(settings, 1), settings)


def test_columns_and_labels_with_their_training_rows(tmp_path: Path) -> None:
    found = told(tmp_path / "a.jsonl", ["World"] * 30 + ["Sports"] * 70)
    assert found == ["text: title + text; label: label; 2 labels: Sports 63, World 27"]


def test_some_ten_labels_are_named_and_the_others_counted(tmp_path: Path) -> None:
    (found,) = told(tmp_path / "a.jsonl", [f"l{n:02d}" for n in range(25) for _ in range(n + 2)], validation_rows=25)
    assert found.startswith("text: title + text; label: label; 25 labels: l24 ")
    assert found.endswith(" and 15 more")
    assert found.count(",") == 9


def test_rows_of_several_labels_are_counted_by_label(tmp_path: Path) -> None:
    found = told(tmp_path / "a.jsonl", [["a", "b"], ["b"], []] * 10, multi_label=True, validation_rows=3)
    assert found == ["text: title + text; label: label; 2 labels: b 18, a 9; 1.0 labels a row"]


@pytest.mark.parametrize("base", [0, 1])
def test_numbers_are_told_with_their_names(base: int, tmp_path: Path) -> None:
    labels = [base, base + 1] * 20
    found = told(tmp_path / "a.jsonl", labels, label_names=("World", "Sports"))
    assert found[1:] == [f"labels {base} to {base + 1} are called World, Sports (data.label_names)"]
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    found = told(tmp_path / "a.jsonl", labels)
    assert found[1:] == [f"labels {base} to {base + 1} are called no, yes (the data set's own names)"]
    assert len(told(tmp_path / "a.jsonl", labels, label_names=())) == 1


def test_labels_spelt_alike_are_told(tmp_path: Path) -> None:
    found = told(tmp_path / "a.jsonl", ["World", "WORLD", "Sports", " Sports ", "New York", "newyork"] * 10)
    assert len(found) == 2
    assert ": 'New York' and 'newyork', 'WORLD' and 'World'." in found[1]


@pytest.mark.parametrize(
    "pair",
    [
        ("Caf\u00e9", "Cafe\u0301"),
        ("World", "World\u200b"),
        ("World", "\ufeffWorld"),
        ("Sci\u00a0Tech", "Sci Tech"),
        ("\ufb01lm", "film"),
    ],
)
def test_labels_that_look_the_same_are_told_apart(pair: tuple[str, str], tmp_path: Path) -> None:
    found = told(tmp_path / "a.jsonl", [*pair, "Sports"] * 10)
    assert len(found) == 2
    assert all(ascii(name) in found[1] for name in pair)


def test_a_label_of_its_own_in_nearly_every_row_is_asked_about(tmp_path: Path) -> None:
    labels = [f"id {n}" for n in range(60)] + ["id 0"] * 40
    found = told(tmp_path / "a.jsonl", labels)
    assert re.match(r"5\d different labels in 90 rows", found[1])
    assert "is 'label' the column of the label? Another is named with --set data.label_column=NAME." in found[1]
    assert len(told(tmp_path / "a.jsonl", [f"id {n % 40}" for n in range(100)])) == 1
    assert len(told(tmp_path / "a.jsonl", ["a", "b", "c"] * 3, validation_rows=3)) == 1


def test_too_many_labels_for_any_validation_rows_are_named_as_the_cause(tmp_path: Path) -> None:
    labels = [f"id {n}" for n in range(300)]
    with pytest.raises(DataError, match="300 usable rows in all and 300 different labels") as caught:
        told(tmp_path / "a.jsonl", labels, validation_rows=30)
    assert "is 'label' the column of the label?" in str(caught.value)
    assert "Set it to" not in str(caught.value)


def test_few_rows_are_pointed_to_the_recipe_for_them(tmp_path: Path) -> None:
    for rows, pointed in ((150, True), (600, False)):
        with pytest.raises(DataError, match=rf"--set data\.validation_rows={rows // 5}\)") as caught:
            told(tmp_path / "a.jsonl", ["a", "b"] * rows, validation_rows=rows * 2)
        assert ("recipe quickstart" in str(caught.value)) is pointed
