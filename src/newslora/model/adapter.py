"""The trained adapter on disk: a stock PEFT folder plus what is needed to use it alone.

adapter_model.safetensors, adapter_config.json   PEFT's own; `PeftModel.from_pretrained` reads them
config.json, tokenizer files                     the encoder's configuration with labels; its tokenizer
newslora.json                                    backbone, labels, length limit, hashes; written last
calibration.json, calibration.safetensors        added when training has ended (newslora.predict.calibration)
canary.json                                      added then: texts and their logits (newslora.predict.canary)
thresholds.json                                  the same where texts may carry several labels (newslora.predict.thresholds)
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from newslora import files
from newslora.config import LoraSettings, sentence
from newslora.errors import BackboneError, RunError, one_line
from newslora.model.backbones import Backbone, resolve_backbone
from newslora.model.classifier import build_classifier
from newslora.model.exported import check_export
from newslora.records.reading import STRICT, read_record

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
CARD = "newslora.json"
WEIGHTS = "adapter_model.safetensors"
MOST_TOKENS = 2**31 - 1  # that a tokenizer can be asked for


def _lora(values: dict[str, Any]) -> dict[str, Any]:
    try:
        LoraSettings(**values)
    except ValidationError as error:
        raise ValueError("; ".join(sentence(item).removesuffix(".") for item in error.errors())) from None
    return values


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands there twice")
    return names


@dataclass(frozen=True, slots=True)
class AdapterCard:
    """What newslora.json says."""

    __pydantic_config__ = STRICT

    backbone: Annotated[str, Field(min_length=1)]
    backbone_kind: str
    backbone_revision: str | None
    backbone_sha256: str | None
    labels: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_different)]
    max_length: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    text_columns: tuple[str, ...]
    lora: Annotated[dict[str, Any], AfterValidator(_lora)]
    multi_label: bool = False
    label_separator: str = ";"  # between the labels of a row in a CSV file
    long_texts: Literal["cut", "windows"] = "cut"  # this and the next as in data's settings
    window_overlap: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 0
    weights_sha256: str = ""
    format: int = FORMAT
    export: str | None = None  # the kind of export this folder is (newslora.model.exported); None: the adapter itself

    @property
    def overlap(self) -> int | None:
        """Tokens that windows share; None where long texts are cut."""
        return self.window_overlap if self.long_texts == "windows" else None

    @property
    def backbone_name(self) -> str:
        """The backbone for those who are not to learn where it lies: of a folder its own name."""
        return Path(self.backbone).name if self.backbone_kind == "folder" else self.backbone

    def record(self) -> dict[str, Any]:
        """As newslora.json holds it; the adapter's own says nothing of exports."""
        return {name: value for name, value in asdict(self).items() if name != "export" or value is not None}


def save_adapter(model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", card: AdapterCard, folder: Path) -> str:
    """Write the adapter folder and return its version, the hash of its weights. The card is written last.

    Raises:
        RunError: weights that are not finite.
        StorageError: the disk refuses.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise RunError(
            f"The adapter holds values that are not finite ({broken[0]}); it is not saved. Lower the learning rate."
        )
    with files.disk_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        with files.atomic_path(folder / WEIGHTS) as temporary:
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata={"format": "pt"}
            )
        config = model.peft_config["default"].to_dict() | {"inference_mode": True}
        # PEFT keeps sets, whose order changes from process to process; sorted, equal adapters are equal files
        files.write_json(folder / "adapter_config.json", _plain(config))
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    digest = files.sha256_file(folder / WEIGHTS)
    files.write_json(folder / CARD, card.record() | {"weights_sha256": digest})
    return digest


def read_card(folder: Path, gated: bool = True) -> AdapterCard:
    """The card of an adapter folder, or of an export; without `gated`, also of one whose gate has not been asked yet.

    Raises:
        RunError: no adapter there, a damaged card, or weights that are not those the card names.
    """
    try:
        card = read_record(folder / CARD, AdapterCard, "Train the run again, or restore the file.", FORMAT)
    except FileNotFoundError:
        raise RunError(f"{folder} holds no whole adapter: {CARD}, which is written last, is missing.") from None
    if card.export is not None:
        check_export(folder, card.export, card.weights_sha256, gated)
        return card
    weights = folder / WEIGHTS
    if not weights.is_file() or files.sha256_file(weights) != card.weights_sha256:
        raise RunError(
            f"The weights in {folder} are missing or damaged: their hash is not the card's. Restore {WEIGHTS}."
        )
    return card


def load_adapter(folder: Path, card: AdapterCard) -> "PeftModel":
    """The classifier of an adapter folder, whose card `read_card` gave, ready to answer.

    Raises:
        RunError: tensors that do not fit the backbone.
        BackboneError: the backbone is not the one the adapter was trained on.
    """
    backbone = same_backbone(card)
    model = build_classifier(backbone, card.labels, LoraSettings(**card.lora), seed=0, multi_label=card.multi_label)
    load_tensors(model, folder / WEIGHTS)
    return model.eval()


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of an adapter or export folder.

    Raises:
        RunError: its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # of every kind: transformers lets through what its parts raise
        raise RunError(f"The tokenizer in {folder} cannot be read ({one_line(error)}). Restore the folder.") from None
    return found


def same_backbone(card: AdapterCard) -> Backbone:
    """The backbone an adapter was trained on.

    Raises:
        BackboneError: it is not there, or has other weights.
    """
    backbone = resolve_backbone(card.backbone, card.backbone_revision)
    found = backbone.weights_sha256()
    if card.backbone_sha256 and found and found != card.backbone_sha256:
        raise BackboneError(
            f"The adapter was trained on '{card.backbone}' with weights {card.backbone_sha256[:12]}..., but the weights "
            f"found there are {found[:12]}.... An adapter answers rightly only on its own backbone: restore it."
        )
    return backbone


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """What an adapter's file of weights holds, by name.

    Raises:
        RunError: it is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path} is no safetensors file that can be read ({error}). Restore the folder.") from None


def load_tensors(model: "PeftModel", path: Path) -> None:
    """Load every tensor of the file into the model.

    Raises:
        RunError: one is left over or has another shape, or a place in the model stays fresh.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    tensors = read_tensors(path)
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))
        raise RunError(f"The adapter {path} does not fit its backbone: {len(odd)} tensors differ, first '{odd[0]}'.")
    try:
        set_peft_model_state_dict(model, tensors)
    except RuntimeError as error:  # torch's word for shapes that differ
        raise RunError(
            f"The adapter {path} does not fit its {CARD} or its backbone: {one_line(error)}. Restore the folder."
        ) from None


def _plain(config: dict[str, Any]) -> Any:
    """A PEFT configuration as JSON: keys and sets sorted, enumerations by value."""

    def default(value: Any) -> Any:
        return sorted(value) if isinstance(value, (set, frozenset)) else getattr(value, "value", str(value))

    return json.loads(json.dumps(config, default=default, sort_keys=True))
