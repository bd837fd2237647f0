"""A run folder for reports: made of numbers that no training gave, with names that nobody should trust."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from newslora import files
from newslora.config import make_recipe
from newslora.evaluation.breakdown import breakdowns
from newslora.metrics.calibration import calibration_numbers, reliability, top_answers
from newslora.metrics.intervals import share
from newslora.metrics.single_label import full_metrics
from newslora.runfolder import RunFolder

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
HOSTILE = "<script>alert(1)</script>"

# what describe_classifier says of roberta-base with rank 4 on query and value
ROBERTA: dict[str, Any] = {
    "class": "RobertaForSequenceClassification",
    "model_type": "roberta",
    "layers": 12,
    "hidden_size": 768,
    "attention_heads": 12,
    "intermediate_size": 3072,
    "vocabulary": 50265,
    "labels": LABELS,
    "rank": 4,
    "alpha": 16.0,
    "dropout": 0.1,
    "adapted": [{"name": "query", "shape": [768, 768]}, {"name": "value", "shape": [768, 768]}],
    "adapted_modules": 24,
    "head": [
        {"name": "classifier.dense.weight", "shape": [768, 768], "parameters": 589824},
        {"name": "classifier.dense.bias", "shape": [768], "parameters": 768},
        {"name": "classifier.out_proj.weight", "shape": [4, 768], "parameters": 3072},
        {"name": "classifier.out_proj.bias", "shape": [4], "parameters": 4},
    ],
    "parameters": {
        "trainable": 741124,
        "lora": 147456,
        "head": 593668,
        "embeddings": 39000576,
        "encoder": 85054464,
        "total": 124796164,
    },
}


def epoch_line(epoch: int, best: bool = False) -> dict[str, Any]:
    return {
        "kind": "epoch",
        "step": 100 * epoch,
        "epoch": epoch,
        "train_loss": 0.9131 / epoch,
        "validation_loss": 0.5717 / epoch,
        "validation_accuracy": 1 - 0.1753 / epoch,
        "validation_macro_f1": 1 - 0.2161 / epoch,
        "best": best,
    }


def evaluation(name: str, labels: list[str], rows: int, chose: bool) -> dict[str, Any]:
    random = np.random.default_rng(rows)
    true = random.integers(0, len(labels), rows)
    probabilities = random.dirichlet(np.ones(len(labels)), rows)
    probabilities[np.arange(rows), true] += 0.4
    probabilities /= 1.4
    hits, confidence = top_answers(true, probabilities)
    numbers = calibration_numbers(true, probabilities)
    head = {"name": name, "source": f"{name}.csv", "sha256": "ab" * 32, "quarantined": 0}
    tail = {"chose_the_epoch": chose, "note": "Optimistic." if chose else None, "adapter_sha256": "c" * 64}
    groups = breakdowns(hits, confidence, random.integers(5, 90, rows), {"publisher": [labels[k] for k in true]})
    reliable = {"reliability": reliability(hits, np.sqrt(confidence))}
    level = {
        "coverage": share(9, 10),
        "answered": share(8, 10),
        "accuracy_of_answered": share(7, 8),
        "mean_set_size": 1.2,
    }
    wrong = {"row": 1234, "text": f"of {HOSTILE}", "label": labels[0], "predicted": labels[1], "confidence": 0.9125}
    rest = {
        "calibration": {
            "temperature": 1.5, "reason": None, "validation_rows": 60, "after": numbers,
            "before": {"ece": 0.4321, "confidence": 0.8765, "log_loss": 0.6543, "brier": 0.5432} | reliable,
        },
        "abstention": {"levels": [{"level": 0.95, "reason": "Too few."}, {"level": 0.99} | level]},
        "accuracy_by": groups,
        "errors": [wrong],
    }  # fmt: skip
    metrics = full_metrics(true, probabilities, labels)
    return head | metrics | rest | tail | {"precision": "fp32", "seconds": 1.0}


def data_facts(labels: list[str], source: str = "news.csv") -> dict[str, Any]:
    """What data.json holds."""
    one = {"source": source, "sha256": "12" * 32, "text_columns": ["text"], "label_column": "label"}
    splits = {
        "train": one | {"rows": 119360, "quarantined": 17},
        "validation": one | {"rows": 640, "quarantined": 3},
        "test": one | {"rows": 7600, "quarantined": 0},
    }
    facts = {"labels": labels, "label_base": None, "validation_is_cut_from_train": True, "splits": splits}
    return facts | {"max_length": 512, "tokenizer_sha256": "34" * 32, "tokens": {"train": 6326080}}


def manifest_facts(labels: list[str]) -> dict[str, Any]:
    """What manifest.json holds."""
    environment = {
        "device": "cpu",
        "accelerator": None,
        "cpu": "a processor",
        "threads": 2,
        "precision": "fp32",
        "precision_reason": "asked for",
        "python": "3.11.7",
        "system": "Linux x86_64",
        "packages": {"torch": "2.13.0", "newslora": None},
        "commit": None,
    }
    return {
        "format": 1,
        "recipe": "mine",
        "adapter_sha256": "c" * 64,
        "backbone": {
            "name": "roberta-base",
            "location": "roberta-base",
            "kind": "hub",
            "revision": None,
            "sha256": None,
        },
        "model": ROBERTA | {"labels": labels},
        "training": {"steps": 37300, "seconds": 1970.2, "best_epoch": 2},
        "seed": 42,
        "environment": environment,
        "finished": "2026-11-24T03:39:13Z",
    }


def make_run(path: Path, labels: list[str], source: str = "news.csv") -> tuple[RunFolder, dict[str, Any]]:
    data = {"source": source, "label_names": ["a", "b"]}
    recipe = make_recipe({"name": "mine", "description": f"About {source}", "data": data, "train": {"epochs": 7}})
    run = RunFolder.create(path, recipe)
    files.write_json(run.data_file, data_facts(labels, source))
    steps = [
        {"kind": "train", "step": s, "epoch": s / 100, "loss": 3 / (s + 1), "learning_rate": 1.0}
        for s in range(0, 300, 10)
    ]
    lines = [*steps, epoch_line(1), epoch_line(2, best=True), epoch_line(3)]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, rows in (("validation", 60), ("test", 90)):
        files.write_json(run.evaluation / f"{name}.json", evaluation(name, labels, rows, name == "validation"))
    manifest = manifest_facts(labels)
    files.write_json(run.manifest_file, manifest)
    return run, manifest
