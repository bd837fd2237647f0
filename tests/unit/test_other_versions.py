"""Files of an older or a newer newslora: they mean what they meant, or are refused in a sentence with the way out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from newslora.errors import RunError, SettingsError
from newslora.model.adapter import read_card
from newslora.model.exported import check_export
from newslora.predict.calibration import load_calibration
from newslora.predict.canary import load_canary
from newslora.predict.thresholds import load_thresholds
from newslora.runfolder import RunFolder
from newslora.serving.keys import read_keys

RECORDS: dict[str, Callable[[Path], Any]] = {
    "newslora.json": read_card,
    "calibration.json": lambda folder: load_calibration(folder, "x"),
    "canary.json": lambda folder: load_canary(folder, "x"),
    "thresholds.json": lambda folder: load_thresholds(folder, "x", 2),
    "export.json": lambda folder: check_export(folder, "merged", "x"),
    "manifest.json": lambda folder: RunFolder(folder).manifest(),
    "keys.json": lambda folder: read_keys(folder / "keys.json"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_newer_format_is_refused_as_such_whatever_its_fields(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps({"format": 2, "a field of tomorrow": {}}))
    told = f"{name} has format 2; this newslora reads 1\\. Use the newslora that made it\\.$"
    with pytest.raises((RunError, SettingsError), match=told):
        RECORDS[name](tmp_path)
