"""Adapters on disk -> adapters of one shared encoder. What lies in memory an adapter is its own tensors."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from newslora.config import LoraSettings
from newslora.data.batches import Chosen, Rows
from newslora.errors import RunError
from newslora.model.adapter import WEIGHTS, AdapterCard, read_tensors
from newslora.model.backbones import Backbone
from newslora.model.classifier import pretrained_classifier
from newslora.model.engine import AnyBatch, of_rows
from newslora.model.families import family_of
from newslora.model.packed.encoder import has_layers
from newslora.model.packed.mixed import AdapterWeights, MixedEncoder
from newslora.model.packed.segments import SegmentedBatch
from newslora.runtime import Precision

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

PREFIX = "base_model.model."  # before every name in PEFT's file


class AdapterEngine:
    """One adapter of a shared encoder, as an engine of its own."""

    name = "mixed"
    concurrent = True

    def __init__(self, encoder: MixedEncoder, weights: AdapterWeights) -> None:
        self.encoder, self.weights = encoder, weights
        self.model: Any = SimpleNamespace(config=SimpleNamespace(num_labels=weights.labels))  # all that is asked of it
        self.device = encoder.device

    @property
    def collate(self) -> "Callable[[Rows, Chosen], AnyBatch]":
        return self.encoder.collate

    def logits(self, batch: AnyBatch, dropout_seed: Sequence[int] | None = None) -> "torch.Tensor":
        """As every engine's; there is no training here, so nothing can be dropped."""
        import torch

        assert isinstance(batch, SegmentedBatch)
        assert dropout_seed is None
        windows = self.encoder.logits_of(batch, [self.weights] * len(batch.packed.order))
        return of_rows(torch.stack(windows), batch)

    def without_lora(self) -> "AdapterEngine":
        """The same head on the bare encoder: what the adapter's answers must differ from."""
        return AdapterEngine(self.encoder, AdapterWeights({}, self.weights.head, self.weights.labels))


def shares(config: "PretrainedConfig", precision: Precision, device: "torch.device") -> bool:
    """Whether encoders of this configuration can be shared by adapters on this device."""
    return has_layers(config, device) and precision.name != "fp16"


def encoder_key(backbone: Backbone, precision: Precision, device: "torch.device") -> str:
    """Equal for adapters that may share an encoder: same weights, same configuration, same arithmetic."""
    config = backbone.config().to_dict()
    own = ("id2label", "label2id", "_name_or_path", "problem_type", "transformers_version")
    told = sorted((name, repr(value)) for name, value in config.items() if name not in own)
    weights = backbone.weights_sha256() or f"{backbone.location} {backbone.revision}"
    return hashlib.sha256(repr((weights, told, precision.name, str(device))).encode()).hexdigest()


def load_encoder(backbone: Backbone, precision: Precision, device: "torch.device") -> MixedEncoder:
    """The frozen encoder, without any adapter.

    Raises:
        BackboneError, NetworkError: it cannot be had, or its head cannot be mixed.
    """
    model: Any = pretrained_classifier(backbone, ("a", "b"), seed=0)
    return MixedEncoder(model.to(device).eval(), precision.dtype)


def load_weights(encoder: MixedEncoder, folder: Path, card: AdapterCard) -> AdapterWeights:
    """An adapter's tensors for a shared encoder: every tensor of the file, and no place left without.

    Raises:
        RunError: tensors that are not those of such an adapter on this encoder, or not finite.
    """
    tensors = read_tensors(folder / WEIGHTS)
    settings = LoraSettings(**card.lora)
    adapted = adapted_modules(encoder, settings)
    head = {f"{PREFIX}{name}": name for name in encoder.stock_head}
    wanted = set(head) | {f"{PREFIX}{name}.lora_{side}.weight" for name in adapted for side in "AB"}
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))
        raise RunError(f"The adapter {folder} does not fit its backbone: {len(odd)} tensors differ, first '{odd[0]}'.")
    _check_shapes(encoder, tensors, folder, card, settings.rank)
    pairs = {
        name: (tensors[f"{PREFIX}{name}.lora_A.weight"], tensors[f"{PREFIX}{name}.lora_B.weight"]) for name in adapted
    }
    values = {name: tensors[key] for key, name in head.items()}
    return encoder.weights(pairs, values, settings.alpha / settings.rank)


def adapted_modules(encoder: MixedEncoder, lora: LoraSettings) -> list[str]:
    """Names of the stock modules that such an adapter changes, as PEFT would find them."""
    targets = family_of(encoder.model.config.model_type).targets(lora.targets)
    held = {encoder.names[module] for projection in encoder.projections for module, _ in projection.modules}
    return sorted(name for name in held if any(f".{name}".endswith(f".{target}") for target in targets))


def _check_shapes(
    encoder: MixedEncoder, tensors: "dict[str, torch.Tensor]", folder: Path, card: AdapterCard, rank: int
) -> None:
    *_, output = encoder.head
    wide = {f"{output}.weight", f"{output}.bias"}
    for name, stock in encoder.stock_head.items():
        wanted = [len(card.labels), *stock.shape[1:]] if name in wide else list(stock.shape)
        _check(list(tensors[PREFIX + name].shape) == wanted, folder, name)
    modules = dict(encoder.model.named_modules())
    for key, tensor in tensors.items():
        name, _, side = key.removeprefix(PREFIX).removesuffix(".weight").partition(".lora_")
        if side:
            linear = modules[name]
            wanted = [rank, linear.in_features] if side == "A" else [linear.out_features, rank]
            _check(list(tensor.shape) == wanted, folder, key)
        _check(bool(tensor.isfinite().all()), folder, key)


def _check(holds: bool, folder: Path, name: str) -> None:
    if not holds:
        raise RunError(
            f"The adapter {folder} does not fit its card or backbone: '{name}' has another shape or broken values."
        )
