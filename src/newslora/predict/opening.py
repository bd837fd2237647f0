"""An adapter or export folder -> the engine that answers for it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora.errors import SettingsError, WorkerError, near
from newslora.model.adapter import AdapterCard, load_adapter, load_tokenizer
from newslora.model.engine import Engine, make_byte_engine, make_engine
from newslora.model.exported import MERGED, ONNX, WEIGHTS, load_config, load_merged, manifest
from newslora.model.packed.byte_layers import can_fuse
from newslora.model.packed.eight_bits import multiplies_bytes
from newslora.runtime import Precision, pick_device, resolve_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_opened_in: int | None = None  # the process that opened the first one
ENGINES = ("auto", "packed", "padded")
DEFAULT = "fp32"  # the precision `Classifier.load` asks for by itself


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
        SettingsError: a device, precision or engine that this machine or the export has not.
        WorkerError: in a forked process, as `refuse_forked` says.
    """
    refuse_forked()
    if engine not in ENGINES:
        raise SettingsError(f"There is no engine '{engine}'. Allowed: {', '.join(ENGINES)}.{near(engine, ENGINES)}")
    if card.export in ONNX:
        made, own = _open_onnx(folder, card, card.export, device, precision, engine)
    elif card.export == "int8" and engine != "padded":
        made, own = _open_int8(folder, card, device, precision)
    else:
        target = pick_device(device)
        own = resolve_precision(precision, target)
        model: Any = load_merged(folder, card.labels) if card.export in MERGED else load_adapter(folder, card)
        made = make_engine(model.to(target), engine, own, release=True)
    return made, load_tokenizer(folder), own


def refuse_forked() -> None:
    """See that this process is the one that opened the first engine, or computes on one thread.

    The threads that torch computes on do not outlive a fork, and its child would wait for them for ever.

    Raises:
        WorkerError: it is a fork of that process.
    """
    import torch

    global _opened_in
    _opened_in = _opened_in or os.getpid()
    if _opened_in != os.getpid() and torch.get_num_threads() > 1:
        raise WorkerError(
            "This process is a fork of one in which a classifier was loaded, and torch's threads do not outlive a fork. Start "
            "processes by 'spawn', load none before forking, or call torch.set_num_threads(1) in each."
        )


def _open_onnx(
    folder: Path, card: AdapterCard, kind: str, device: str | None, precision: str, engine: str
) -> tuple[Engine, Precision]:
    from newslora.model.onnx_engine import OnnxEngine

    own = Precision("fp32" if kind == "onnx" else "int8", "the export's own")
    _refuse_others(
        f"{folder} is an ONNX export: it runs on the CPU, on padded rows, in what it was made for ({own.name})",
        ("device", device or "cpu", ("cpu",)),
        ("precision", precision, ("auto", DEFAULT, own.name)),
        ("engine", engine, ("auto", "padded")),
    )
    alone = manifest(folder).get("int8", {}).get("method") == "dynamic"
    return OnnxEngine(folder / WEIGHTS[kind], load_config(folder, card.labels), kind, alone), own


def _open_int8(folder: Path, card: AdapterCard, device: str | None, precision: str) -> tuple[Engine, Precision]:
    _refuse_others(
        f"{folder} is an int8 export: it runs on the CPU, in eight bits",
        ("device", device or "cpu", ("cpu",)),
        ("precision", precision, ("auto", DEFAULT, "int8")),
    )
    between = resolve_precision("auto", pick_device("cpu"))
    made = make_byte_engine(load_merged(folder, card.labels), between)
    if not multiplies_bytes(made.device):
        how = f"products in fp32, as the chip multiplies no bytes fast (no AVX2), {between.name} between them"
    elif can_fuse():
        how = "products in bytes, fp32 between them"
        how += " (long rows' attention in bf16)" if between.name == "bf16" else ""
    else:
        how = f"products in bytes, {between.name} between them; faster with Numba: pip install 'newslora[int8]'"
    return made, Precision("int8", f"the export's own; {how}")


def _refuse_others(what: str, *asked: tuple[str, str, tuple[str, ...]]) -> None:
    """`asked`: name of a setting, its value, what is allowed."""
    for name, value, allowed in asked:
        if value not in allowed:
            raise SettingsError(f"The {name} is '{value}', but {what}. Leave the {name} out, or load the run itself.")
