"""Backbone + LoRA + head = classifier: the stock transformers and PEFT modules, put together and counted."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newslora.config import LoraSettings, ModelSettings
from newslora.errors import BackboneError
from newslora.model.backbones import Backbone
from newslora.model.families import Family, family_of
from newslora.runtime import seed_everything

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

HEAD_SEED = 1  # second part of the seed of freshly initialised modules


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters of a classifier."""

    lora: int
    head: int
    total: int  # frozen ones included; the head's frozen original, which PEFT keeps beside the trained copy, is not

    @property
    def trainable(self) -> int:
        return self.lora + self.head


def build_classifier(
    backbone: Backbone,
    label_names: Sequence[str],
    lora: LoraSettings,
    seed: int,
    model: ModelSettings | None = None,
    multi_label: bool = False,
) -> "PeftModel":
    """Load pretrained weights, add head and LoRA; only LoRA and head train.

    Args:
        backbone: from `resolve_backbone`.
        label_names: in id order, stored in the configuration.
        lora: rank, scale, dropout and targets.
        seed: fixes the freshly initialised weights.
        model: dropout other than the backbone's own.
        multi_label: whether a text may carry several labels; the configuration then says so, as stock transformers reads it.

    Raises:
        BackboneError, NetworkError: the backbone cannot be had or is of no supported family.
    """
    built = pretrained_classifier(backbone, label_names, seed, model, multi_label)
    return _add_lora(built, lora_config(family_of(built.config.model_type), lora, backbone.hub_name))


def pretrained_classifier(
    backbone: Backbone,
    label_names: Sequence[str],
    seed: int,
    model: ModelSettings | None = None,
    multi_label: bool = False,
) -> "PreTrainedModel":
    """The stock classifier without LoRA: pretrained encoder, head as the checkpoint has it or else fresh.

    Arguments and errors as in `build_classifier`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = with_labels(backbone.config(), label_names)
    if getattr(config, "is_decoder", False):
        raise BackboneError(
            f"The backbone '{backbone.name}' is a decoder (is_decoder is true in its config.json): its first token, which the "
            "head reads, sees no other. Use an encoder; if it was trained as one, set is_decoder to false in a copy of it."
        )
    if multi_label:
        config.problem_type = "multi_label_classification"
    family = family_of(config.model_type)
    if model is not None:
        _set_dropout(config, family, model)
    seed_everything(seed, HEAD_SEED)
    with quiet_transformers():
        built, report = backbone.load(
            AutoModelForSequenceClassification.from_pretrained,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,  # whatever the file holds: what trains is an fp32 master, and fp32 runs add to its products
            ignore_mismatched_sizes=True,  # a head of other labels is replaced; what else does not fit is found below
            output_loading_info=True,
        )
    fresh = {
        name.rpartition(".")[0] for name in (*report["missing_keys"], *(key[0] for key in report["mismatched_keys"]))
    }
    extra = sorted(name for name in fresh if not any(part in family.head for part in name.split(".")))
    if extra:
        raise BackboneError(
            f"The weights of '{backbone.name}' lack {len(extra)} modules of the encoder or give them other shapes "
            f"({', '.join(extra[:3])}): they are not those its config.json asks for. Use a whole pretrained encoder."
        )
    # PEFT writes this name into the adapter; a path into this machine's site-packages would help nobody
    built.name_or_path = built.config.name_or_path = backbone.hub_name
    stock: PreTrainedModel = built
    return stock


def empty_classifier(config: "PretrainedConfig", label_names: Sequence[str], lora: LoraSettings) -> "PeftModel":
    """The same classifier on torch's meta device: shapes and counts, no weights, no memory."""
    import torch

    with torch.device("meta"):
        return random_classifier(config, label_names, lora)


def random_classifier(
    config: "PretrainedConfig", label_names: Sequence[str], lora: LoraSettings, model: ModelSettings | None = None
) -> "PeftModel":
    """The same classifier with random weights: for timing and tests, where pretrained ones make no difference."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config = with_labels(config, label_names)
    if model is not None:
        _set_dropout(config, family_of(config.model_type), model)
    built = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)  # as pretrained ones are
    return _add_lora(built, lora_config(family_of(config.model_type), lora, None))


def _add_lora(model: "PreTrainedModel", config: "LoraConfig") -> "PeftModel":
    from peft import get_peft_model

    with quiet_peft():
        return get_peft_model(model, config)


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Without PEFT 0.21's warning that it asks transformers by an older name, which no user of newslora can change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def with_labels(config: "PretrainedConfig", label_names: Sequence[str]) -> "PretrainedConfig":
    """The configuration with `id2label` and `label2id` of these labels."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    return config


def _set_dropout(config: "PretrainedConfig", family: Family, model: ModelSettings) -> None:
    if model.hidden_dropout is not None:
        for name in family.hidden_dropout:
            setattr(config, name, model.hidden_dropout)
    if model.attention_dropout is not None:
        setattr(config, family.attention_dropout, model.attention_dropout)


def lora_config(family: Family, lora: LoraSettings, base_model: str | None) -> "LoraConfig":
    """Our settings as PEFT's configuration."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(family.targets(lora.targets)),
        modules_to_save=list(family.head),
        base_model_name_or_path=base_model,
    )


def stock_model(model: "PeftModel | PreTrainedModel") -> Any:
    """The stock classifier: inside PEFT's wrapper, or itself where LoRA was merged into it."""
    inside = getattr(model, "get_base_model", None)
    return model if inside is None else inside()


def trainable_parameters(model: "PeftModel | PreTrainedModel") -> Iterator[tuple[str, Any]]:
    """(name, parameter) of everything that trains, in the model's order."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def count_parameters(model: "PeftModel") -> Counts:
    """LoRA, head and total parameters."""
    trainable = dict(trainable_parameters(model))
    lora = sum(p.numel() for name, p in trainable.items() if "lora_" in name)
    head = sum(p.numel() for name, p in trainable.items() if "lora_" not in name)
    total = sum(p.numel() for name, p in model.named_parameters() if ".original_module." not in name)
    return Counts(lora, head, total)


def length_limit(config: "PretrainedConfig", wanted: int) -> int:
    """Tokens a row may have: the wanted number, or the encoder's own limit if that is less."""
    family = family_of(config.model_type)
    positions = getattr(config, "max_position_embeddings", None)
    added = family.positions_limit_length or getattr(config, "position_biased_input", False)
    if not added or not positions:
        return wanted
    return min(wanted, int(positions) - family.first_position(config))


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars, and the notice that the head is new: it is meant to be, and what else is missing is checked."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
