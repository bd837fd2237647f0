"""fp32 ONNX -> int8 by ONNX Runtime's quantiser: every product with a weight of the encoder, and the embeddings.

Weights get a scale for each output channel and seven bits; embeddings, which nothing is multiplied with, eight. CPUs
without VNNI add two products of an unsigned and a signed byte in 16 bits, which 255 * 127 * 2 overflows and saturates
silently; 255 * 64 * 2 does not. What the gate measured on one machine therefore holds on every other (ONNX Runtime's guide
to quantisation: "reduce_range").

dynamic   the range of each tensor of activations is measured as it runs; newslora then runs every row by itself, since
          others in its batch would change it
static    ranges are fixed beforehand, from training rows; rows share batches
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newslora.data.batches import Rows, sorted_batches
from newslora.errors import ExportError

METHODS = ("dynamic", "static")
OPERATORS = ("MatMul", "Gather")  # products with weights, look-ups of embeddings
BATCH = 16  # rows measured at once


def quantise(
    source: Path, target: Path, method: str, rows: Rows | None = None, careful: bool = False
) -> dict[str, Any]:
    """Write the int8 model; returns how it was made.

    Args:
        source: the fp32 model.
        target: the file to write.
        method: one of `METHODS`.
        rows: on which a static model's ranges are measured.
        careful: keep the last product of each layer in fp32 too. What it multiplies, the feed-forward's activations, has the
            widest range for its numbers: nearly half of the error on AG News came from there, and a third of the products.

    Raises:
        ExportError: nothing in the model could be quantised.
        OSError: there is no room for it.
    """
    _require_room(target.parent, source.stat().st_size)
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

    shared: dict[str, Any] = {
        "op_types_to_quantize": list(OPERATORS),
        "per_channel": True,
        "reduce_range": True,
        "weight_type": QuantType.QInt8,
        "nodes_to_exclude": _kept(source, careful),
    }
    kept = ["head", *(["last product of each layer"] if careful else [])]
    made: dict[str, Any] = {
        "method": method,
        "kept_in_fp32": kept,
        "weight_bits": 7,
        "per_channel": True,
        "operators": list(OPERATORS),
    }
    weights_only = {"MatMulConstBOnly": True}  # products of two activations, as in attention, stay fp32
    with _quiet_quantiser():
        if method == "dynamic":
            quantize_dynamic(source, target, extra_options=weights_only, **shared)
        else:
            assert rows is not None
            quantize_static(
                source, target, _reader(rows), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=weights_only | {"OpTypesToExcludeOutputQuantization": ["MatMul"]}, **shared,
            )  # fmt: skip
            made |= {"ranges": "least to greatest", "calibration_rows": len(rows)}
    made["weights"] = _count(target)
    if not made["weights"]:
        raise ExportError(
            "ONNX Runtime found no weight of this model to quantise. Export to onnx in its place (--to onnx)."
        )
    return made


def _require_room(folder: Path, size: int) -> None:
    """Let the disk refuse here: ONNX Runtime writes the source once more, and does not look whether all of it was taken."""
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)


def _kept(source: Path, careful: bool) -> list[str]:
    """Names of the products that stay fp32, as the quantiser calls them.

    The head's run over one token a row and cost nothing. A layer's last product is the one with fewer outputs than inputs.
    """
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    head = [f"{node.name}_MatMul" for node in graph.node if node.op_type == "Gemm"]
    if not careful:
        return head
    products = [(node.name, shapes.get(node.input[1], ())) for node in graph.node if node.op_type == "MatMul"]
    return head + [name for name, shape in products if len(shape) == 2 and shape[0] > shape[1]]


def _reader(rows: Rows) -> Any:
    """Rows as the quantiser asks for them: one batch after another, then None."""
    from onnxruntime.quantization import CalibrationDataReader

    windows = Rows.unlabelled(rows.tokens.windows, rows.pad_id)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(sorted_batches(windows.tokens.lengths, BATCH))

        def get_next(self) -> dict[str, Any] | None:
            chosen = next(self.left, None)
            if chosen is None:
                return None
            batch = windows.batch(chosen)
            return {"input_ids": batch.input_ids.numpy(), "attention_mask": batch.attention_mask.numpy()}

    return Reader()


def _count(path: Path) -> int:
    """Weights kept in bytes, two dimensions each; of embeddings the quantiser makes unsigned ones."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return sum(one.data_type in kinds and len(one.dims) == 2 for one in model.graph.initializer)


@contextlib.contextmanager
def _quiet_quantiser() -> Iterator[None]:
    """Silence the advice to run ONNX Runtime's own optimiser first: torch's exporter has folded and shaped the graph."""

    def advice(record: logging.LogRecord) -> bool:
        return "run pre-processing before quantization" not in record.getMessage()

    root = logging.getLogger()  # the quantiser speaks through the root logger
    root.addFilter(advice)
    try:
        yield
    finally:
        root.removeFilter(advice)
