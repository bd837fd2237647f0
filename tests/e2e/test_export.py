"""Exports of a trained run: the same answers by every way of loading them, and what they say of themselves."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_parts import INT8, KINDS, TEXTS, Made

from newslora import files
from newslora.errors import RunError, SettingsError
from newslora.exporting.odd_texts import odd_texts
from newslora.model.packed import eight_bits
from newslora.predict.canary import load_canary
from newslora.predict.classifier import Classifier

pytest_plugins = ["export_parts"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_runs_answers_and_says_what_it_is(kind: str, made: Made) -> None:
    run, export = Classifier.load(made.run), Classifier.load(made.folders[kind])
    texts = TEXTS * 3 + odd_texts(run.card)
    tolerance = 0.2 if kind in INT8 else 1e-5  # seven or eight bits a weight; as the gate asks
    apart = np.abs(run.predict_proba(texts) - export.predict_proba(texts)).max()
    assert apart <= tolerance, apart
    some = [text for text in TEXTS if text]  # an empty one is answered by predict_proba alone
    assert [one.label for one in export(some)] == [one.label for one in run(some)]
    assert export.labels == run.labels
    assert (export.temperature, export.card.export) == (run.temperature, kind)
    assert export(TEXTS[0], abstain=0.9).answer_set == run(TEXTS[0], abstain=0.9).answer_set
    assert export.engine.name == {"merged": "packed", "peft": "packed", "int8": "packed-int8"}.get(kind, kind)


def test_identities_tell_exports_apart_and_do_not_change(made: Made) -> None:
    found = [json.dumps(Classifier.load(place).identity()) for place in (made.run, *made.folders.values())]
    assert len(set(found)) == len(found)
    again = json.dumps(Classifier.load(made.folders["onnx"]).identity())
    assert again == found[1 + KINDS.index("onnx")]
    assert "onnxruntime" in again
    assert "products in" in found[1 + KINDS.index("int8")]  # another chip may give other last bits


@pytest.mark.skipif(
    not eight_bits.multiplies_bytes(torch.device("cpu")), reason="the chip multiplies no bytes fast (no AVX2)"
)
def test_without_numba_int8_answers_all_the_same_and_says_what_is_missing(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = Classifier.load(made.folders["int8"])
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *given: None if name == "numba" else found(name, *given)
    )
    plain = Classifier.load(made.folders["int8"])
    assert "pip install 'newslora[int8]'" in plain.precision.reason
    assert "fp32 between them" in fused.precision.reason
    assert plain.identity() != fused.identity()
    np.testing.assert_allclose(plain.predict_proba(TEXTS), fused.predict_proba(TEXTS), atol=0.05)  # bf16 and bytes


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_holds_the_gates_numbers_and_every_file(kind: str, made: Made) -> None:
    folder, record = made.folders[kind], made.records[kind]
    assert files.read_json(folder / "export.json") == record
    listed = set(record["files"]) | {"export.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == listed
    assert len({path.stat().st_mode & 0o777 for path in folder.iterdir()}) == 1  # none for its owner alone
    assert record["adapter_sha256"] == files.read_json(made.run / "manifest.json")["adapter_sha256"]
    held, odd = record["gate"]["checks"].values()
    assert str(made.rows.parent) not in json.dumps(record["gate"])  # an export travels
    assert record["gate"]["held"]["rows"] == held["rows"]
    assert record["gate"]["passed"] is held["passed"] is odd["passed"] is True
    assert held["rows"] == (200 if kind in INT8 else 40)
    assert odd["rows"] > 20
    if kind == "onnx-int8":
        assert record["int8"]["method"] == "dynamic"
        assert record["int8"]["weights"] >= 2 * 6 + 2  # six products a layer; words and positions
    if kind in INT8:
        assert "200 rows cannot tell more" in held["remark"]
    else:
        assert held["other_labels"] == odd["other_labels"] == 0
        assert held["largest_in_tolerances"] <= 1
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## This export" in card
    assert "## How good it is" in card
    assert (b"/site-packages/" in (folder / "model.onnx").read_bytes()) is False if "onnx" in kind else True


# What plain transformers answers with the merged kinds, in a process that knows nothing of newslora; then ours with the others.
ELSEWHERE = """
import json, os, sys
from transformers import AutoModelForSequenceClassification, pipeline
texts, stock, folders = map(json.loads, sys.argv[1:])
answers = []
for folder in stock:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    told = pipeline("text-classification", model=folder, truncation=True, top_k=None)(texts)
    answers.append([model.config.label2id, [{one["label"]: one["score"] for one in row} for row in told]])
assert "newslora" not in sys.modules
import newslora
ours = [newslora.Classifier.load(folder).predict_proba(texts).tolist() for folder in folders]
print("ANSWERS" + json.dumps([answers, ours]), flush=True)
os._exit(0)  # without the interpreter's own end, which takes seconds
"""


@pytest.fixture(scope="module")
def elsewhere(made: Made) -> Any:
    stock, ours = ([str(made.folders[kind]) for kind in kinds] for kinds in (("merged", "int8"), ("onnx", "onnx-int8")))
    command = [sys.executable, "-c", ELSEWHERE, *map(json.dumps, (TEXTS, stock, ours))]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr[-3000:]
    return json.loads(out.stdout.split("ANSWERS")[1])


def test_plain_transformers_loads_a_merged_export_labels_and_length_included(made: Made, elsewhere: Any) -> None:
    run = Classifier.load(made.run, engine="padded")
    logits = run.logits(run.rows(TEXTS)).astype(np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)  # transformers knows no temperature
    for label2id, told in elsewhere[0]:
        assert label2id == {name: place for place, name in enumerate(run.labels)}
        got = np.array([[row[name] for name in run.labels] for row in told])
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_another_process_gives_the_same_answers_to_the_last_bit(made: Made, elsewhere: Any) -> None:
    folders = [made.folders[kind] for kind in ("onnx", "onnx-int8")]
    assert elsewhere[1] == [Classifier.load(folder).predict_proba(TEXTS).tolist() for folder in folders]


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("onnx", {"device": "cuda"}), ("onnx", {"precision": "bf16"}), ("onnx", {"engine": "packed"}),
        ("int8", {"device": "cuda"}), ("int8", {"precision": "bf16"}),
    ],
)  # fmt: skip
def test_what_an_export_cannot_do_is_refused(kind: str, asked: dict[str, str], made: Made) -> None:
    with pytest.raises(SettingsError, match=next(iter(asked.values()))):
        Classifier.load(made.folders[kind], **asked)


@pytest.mark.parametrize(
    ("kind", "name"), [("merged", "model.safetensors"), ("onnx", "model.onnx"), ("onnx", "config.json")]
)
def test_a_flipped_byte_is_refused_at_load(kind: str, name: str, made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.folders[kind], tmp_path / "copy"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name} in .* is missing or damaged"):
        Classifier.load(folder)


@pytest.mark.parametrize("kind", ["int8", "onnx-int8"])
def test_in_eight_bits_the_canary_is_the_exports_own(kind: str, made: Made) -> None:
    # a gate passes over a few texts that rounding moves far; among the run's 32, one would keep the export from being served
    export = Classifier.load(made.folders[kind])
    own, runs = (load_canary(folder, export.card.weights_sha256) for folder in (export.folder, made.run / "adapter"))
    assert own is not None
    assert runs is not None
    assert np.abs(export.logits(export.rows(own.texts)) - own.logits).max() < 1e-4  # rounding of other sums
    assert (own.texts, own.labels) == (runs.texts, runs.labels)
    assert not np.array_equal(own.logits, runs.logits)
