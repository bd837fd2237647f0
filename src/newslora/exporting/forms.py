"""The files of each kind of export, written into a folder that nobody sees yet."""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.errors import BackboneError, ExportError, needing, one_line
from newslora.model.adapter import CARD, AdapterCard, load_adapter, load_tokenizer
from newslora.model.classifier import quiet_peft, quiet_transformers
from newslora.model.exported import WEIGHTS
from newslora.predict.calibration import CALIBRATION, LOGITS
from newslora.predict.canary import CANARY
from newslora.predict.thresholds import THRESHOLDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COPIED = (".json", ".txt", ".model", ".safetensors")  # of an adapter folder; whatever else lies there stays there
OPSET = 20  # of the ONNX operators: the first with Gelu as one of them
LARGEST = 2**31 - 1  # bytes of a protobuf file, and so of a model with its weights inside


def merge(adapter: Path, card: AdapterCard) -> "PreTrainedModel":
    """The stock classifier with LoRA added to its weights, frozen.

    Raises:
        ExportError: merged weights that are not finite.
        BackboneError, NetworkError: the backbone is not to be had.
    """
    model = load_adapter(adapter, card)
    try:
        merged: Any = model.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT's word for weights that are not finite
        raise ExportError(f"The adapter {adapter} cannot be merged: {error}") from error
    frozen: PreTrainedModel = merged.requires_grad_(False).eval()
    return frozen


def write_common(adapter: Path, card: AdapterCard, kind: str, folder: Path) -> None:
    """What every export holds besides weights: card, tokenizer, calibration, thresholds, the run's canary."""
    for name in (CALIBRATION, LOGITS, THRESHOLDS, CANARY):
        if (adapter / name).is_file():
            shutil.copyfile(adapter / name, folder / name)
    if kind != "peft":
        tokenizer = load_tokenizer(adapter)
        tokenizer.model_max_length = card.max_length  # where a plain pipeline cuts, once asked to
        tokenizer.save_pretrained(folder)
    files.write_json(folder / CARD, replace(card, export=kind).record())


def write_peft(adapter: Path, folder: Path) -> None:
    """The adapter's own files, and nothing else that may lie beside them."""
    for path in sorted(adapter.iterdir()):
        if path.is_file() and path.suffix in COPIED and not path.name.startswith("."):
            shutil.copyfile(path, folder / path.name)


def write_merged(merged: "PreTrainedModel", folder: Path) -> None:
    """model.safetensors and config.json, labels inside."""
    with quiet_transformers():
        merged.save_pretrained(folder, max_shard_size=1 << 60)  # one file, whatever its size


def write_onnx(merged: "PreTrainedModel", folder: Path) -> Path:
    """model.onnx and config.json; rows and length are free.

    Token types are left out: every family here takes their absence as zeros, as training did.

    Raises:
        MissingExtraError: the extra 'export' is not installed.
        ExportError: a model of two gigabytes or more, or one that torch cannot trace.
    """
    with needing("Exporting to ONNX", "export"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    import torch

    size = sum(parameter.numel() * parameter.element_size() for parameter in merged.parameters())
    if size >= LARGEST:
        raise ExportError(
            f"The classifier has {size / 2**30:.1f} GiB of weights, and an ONNX file holds less than 2. Export to "
            "merged in its place (--to merged)."
        )
    merged.config.save_pretrained(folder)
    # two rows of eight, which no dimension of a model is likely to share; one tensor given twice would be traced as one input
    ids, mask = torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
    mask[1, 5:] = 0
    free = {0: "rows", 1: "length"}
    with _quiet_exporter():
        try:
            program: Any = torch.onnx.export(
                _logits_only(merged),
                kwargs={"input_ids": ids, "attention_mask": mask},
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": free, "attention_mask": free},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:  # of every kind: tracing runs into whatever a model holds
            raise ExportError(
                f"torch cannot export {type(merged).__name__} to ONNX: {one_line(error)} "
                "Export to merged in its place (--to merged)."
            ) from error
    _forget_where_it_was_made(program.model)
    path = folder / WEIGHTS["onnx"]
    program.save(path, external_data=False)
    return path


def open_stock_peft(folder: Path, backbone: Any) -> Any:
    """A PEFT folder as anybody would load it: stock transformers, then `PeftModel.from_pretrained`."""
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with quiet_transformers(), quiet_peft():
        # each lets through exceptions of every kind, such as what a damaged adapter_config.json makes of PEFT's parts
        try:
            config = AutoConfig.from_pretrained(folder)
        except Exception as error:
            raise _unreadable(folder, "config.json", error) from error
        base = backbone.load(
            AutoModelForSequenceClassification.from_pretrained,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head of other labels, which the adapter replaces
        )
        try:
            return PeftModel.from_pretrained(base, str(folder)).eval()
        except Exception as error:
            raise _unreadable(folder, "adapter_config.json", error) from error


def _unreadable(folder: Path, name: str, error: Exception) -> BackboneError:
    told = one_line(f"{type(error).__name__}: {error}")
    return BackboneError(f"PEFT cannot load the adapter in {folder}, by its {name}: {told}. Restore the folder.")


def _logits_only(merged: "PreTrainedModel") -> Any:
    """The classifier as a function of ids and mask to logits, which is all the file shall do."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = merged

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.classifier(input_ids=input_ids, attention_mask=attention_mask).logits
            return found

    return Logits().eval()


def _forget_where_it_was_made(model: Any) -> None:
    """Drop the stack traces torch writes beside every operator: paths of this machine, of no use to a reader."""
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says of packages nobody asked for, and of its own code."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch.export 2.13 copies its own tree specifications by a name it deprecates
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            # both inputs have the same free axes, and naming them once is enough: the exporter says so of the second
            warnings.filterwarnings("ignore", message="# The axis name: .* will not be used", category=UserWarning)
            yield
    finally:
        log.setLevel(level)
