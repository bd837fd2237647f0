"""Whatever is written, the rows it was made of are still there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from bulk_parts import as_csv, as_lines, run

import newslora
from newslora.data.outputs import refuse_overwriting
from newslora.errors import SettingsError

ROWS = [{"label": label, "text": f"text {number}"} for number, label in enumerate(["World", "Sports"] * 4)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, write: Callable[..., Any], *given: Any, **named: Any) -> None:
    """Refused before anything is touched."""
    before = contents(folder)
    with pytest.raises(SettingsError, match=r"The output '.*' is the input: '.*' is read from it\. Name another place"):
        write(*given, **named)
    assert contents(folder) == before


def test_a_prediction_spares_every_file_of_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    news = tmp_path / "news"
    news.mkdir()
    for name in ("train.csv", "test.csv"):
        (news / name).write_bytes(as_csv(ROWS))
    os.link(news / "test.csv", tmp_path / "linked.csv")
    (tmp_path / "shown.csv").symlink_to(news / "test.csv")
    for source in (str(news), f"{news}:train", "~/news"):
        for output in ("news/test.csv", "news/train.csv", "linked.csv", "shown.csv"):
            refused(tmp_path, run, Path(source), tmp_path / output)
    refused(tmp_path, run, Path("~/news/test.csv"), news / "test.csv")
    assert run(Path("~/news"), news / "out.csv").predicted == len(ROWS)


def test_an_audit_spares_its_sources(tmp_path: Path) -> None:
    for name in ("labels.csv", "duplicates.csv", "leakage.csv", "text-damage.csv"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(as_csv(ROWS))
        refused(folder, newslora.audit, [str(folder / name)], output=folder)
    (tmp_path / "quarantine.jsonl").write_bytes(as_lines(ROWS))
    refused(tmp_path, newslora.audit, [str(tmp_path / "quarantine.jsonl")], output=tmp_path)


def test_a_comparison_spares_its_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(as_lines(ROWS))
    (tmp_path / "new-rows.csv").write_bytes(as_csv(ROWS))
    for data, output in (("rows.json", "rows.json"), ("new-rows.csv", "new.json")):
        refused(tmp_path, newslora.compare, ["a", "b"], data=str(tmp_path / data), output=tmp_path / output)


def test_files_of_other_sources_are_known_too(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (tmp_path / "corrections.db").touch()
    held = [next((tmp_path / "saved").glob("*.arrow")), tmp_path / "corrections.db"]
    sources = [str(tmp_path / "saved"), f"sqlite:///{tmp_path}/corrections.db#news"]
    for path, source in zip(held, sources, strict=True):
        refused(tmp_path, refuse_overwriting, [path], [source])
    refuse_overwriting([held[0]], ["fancyzhx/ag_news", "postgresql://desk@host/news", sources[1]])
