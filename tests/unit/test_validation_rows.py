"""A number of validation rows that has no say is told, by training and by a dry run."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import ARTICLES
from newslora import NewsClassifier
from newslora.cli.app import main
from newslora.config import DataSettings, load_recipe
from newslora.data.remarks import remarks
from newslora.data.splits import load_splits

SAID = "data.validation_rows is 7, which is not used"


def write(path: Path, start: int, rows: int) -> Path:
    texts = [(text, label) for label, many in ARTICLES.items() for text in many]
    lines = (
        json.dumps({"text": f"{texts[n % 4][0]} {n}", "label": texts[n % 4][1]}) for n in range(start, start + rows)
    )
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows with a validation split of their own."""
    made = tmp_path / "news"
    made.mkdir()
    write(made / "train.jsonl", 0, 40)
    write(made / "validation.jsonl", 40, 12)
    return made


def told(source: Path, **more: Any) -> list[str]:
    settings = DataSettings(source=str(source), **more)
    return remarks(load_splits(settings, 1), settings)


def test_it_is_told_where_the_source_has_validation_rows_of_its_own(folder: Path, tmp_path: Path) -> None:
    (said,) = [one for one in told(folder, validation_rows=7) if "validation_rows" in one]
    assert said == (
        f"{SAID}: no rows are cut from train where there are validation rows of their own (12 of {folder}:validation)."
    )
    other = write(tmp_path / "other.jsonl", 80, 8)
    assert any(
        SAID in one and f"(8 of {other})" in one for one in told(folder, validation_rows=7, validation=str(other))
    )
    assert not any("validation_rows" in one for one in told(folder))
    assert not any("validation_rows" in one for one in told(folder / "train.jsonl", validation_rows=7))


@pytest.mark.usefixtures("no_figures")
def test_training_and_a_dry_run_tell_it(folder: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", str(folder), "--backbone", str(tiny_bert), "--set", "data.validation_rows=7"]
    assert main(["train", "seed", "--dry-run", *given]) == 0
    assert SAID in " ".join(capsys.readouterr().err.split())
    quick = ["--set", "train.epochs=1", "--set", "train.precision=fp32", "--set", "data.workers=0"]
    assert main(["train", "seed", *given, *quick, "-o", str(folder.parent / "run")]) == 0
    assert SAID in " ".join(capsys.readouterr().err.split())


def test_a_recipe_of_other_rows_says_nothing_of_an_estimators(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("quickstart", {"data.validation_rows": 7, "model.backbone": str(tiny_bert)})
    texts = [text for many in ARTICLES.values() for text in many] * 3
    labels = [label for label, many in ARTICLES.items() for _ in many] * 3
    NewsClassifier(recipe, epochs=1, precision="fp32", validation_fraction=None, verbose=1).fit(texts, labels)
    printed = capsys.readouterr().out
    assert "12 rows" in printed
    assert "validation_rows" not in printed
