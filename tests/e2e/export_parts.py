"""Exports of a trained run, of every kind, made once for all tests that ask them.

Test files take them by `pytest_plugins = ["export_parts"]`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import newslora
from newslora.exporting import export as exporting

TEXTS = ["minister signs peace treaty at border", "striker scores twice as club wins cup final", "", "treaty " * 80]
KINDS = ["merged", "peft", "onnx", "onnx-int8", "int8"]
INT8 = ["onnx-int8", "int8"]


@dataclass(frozen=True, slots=True)
class Made:
    """The exports of one run, made once."""

    run: Path
    folders: dict[str, Path]
    records: dict[str, dict[str, Any]]
    rows: Path  # 200 labelled rows, as int8 wants a hundred


@pytest.fixture(scope="session")
def made(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All kinds; the fp32 graph is traced once and given to int8 too, since tracing is what takes long."""
    folder = tmp_path_factory.mktemp("exports")
    rows = folder / "held.jsonl"
    lines = [line for name in ("train", "test") for line in (planted.parent / f"{name}.jsonl").read_text().splitlines()]
    rows.write_text("\n".join([*lines, *lines[:40]]) + "\n", encoding="utf-8")
    found, records = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWSLORA_CACHE", str(folder / "cache"))
        for kind in KINDS:
            if kind == "onnx-int8":
                patch.setattr(exporting, "write_onnx", traced(found["onnx"]))
            one = newslora.export(planted, kind, folder / kind, data=str(rows) if kind in INT8 else None)
            found[kind], records[kind] = one.path, one.record
    return Made(planted, found, records, rows)


def traced(onnx: Path) -> Any:
    """`write_onnx` out of an export that is there already."""

    def write(merged: Any, folder: Path) -> Path:
        merged.config.save_pretrained(folder)
        return Path(shutil.copyfile(onnx / "model.onnx", folder / "model.onnx"))

    return write
