"""Export folders that were not made by newslora, or not left alone since."""

import json
from pathlib import Path
from typing import Any

import pytest

from newslora import files
from newslora.errors import MissingExtraError, RunError
from newslora.model.exported import check_export
from newslora.model.onnx_engine import open_session, wants_other_files

VERSION = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A merged export as far as its manifest is concerned."""
    for name in ("newslora.json", "config.json", "model.safetensors"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    named = {path.name: files.sha256_file(path) for path in tmp_path.iterdir()}
    manifest = {"format": 1, "to": "merged", "adapter_sha256": VERSION, "files": named, "gate": {"passed": True}}
    files.write_json(tmp_path / "export.json", manifest)
    return tmp_path


def change(folder: Path, **values: Any) -> None:
    path = folder / "export.json"
    path.write_text(json.dumps(files.read_json(path) | values), encoding="utf-8")


def test_a_whole_export_passes(folder: Path) -> None:
    check_export(folder, "merged", VERSION)


@pytest.mark.parametrize("name", ["newslora.json", "config.json", "model.safetensors"])
def test_a_damaged_or_missing_file_is_refused(name: str, folder: Path) -> None:
    (folder / name).write_text("other", encoding="utf-8")
    with pytest.raises(RunError, match=f"{name} in .* is missing or damaged"):
        check_export(folder, "merged", VERSION)
    (folder / name).unlink()
    with pytest.raises(RunError, match=f"{name} in .* is missing or damaged"):
        check_export(folder, "merged", VERSION)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "..", "a/../../b", "sub/model.safetensors"])
def test_a_file_outside_the_folder_is_never_looked_at(name: str, folder: Path) -> None:
    named = files.read_json(folder / "export.json")["files"]
    change(folder, files=named | {name: "0" * 64})
    with pytest.raises(RunError, match="not a file of the folder"):
        check_export(folder, "merged", VERSION)


@pytest.mark.parametrize(
    "values",
    [
        {"to": "onnx"}, {"adapter_sha256": "b" * 64}, {"files": {}}, {"files": ["model.safetensors"]},
        {"files": {"newslora.json": "0", "config.json": "0"}},
    ],
)  # fmt: skip
def test_another_exports_manifest_is_refused(values: dict[str, Any], folder: Path) -> None:
    change(folder, **values)
    with pytest.raises(RunError, match="Export the run again"):
        check_export(folder, "merged", VERSION)


@pytest.mark.parametrize("gate", [None, {}, {"passed": False}, {"passed": 1}])
def test_without_a_passed_gate_nothing_is_used(gate: Any, folder: Path) -> None:
    change(folder, gate=gate)
    with pytest.raises(RunError):
        check_export(folder, "merged", VERSION)
    check_export(folder, "merged", VERSION, gated=False)
    (folder / "export.json").unlink()
    with pytest.raises(RunError, match="written last, is missing"):
        check_export(folder, "merged", VERSION)


def onnx_model(path: Path, external: str | None = None) -> Path:
    """logits = input_ids as they are; or a model whose weight lies in another file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    nodes = [helper.make_node("Cast", ["input_ids"], ["logits"], to=TensorProto.FLOAT)]
    weights = []
    if external is not None:
        import numpy as np

        weight = numpy_helper.from_array(np.zeros(4, np.float32), "weight")
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", external
        weights.append(weight)
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "length"])
    graph = helper.make_graph(nodes, "g", made, [output], weights)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )
    assert onnx.load(path, load_external_data=False).graph.name == "g"
    return path


@pytest.mark.parametrize("place", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
def test_weights_in_other_files_are_refused(place: str, tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "model.onnx", external=place)
    assert wants_other_files(path)
    with pytest.raises(RunError, match="keeps weights in other files"):
        open_session(path)


def test_a_model_of_our_form_is_opened_and_others_are_not(tmp_path: Path) -> None:
    import numpy as np
    import torch

    session = open_session(onnx_model(tmp_path / "model.onnx"))
    ids = np.arange(6).reshape(2, 3)
    (found,) = session.run(["logits"], {"input_ids": ids, "attention_mask": ids})
    np.testing.assert_array_equal(found, ids)
    assert session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    for content in (b"", b"not a model", (tmp_path / "model.onnx").read_bytes()[:-40]):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(RunError, match=r"ONNX Runtime cannot open|no classifier"):
            open_session(tmp_path / "broken.onnx")


def test_without_onnx_runtime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"newslora\[export\]"):
        open_session(tmp_path / "model.onnx")


def test_an_int8_export_whose_bytes_were_made_otherwise_is_refused(folder: Path) -> None:
    """Its files are those its gate passed, and its answers would be others."""
    told = r"is of an older newslora.* Export the run again in its place \(--replace\)"
    for int8 in ({}, {"bytes": 1}):
        change(folder, to="int8", int8=int8)
        with pytest.raises(RunError, match=told):
            check_export(folder, "int8", VERSION)
    change(folder, int8={"bytes": 2})
    check_export(folder, "int8", VERSION)
