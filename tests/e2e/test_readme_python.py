"""The README's Python runs as it stands, but for a backbone of two layers in the place of minilm."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import newslora
from conftest import ARTICLES

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def write(path: Path, rows: int, first: int = 0) -> None:
    """`rows` articles, each unlike the others by its number."""
    texts = [(text, label) for label, many in ARTICLES.items() for text in many]
    lines = [f'"{texts[n % 4][0]} {n}",{texts[n % 4][1]}' for n in range(first, first + rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")


def test_the_python_of_the_readme(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("newslora.pipeline.write_report", lambda run, manifest, device: None)  # which has its own tests
    write(tmp_path / "news.csv", 680)  # 640 of them are the reference recipe's validation rows
    write(tmp_path / "test.csv", 20, 700)
    write(tmp_path / "input.csv", 20, 800)
    other = newslora.train(
        "seed", output="runs/other", model__backbone=str(tiny_bert), data__source="news.csv",
        train__epochs=1, train__seed=7,
    )  # fmt: skip
    newslora.evaluate(other, "test.csv")
    names: dict[str, Any] = {}
    exec(compile(block.replace('"minilm"', repr(str(tiny_bert))), "README.md", "exec"), names)
    run = names["run"]
    assert run.complete
    assert json.loads((run.evaluation / "test-data.json").read_text(encoding="utf-8"))["macro_f1"]["value"] >= 0
    assert (tmp_path / "output.csv.gz").is_file()
    assert (run.exports / "onnx" / "export.json").is_file()
    assert names["model"].get_params()["class_weight"] == "balanced"
