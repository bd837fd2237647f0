"""The README.md of an export: the run's model card with another use and the gate's numbers."""

import re
from pathlib import Path
from typing import Any

from newslora import files
from newslora.exporting.gate import AGREEMENT, LOST
from newslora.metrics.intervals import told
from newslora.model.exported import MERGED
from newslora.report.card import FILE

USES = {
    "merged": """With transformers alone:

```python
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER", truncation=True)
print(classify("Striker scores twice as hosts reach final"))
```""",
    "onnx": """With ONNX Runtime and the tokenizer alone:

```python
import onnxruntime
from transformers import AutoConfig, AutoTokenizer

tokens = AutoTokenizer.from_pretrained("FOLDER")(["Striker scores twice as hosts reach final"], truncation=True)
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
(logits,) = session.run(["logits"], {name: tokens[name] for name in ("input_ids", "attention_mask")})
print(AutoConfig.from_pretrained("FOLDER").id2label[int(logits.argmax())])
```""",
}
OURS = """With newslora (calibration, thresholds and windows of long texts included):

```python
import newslora

classify = newslora.Classifier.load("FOLDER")
print(classify("Striker scores twice as hosts reach final").labels)
```"""
_HEADER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def write_export_card(adapter: Path, folder: Path, record: dict[str, Any]) -> None:
    """Write README.md into an export folder: the adapter's model card, with what export.json will hold."""
    path = adapter / FILE
    card = path.read_text(encoding="utf-8") if path.is_file() else f"# {folder.name}\n"
    parts = [f"## This export\n\n{_gate(record)}"]
    if record["to"] != "peft":
        use = USES["merged" if record["to"] in MERGED else "onnx"]
        card = re.sub(r"## How to use it\n.*?(?=\n## |\Z)", "", card, flags=re.DOTALL)
        card = _HEADER.sub(
            lambda found: found[0].replace("library_name: peft", f"library_name: {_library(record)}"), card
        )
        parts.append(f"## How to use it\n\n`FOLDER` is this folder.\n\n{OURS}\n\n{use}")
    head, mark, rest = card.partition("\n## ")
    files.write_text(
        folder / FILE, "\n".join([head.rstrip() + "\n", *(f"{part}\n" for part in parts), mark.lstrip() + rest])
    )


def _library(record: dict[str, Any]) -> str:
    return "transformers" if record["to"] in MERGED else "onnx"


def _gate(record: dict[str, Any]) -> str:
    lines = ["| rows of | rows | asked | found |", "| --- | --- | --- | --- |"]
    for name, one in record["gate"]["checks"].items():
        lines += [
            f"| {name.replace('|', ' ')} | {one['rows']:,} | {asked} | {found} |" for asked, found in findings(one)
        ]
    return (
        f"Kind: {record['to']}. Before it was published it was compared with the run it was made of:\n\n"
        + "\n".join(lines)
    )


def findings(one: dict[str, Any]) -> list[tuple[str, str]]:
    """(what a comparison asked, what it found), a line each."""
    apart = "not finite" if one["largest_difference"] is None else f"{one['largest_difference']:.2g}"
    if "tolerance" in one:
        ties = f" ({one['ties']:,} ties)" if one["ties"] else ""
        times = "" if one["largest_in_tolerances"] is None else f" ({one['largest_in_tolerances']:.0%} of allowed)"
        return [
            (f"logits within {one['tolerance']:g}", apart + times),
            ("other labels: none", f"{one['other_labels']:,}{ties}"),
        ]
    agreement = told(one["agreement"])
    if "lost" not in one:
        return [("an answer to each", "yes"), ("same labels: any", agreement)]
    lost, (least, most) = one["lost"]["value"], one["lost"]["interval"]
    return [
        (f"same labels: {100 * AGREEMENT:g} %", agreement),
        (f"lost: {100 * LOST:g} points", f"{100 * lost:+.2f} ({100 * least:+.2f} to {100 * most:+.2f})"),
        ("run's accuracy", told(one["accuracy_run"])),
        ("export's accuracy", told(one["accuracy_export"])),
        ("logits differ by", apart),
    ]
