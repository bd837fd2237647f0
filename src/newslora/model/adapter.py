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
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.config import LoraSettings
from newslora.errors import BackboneError, RunError
from newslora.model.backbones import Backbone, resolve_backbone
from newslora.model.classifier import build_classifier

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
CARD = "newslora.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterCard:
    """What newslora.json says."""

    backbone: str
    backbone_kind: str
    backbone_revision: str | None
    backbone_sha256: str | None
    labels: tuple[str, ...]
    max_length: int
    text_columns: tuple[str, ...]
    lora: dict[str, Any]
    multi_label: bool = False
    label_separator: str = ";"  # between the labels of a row in a CSV file
    long_texts: str = "cut"  # this and the next as in data's settings
    window_overlap: int = 0
    weights_sha256: str = ""
    format: int = FORMAT

    @property
    def overlap(self) -> int | None:
        """Tokens that windows share; None where long texts are cut."""
        return self.window_overlap if self.long_texts == "windows" else None


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
    files.write_json(folder / CARD, asdict(card) | {"weights_sha256": digest})
    return digest


def read_card(folder: Path) -> AdapterCard:
    """The card of an adapter folder.

    Raises:
        RunError: no adapter there, a damaged card, or weights that are not those the card names.
    """
    path = folder / CARD
    try:
        values = files.read_json(path)
        lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        card = AdapterCard(**lists)
    except FileNotFoundError:
        raise RunError(f"{folder} holds no whole adapter: {CARD}, which is written last, is missing.") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}. Train the run again, or restore the file.") from None
    if card.format != FORMAT:
        raise RunError(
            f"The adapter {folder} has format {card.format}; this newslora reads {FORMAT}. Use the newslora that made it."
        )
    weights = folder / WEIGHTS
    if not weights.is_file() or files.sha256_file(weights) != card.weights_sha256:
        raise RunError(
            f"The weights in {folder} are missing or damaged: their hash is not the card's. Restore {WEIGHTS}."
        )
    return card


def load_adapter(folder: Path) -> "tuple[PeftModel, PreTrainedTokenizerBase, AdapterCard]":
    """An adapter folder -> (classifier ready to answer, tokenizer, card).

    Raises:
        RunError: a missing or damaged adapter, or one whose tensors do not fit the backbone.
        BackboneError: the backbone is not the one the adapter was trained on.
    """
    from transformers import AutoTokenizer

    card = read_card(folder)
    backbone = same_backbone(card)
    model = build_classifier(backbone, card.labels, LoraSettings(**card.lora), seed=0, multi_label=card.multi_label)
    _load_weights(model, folder / WEIGHTS)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return model.eval(), tokenizer, card


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


def _load_weights(model: "PeftModel", path: Path) -> None:
    """Load every tensor of the file into the model, and refuse if any is left over or any place stays fresh."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors = load_file(path)
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))
        raise RunError(f"The adapter {path} does not fit its backbone: {len(odd)} tensors differ, first '{odd[0]}'.")
    set_peft_model_state_dict(model, tensors)


def _plain(value: Any) -> Any:
    """A PEFT configuration as JSON: sets sorted, enumerations by value."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in sorted(value.items())}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return json.loads(json.dumps(value, default=lambda item: getattr(item, "value", str(item))))
