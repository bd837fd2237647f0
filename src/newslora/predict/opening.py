"""An adapter or export folder -> the engine that answers for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora.errors import SettingsError
from newslora.model.adapter import AdapterCard, load_adapter, load_tokenizer
from newslora.model.engine import Engine, make_engine
from newslora.model.exported import ONNX, WEIGHTS, load_config, load_merged, manifest
from newslora.runtime import Precision, pick_device, resolve_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_engine(
    folder: Path, card: AdapterCard, device: str | None, precision: str, engine: str
) -> "tuple[Engine, PreTrainedTokenizerBase, Precision]":
    """Its engine, its tokenizer, and what it computes in.

    Args:
        folder: checked, as `read_card` does.
        card: of the folder.
        device, precision, engine: as `Classifier.load` takes them.

    Raises:
        RunError, BackboneError, MissingExtraError, NetworkError: it cannot be opened.
        SettingsError: a device, precision or engine that this machine or an ONNX export has not.
    """
    if card.export in ONNX:
        made, own = _open_onnx(folder, card, card.export, device, precision, engine)
        return made, load_tokenizer(folder), own
    target = pick_device(device)
    resolved = resolve_precision(precision, target)
    model: Any
    if card.export == "merged":
        model, tokenizer = load_merged(folder, card.labels), load_tokenizer(folder)
    else:
        model, tokenizer, _ = load_adapter(folder, card)
    return make_engine(model.to(target), engine, resolved, release=True), tokenizer, resolved


def _open_onnx(
    folder: Path, card: AdapterCard, kind: str, device: str | None, precision: str, engine: str
) -> tuple[Engine, Precision]:
    from newslora.model.onnx_engine import OnnxEngine

    own = Precision("fp32" if kind == "onnx" else "int8", "the export's own")
    asked = (
        ("device", device or "cpu", ("cpu",)),
        ("precision", precision, ("auto", "fp32", own.name)),  # fp32 is what `Classifier.load` asks for by itself
        ("engine", engine, ("auto", "padded")),
    )
    for name, value, allowed in asked:
        if value not in allowed:
            raise SettingsError(
                f"The {name} is '{value}', but {folder} is an ONNX export: it runs on the CPU, on padded rows, in what it "
                f"was made for ({own.name}). Leave the {name} out, or load the run itself."
            )
    alone = manifest(folder).get("int8", {}).get("method") == "dynamic"
    return OnnxEngine(folder / WEIGHTS[kind], load_config(folder, card.labels), kind, alone), own
