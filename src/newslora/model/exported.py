"""An export on disk: what a run became for other programs, and the check that it is what its gate passed.

newslora.json, calibration.*, thresholds.json   as beside the adapter; the card also says which kind of export this is
canary.json                                     the run's; of int8 exports, whose answers are others, their own
config.json, tokenizer files                    as transformers reads them
model.safetensors | model.onnx                  the weights; of a PEFT export, the adapter's own files
export.json                                     hash of every file and the gate's numbers; written last
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from newslora import files
from newslora.errors import RunError
from newslora.model.backbones import Backbone
from newslora.model.classifier import quiet_transformers
from newslora.records.reading import Record, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = 1
MANIFEST = "export.json"
BYTES = 2  # how an int8 export's bytes are made as it is opened (newslora.model.packed.eight_bits): raised where that changes
# kind of export -> file that holds its weights
WEIGHTS = {
    "merged": "model.safetensors",
    "int8": "model.safetensors",
    "onnx": "model.onnx",
    "onnx-int8": "model.onnx",
    "peft": "adapter_model.safetensors",
}
ONNX = ("onnx", "onnx-int8")
MERGED = ("merged", "int8")  # the stock classifier's own files


class _Manifest(Record):
    """What is read of export.json."""

    to: str
    adapter_sha256: str
    files: dict[str, str]  # hashes by name
    gate: dict[str, Any] | None = None
    int8: dict[str, Any] = Field(default_factory=dict)


def check_export(folder: Path, kind: str, version: str, gated: bool = True) -> None:
    """See that every file of an export is the one its manifest names, and that this is of the card's kind and version.

    Without `gated`, one whose gate has not been asked yet is accepted.

    Raises:
        RunError: it is not whole, not of this adapter, not passed by its gate, or damaged.
    """
    path = folder / MANIFEST
    try:
        record = read_record(path, _Manifest, "Export the run again.", FORMAT)
    except FileNotFoundError:
        raise RunError(f"{folder} holds no whole export: {MANIFEST}, which is written last, is missing.") from None
    named, weights = record.files, WEIGHTS.get(kind)
    same = (record.to, record.adapter_sha256) == (kind, version)
    passed = not gated or (record.gate or {}).get("passed") is True
    if not same or weights is None or not {"newslora.json", "config.json", weights} <= set(named):
        raise RunError(f"{path} is not of this export, or damaged. Export the run again.")
    if kind == "int8" and record.int8.get("bytes") != BYTES:
        raise RunError(
            f"The export {folder} is of an older newslora, which may have made other bytes of its weights: its gate says "
            "nothing of the answers it would give today. Export the run again in its place (--replace)."
        )
    if not passed:
        raise RunError(f"The export {folder} has not passed its gate, so it is not used. Export the run again.")
    for name, digest in named.items():
        if Path(name).name != name or name == "..":
            raise RunError(f"{path} names '{name}', which is not a file of the folder. Export the run again.")
        if not (folder / name).is_file() or files.sha256_file(folder / name) != digest:
            raise RunError(
                f"{name} in {folder} is missing or damaged: its hash is not the one in {MANIFEST}. Export the run again."
            )


def manifest(folder: Path) -> dict[str, Any]:
    """What a checked export's manifest says."""
    found: dict[str, Any] = files.read_json(folder / MANIFEST)
    return found


def load_merged(folder: Path, labels: tuple[str, ...]) -> "PreTrainedModel":
    """The stock classifier of a merged export, frozen and ready to answer.

    Raises:
        RunError: its tensors are not those its config.json asks for, or its labels are not `labels`.
        BackboneError: transformers cannot read it.
    """
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        model, report = Backbone(str(folder), str(folder), "folder").load(
            AutoModelForSequenceClassification.from_pretrained, use_safetensors=True, output_loading_info=True
        )
    odd = [str(name) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[key]]
    if odd:
        raise RunError(
            f"The weights in {folder} do not fit its config.json: {len(odd)} differ, first '{sorted(odd)[0]}'."
        )
    check_labels(model.config, labels, folder)
    found: PreTrainedModel = model.requires_grad_(False).eval()
    return found


def load_config(folder: Path, labels: tuple[str, ...]) -> Any:
    """The configuration of an export, for its labels and padding; errors as in `load_merged`."""
    config = Backbone(str(folder), str(folder), "folder").config()
    check_labels(config, labels, folder)
    return config


def check_labels(config: Any, labels: tuple[str, ...], folder: Path) -> None:
    """Refuse a configuration whose labels are not the card's: every answer would bear a wrong name."""
    if config.id2label != dict(enumerate(labels)):
        raise RunError(f"The labels in {folder / 'config.json'} are not those of newslora.json. Export the run again.")
