"""Bulk prediction with a real classifier: killed and signalled processes, and its answers against the plain ones."""

import csv
import gc
import gzip
import json
import os
import random
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import newslora
from children import in_child, start, start_command
from newslora.cli.app import main
from newslora.config import DataSettings, LoraSettings
from newslora.errors import InterruptedRun, NewsloraError, RunError, SettingsError
from newslora.estimator import PackedAdapter
from newslora.predict.bulk import predict_source
from newslora.predict.calibration import Calibration
from newslora.predict.classifier import Classifier
from newslora.predict.thresholds import LabelThresholds

LABELS = ("World", "Sports")
WORDS = [
    "minister",
    "border",
    "treaty",
    "army",
    "peace",
    "striker",
    "club",
    "cup",
    "final",
    "record",
    "games",
    "stadium",
]
ROWS = 2_000


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """An adapter folder whose answers differ from text to text."""
    import torch

    from newslora.model.adapter import AdapterCard, save_adapter
    from newslora.model.backbones import resolve_backbone
    from newslora.model.classifier import build_classifier, trainable_parameters

    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    backbone, lora = resolve_backbone(str(tiny_bert)), LoraSettings()
    model = build_classifier(backbone, LABELS, lora, seed=3)
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable_parameters(model):
            parameter.add_(0.3 * torch.randn_like(parameter))
    card = AdapterCard(
        backbone=str(tiny_bert), backbone_kind="folder", backbone_revision=None, backbone_sha256=backbone.weights_sha256(),
        labels=LABELS, max_length=64, text_columns=("text",), lora=lora.model_dump(),
    )  # fmt: skip
    save_adapter(model, backbone.tokenizer(), card, folder)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in two formats, of many lengths; one in a hundred cannot be classified."""
    folder, rng = tmp_path_factory.mktemp("sources"), random.Random(3)
    rows = [
        {"id": str(place), "text": "" if place % 100 == 7 else " ".join(rng.choices(WORDS, k=rng.randint(1, 40)))}
        for place in range(ROWS)
    ]
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=500)
    return {suffix: folder / f"rows{suffix}" for suffix in (".csv", ".parquet")}


def sitting(adapter: Path, source: Path, output: Path) -> None:
    """In a child: small chunks, a commit after each."""
    import torch

    from newslora.predict import chunks, partial

    torch.set_num_threads(1)
    chunks.CHUNK, partial.COMMIT_SECONDS = 64, 0.0
    predict_source(Classifier.load(adapter), str(source), output, DataSettings())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    suffix: str, adapter: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    source, unbroken, output = sources[suffix], tmp_path / f"unbroken{suffix}", tmp_path / f"out{suffix}"
    whole = start(sitting, adapter, source, unbroken)
    whole.join(100)
    assert whole.exitcode == 0
    rng, killed, journal = random.Random(11), 0, output.with_name(output.name + ".partial") / "journal"
    for _ in range(20):
        child, before = start(sitting, adapter, source, output), journal.stat().st_size if journal.exists() else 0
        deadline = time.monotonic() + 100
        # it gets so far that each sitting commits something, and dies in the middle of whatever it does then
        while child.is_alive() and killed < 3 and time.monotonic() < deadline:
            if journal.exists() and journal.stat().st_size > before + 200:
                time.sleep(rng.uniform(0, 0.05))
                child.kill()
                break
            time.sleep(0.002)
        child.join(100)
        assert child.exitcode in (0, -signal.SIGKILL)
        if child.exitcode == 0:
            break
        killed += 1
    assert killed >= 3
    assert output.read_bytes() == unbroken.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {unbroken.name, output.name}


def test_answers_are_those_of_the_classifier(adapter: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    classifier = Classifier.load(adapter)
    counted = predict_source(classifier, str(sources[".csv"]), tmp_path / "out.jsonl", DataSettings())
    assert (counted.rows, counted.failed) == (ROWS, ROWS // 100)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(place) for place in range(ROWS)]
    for row in rows[::97]:
        alone = classifier(row["text"])
        if row["error"] is None:
            assert row["probability"] == pytest.approx(alone.probability, abs=1e-5)
            assert row["predicted"] == alone.label or abs(alone.probability - 0.5) < 1e-4
    assert len({row["probability"] for row in rows}) > 100


def test_a_classifier_is_freed_when_nobody_holds_it(adapter: Path) -> None:
    """At once: a server looks for cycles seldom, and each may hold an encoder."""
    alone, packed = Classifier.load(adapter), PackedAdapter.read(adapter)
    held = [weakref.ref(one) for one in (alone, packed, packed.classifier())]
    gc.disable()
    try:
        del alone, packed
        assert [one() for one in held] == [None] * 3
    finally:
        gc.enable()


def forking(adapter: Path) -> list[int]:
    """In a child whose OpenMP has two threads: how its own children end, by the threads they ask for."""
    import torch

    torch.set_num_threads(2)
    classify = Classifier.load(adapter)
    classify("striker club cup")

    def answered(threads: int) -> int:
        torch.set_num_threads(threads)
        try:
            return len(classify("striker club cup").labels)
        except NewsloraError as error:
            return 7 if "Start processes by 'spawn'" in str(error) else 8

    codes = []
    for threads in (2, 1):
        if not (one := os.fork()):
            signal.alarm(60)
            os._exit(answered(threads))
        codes.append(os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]))
    return codes


def test_a_fork_that_would_hang_is_refused(adapter: Path) -> None:
    assert in_child(forking, adapter) == [7, 1]


def test_one_call_makes_the_bytes_of_the_command(adapter: Path, tmp_path: Path) -> None:
    source, folder = tmp_path / "in.csv", tmp_path
    source.write_text("kop,rubriek\nstriker club cup,1\n,2\ntreaty border army,3\n")
    flags = ["--top-k", "2", "--probabilities", "--set", "data.text_columns=kop"]
    assert main(["predict", str(adapter), str(source), "-o", str(folder / "one.csv"), *flags]) == 0
    told: list[str] = []
    counted = newslora.predict_file(
        Classifier.load(adapter), source, folder / "two.csv", top_k=2, probabilities=True,
        changes={"data.text_columns": ["kop"]}, note=told.append,
    )  # fmt: skip
    assert (counted.rows, counted.predicted, counted.failed) == (3, 2, 1)
    assert (folder / "one.csv").read_bytes() == (folder / "two.csv").read_bytes()
    newslora.predict_file(str(adapter), source, folder / "three.csv.gz", changes={"data.text_columns": ["kop"]})
    assert gzip.decompress((folder / "three.csv.gz").read_bytes()).count(b"\n") == 4
    of_kop = DataSettings(text_columns=("kop",))
    with pytest.raises(InterruptedRun):
        predict_source(Classifier.load(adapter), str(source), folder / "five.csv", of_kop, stop=lambda: 2)
    more: dict[str, Any] = {"top_k": 1, "changes": {"data.text_columns": ["kop"]}}
    with pytest.raises(RunError, match="top_k was None and is 1"):
        newslora.predict_file(adapter, source, folder / "five.csv", **more)
    assert newslora.predict_file(adapter, source, folder / "five.csv", fresh=True, **more).rows == 3
    with pytest.raises(SettingsError, match="top-k is 9"):
        newslora.predict_file(str(adapter), source, folder / "four.csv", top_k=9)


def test_a_file_of_bad_rows_only_is_answered(adapter: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,text\n1,\n2, \n")
    counted = predict_source(Classifier.load(adapter), str(source), output, DataSettings())
    assert (counted.rows, counted.predicted, counted.failed) == (2, 0, 2)


def test_other_options_threads_and_a_changed_adapter_are_other_plans(adapter: Path) -> None:
    import torch

    classifier = Classifier.load(adapter)
    one = classifier.identity()
    assert one == Classifier.load(adapter).identity()
    json.dumps(one)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert {name for name, value in classifier.identity().items() if one[name] != value} == {"threads"}
    finally:
        torch.set_num_threads(threads)
    classifier.calibration = Calibration(2.0, np.zeros((1, 2), np.float32), np.zeros(1, np.int64), {})
    assert {name for name, value in classifier.identity().items() if one[name] != value} == {
        "temperature",
        "validation rows",
    }
    classifier.calibration, classifier.thresholds = None, LabelThresholds(np.array([0.5, 0.4]), {})
    assert {name for name, value in classifier.identity().items() if one[name] != value} == {"thresholds"}
    assert Classifier.load(adapter, precision="bf16").identity()["precision"] == "bf16"
    assert one["adapter"] == classifier.card.weights_sha256


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_chunk_and_says_how_to_go_on(
    number: signal.Signals, adapter: Path, sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    head, _, rest = sources[".csv"].read_text().partition("\n")
    source.write_text(head + "\n" + rest * 40)
    command = ["predict", str(adapter), str(source), "-o", str(output)]
    child = start_command(command, tmp_path / "errors")
    journal, deadline = tmp_path / "out.csv.partial" / "journal", time.monotonic() + 100
    while time.monotonic() < deadline and child.is_alive() and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.02)
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == 128 + number
    stderr = (tmp_path / "errors").read_text()
    told = " ".join(stderr.split())
    assert "Go on with the same command." in told
    assert "Traceback" not in stderr
    assert not output.exists()
    assert main([*command, "--top-k", "1"]) == 5
    refusal = " ".join(capsys.readouterr().err.split())
    assert "top_k was None and is 1" in refusal
    assert "--fresh" in refusal
