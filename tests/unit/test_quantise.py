"""What ONNX Runtime's quantiser is asked for, on two products of a feed-forward layer."""

from pathlib import Path

import numpy as np
import pytest
from refusing_parts import files_end_at

from newslora.exporting.quantise import quantise

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
WIDE, NARROW = 16, 8


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A wide product, then the last of its layer."""
    rng, helper = np.random.default_rng(0), onnx.helper
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((NARROW, WIDE), (WIDE, NARROW))]
    shape = ["rows", NARROW]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["in", "up"], ["between"], "first"),
         helper.make_node("MatMul", ["between", "down"], ["out"], "last")],
        "layer",
        *([helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)] for name in ("in", "out")),
        [onnx.numpy_helper.from_array(one, name) for one, name in zip(weights, ("up", "down"), strict=True)],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def test_weights_have_seven_bits_and_a_scale_a_channel(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    made = quantise(model, target, "dynamic")
    assert (made["weights"], made["kept_in_fp32"]) == (2, ["head"])
    held = initializers(target)
    bytes_held = {name: one for name, one in held.items() if one.dtype == np.int8 and one.ndim == 2}
    assert sorted(one.shape for one in bytes_held.values()) == [(NARROW, WIDE), (WIDE, NARROW)]
    assert {int(np.abs(one.astype(int)).max()) for one in bytes_held.values()} == {64}  # two products fit in 16 bits
    assert sorted(len(one) for name, one in held.items() if name.endswith("_scale")) == [NARROW, WIDE]


def test_with_care_the_last_product_of_a_layer_stays(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "careful.onnx"
    made = quantise(model, target, "dynamic", careful=True)
    assert (made["weights"], made["kept_in_fp32"]) == (1, ["head", "last product of each layer"])
    assert np.array_equal(initializers(target)["down"], initializers(model)["down"])


def test_a_disk_without_room_refuses_before_a_damaged_file_is_read(model: Path, tmp_path: Path) -> None:
    """ONNX Runtime would write a part of the file, and read it back as a model."""
    with files_end_at(500), pytest.raises(OSError, match="File too large"):
        quantise(model, tmp_path / "int8.onnx", "dynamic")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
