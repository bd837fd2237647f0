"""What class_balance does to a rare class: planted rows whose best answers are known."""

import json
from pathlib import Path
from typing import Any

import newslora
from newslora.runfolder import RunFolder

ROWS = 1_200  # 5 % rare
# 12 of 20 rare rows are about sport and 2 of 20 common ones: of the rows about sport 24 % are rare, so accuracy alone never
# answers Rare; with equal weight on both classes, 86 % of their weight is
SHARE = {"Rare": 12, "Common": 2}
SPORT, OTHER = "striker scores twice as club wins cup final", "army and rebels sign peace accord in capital"


def write_rows(path: Path) -> None:
    seen = {"Rare": 0, "Common": 0}
    with path.open("w", encoding="utf-8") as stream:
        for number in range(ROWS):
            label = "Rare" if number % 20 == 0 else "Common"
            text = SPORT if seen[label] % 20 < SHARE[label] else OTHER
            seen[label] += 1
            stream.write(json.dumps({"text": f"{text} {number}", "label": label}) + "\n")


def train(data: Path, output: Path, tiny_bert: Path, **changes: Any) -> RunFolder:
    return newslora.train(
        "seed", output=output, report=False, device="cpu", model__backbone=str(tiny_bert), data__source=str(data),
        data__validation_rows=400, data__label_names=None, data__workers=0, train__epochs=3, train__learning_rate=5e-3,
        train__warmup_steps=2, train__precision="fp32", train__best_metric="macro_f1", lora__dropout=0.0,
        model__hidden_dropout=0.0, model__attention_dropout=0.0, **changes,
    )  # fmt: skip


def test_class_weights_lift_the_rare_class_and_the_run_says_so(tiny_bert: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl")
    runs = {
        kind: train(tmp_path / "rows.jsonl", tmp_path / kind, tiny_bert, train__class_balance=kind)
        for kind in ("none", "weights")
    }
    recall = {}
    for kind, run in runs.items():
        scored = json.loads((run.evaluation / "validation.json").read_text(encoding="utf-8"))
        recall[kind] = {name: row["recall"]["value"] for name, row in scored["per_class"].items()}
        epochs = [line for line in run.metrics() if line["kind"] == "epoch"]
        best = next(line for line in epochs if line["epoch"] == run.manifest()["training"]["best_epoch"])
        assert best["validation_recall"] == recall[kind]
    assert recall["none"] == {"Rare": 0.0, "Common": 1.0}
    assert recall["weights"]["Rare"] >= 0.4
    assert recall["weights"]["Common"] >= 0.8
    balance = {kind: run.manifest()["training"]["objective"] for kind, run in runs.items()}
    assert balance["none"] == {"focal_gamma": None, "weights": None}
    assert {name: round(weight, 3) for name, weight in balance["weights"]["weights"].items()} == {
        "Common": 0.526,
        "Rare": 10.0,
    }
