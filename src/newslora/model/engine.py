"""How rows become logits: padded through the stock forward, or packed through ours. Both give the same numbers.

The padded engine is the plain reference, and the path of encoders that have no packed form: DeBERTa-v2, whose attention
compares contents with relative positions, and on a GPU MPNet, whose attention adds a bias that the kernels there do not take.
tests/equivalence/test_packed.py holds the two together.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from newslora.data.batches import Batch, Chosen, Rows
from newslora.errors import BackboneError, SettingsError
from newslora.model.packed.byte_layers import ByteEncoder, can_fuse
from newslora.model.packed.dropout import DeviceBits, DropoutBits
from newslora.model.packed.eight_bits import ByteProjection, multiplies_bytes
from newslora.model.packed.encoder import PackedEncoder, has_layers
from newslora.model.packed.interface import INTERFACE_FAMILIES, InterfaceEncoder
from newslora.model.packed.segments import SegmentedBatch
from newslora.model.packed.varlen import Kernel
from newslora.runtime import Precision, seed_everything

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

AnyBatch = Batch | SegmentedBatch


class Engine(Protocol):
    """A classifier that takes rows in the form it computes fastest."""

    # "padded", "packed" or "packed-int8"; of an ONNX export "onnx" or "onnx-int8"; of an adapter on a shared encoder "mixed"
    name: str
    # whether it takes passes beside each other from threads; one that shares out a pass by itself does not
    concurrent: bool
    model: Any  # PeftModel; of an export the stock model, or what its `config` is
    device: "torch.device"

    @property
    def collate(self) -> "Callable[[Rows, Chosen], AnyBatch]":
        """Makes a batch of row numbers; a plain function, so that worker processes can be given it."""

    def logits(self, batch: AnyBatch, dropout_seed: Sequence[int] | None = None) -> "torch.Tensor":
        """(B, C) fp32 logits in the order the rows were asked for; differentiable in LoRA and head.

        Args:
            batch: from `collate`, on the engine's device.
            dropout_seed: decides what dropout drops, alone; None drops nothing.
        """


class PaddedEngine:
    """The stock forward under torch's mixed precision."""

    name = "padded"
    concurrent = True

    def __init__(self, model: "PeftModel | PreTrainedModel", precision: Precision) -> None:
        self.model: Any = model
        self.precision = precision
        self.device: torch.device = next(model.parameters()).device

    @property
    def collate(self) -> "Callable[[Rows, Chosen], AnyBatch]":
        return Rows.batch

    def logits(self, batch: AnyBatch, dropout_seed: Sequence[int] | None = None) -> "torch.Tensor":
        assert isinstance(batch, Batch)
        self.model.train(dropout_seed is not None)
        if dropout_seed is not None:
            seed_everything(*dropout_seed)
        with self.precision.autocast(self.device):
            logits: torch.Tensor = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return of_rows(logits.float(), batch)


class PackedEngine:
    """Packed tokens; frozen weights once in the compute type, LoRA and head as fp32 masters."""

    name = "packed"
    concurrent = True

    def __init__(
        self,
        model: "PeftModel | PreTrainedModel",
        encoder: PackedEncoder | InterfaceEncoder,
        answers_only: bool = False,
    ) -> None:
        """Put its encoder in a model's place; `answers_only`: this is in evaluation mode, and no other engine changes that."""
        self.model: Any = model
        self._answers_only = answers_only
        self._encoder = encoder
        self.device: torch.device = next(model.parameters()).device

    @property
    def collate(self) -> "Callable[[Rows, Chosen], AnyBatch]":
        return self._encoder.collate

    def logits(self, batch: AnyBatch, dropout_seed: Sequence[int] | None = None) -> "torch.Tensor":
        bits: DropoutBits | None = None
        if dropout_seed is not None:
            seed_everything(*dropout_seed)  # what the stock modules drop, and on a GPU everything
            bits = DropoutBits(dropout_seed) if self.device.type == "cpu" else DeviceBits()
        return self.seeded_logits(batch, bits)

    def seeded_logits(self, batch: AnyBatch, bits: DropoutBits | None) -> "torch.Tensor":
        """As `logits`, without seeding anything: what a captured step may hold, where every row is one window."""
        assert isinstance(batch, SegmentedBatch)
        if not self._answers_only:  # it goes through all modules, which for one row takes a while
            self.model.train(bits is not None)
        return of_rows(self._encoder.logits(batch, bits), batch)


def has_packed_form(config: Any, device: "torch.device") -> bool:
    """Whether an encoder of this configuration can be computed packed on this device."""
    return has_layers(config, device) or config.model_type in INTERFACE_FAMILIES


def groups_by_length(config: Any, setting: bool | None) -> bool:
    """`train.group_by_length`; unset: whether an encoder of this configuration has no packed form, not even on a CPU.

    Engine, precision and device have no say: packed and padded have the same batches, and so has a run that is resumed on
    another machine.
    """
    import torch

    return setting if setting is not None else not has_packed_form(config, torch.device("cpu"))


def engine_name(config: Any, setting: str, precision: Precision, device: "torch.device") -> str:
    """`train.engine` -> 'packed' or 'padded' for an encoder of this configuration.

    Raises:
        SettingsError: 'packed' where there is no packed form: of this encoder on this device, or in fp16.
    """
    has_form = has_packed_form(config, device)
    packs = has_form and precision.name != "fp16"
    if setting == "packed" and not packs:
        what = "fp16" if has_form else f"the encoder family '{config.model_type}'"
        raise SettingsError(
            f"train.engine is 'packed', but {what} has no packed form on {device.type}. Use train.engine=auto, which then "
            "takes the padded path with the same results."
        )
    if setting == "auto":  # on a GPU the packed path runs too, but its speed there is not measured yet
        return "packed" if packs and device.type == "cpu" else "padded"
    return setting


def engine_to_try(config: Any, setting: str, precision: Precision, device: "torch.device") -> str | None:
    """How to ask for the packed engine, where `auto` leaves it out only because it is not measured on GPUs yet; else None.

    Not in fp32: without a kernel for all rows at once it launches many small ones, which a GPU has little use for.
    """
    if setting != "auto" or device.type == "cpu" or precision.name != "bf16" or not has_packed_form(config, device):
        return None
    return (
        "On a GPU train.engine=auto takes the padded engine, for the packed one, with the same results, is not measured there "
        "yet. To try it: --set train.engine=packed, and --set train.cuda_graphs=true to capture its steps."
    )


def make_engine(
    model: "PeftModel | PreTrainedModel",
    setting: str,
    precision: Precision,
    trains: bool = False,
    release: bool = False,
    kernel: Kernel | None = None,
) -> Engine:
    """The engine of a classifier, on the device where the model is.

    Args:
        model: the classifier; stock, where it was merged.
        setting: 'auto', 'packed' or 'padded'; see `engine_name`.
        precision: what to multiply in.
        trains: whether gradients will be asked for; a packed engine then keeps its weights in both directions.
        release: let a packed engine give back the memory of the stock weights it copied. The stock forward then no longer
            works (it answers NaN); saving and counting do.
        kernel: of a packed engine's attention; None: the device's own.
    """
    if engine_name(model.config, setting, precision, next(model.parameters()).device) == "padded":
        return PaddedEngine(model, precision)
    if model.config.model_type in INTERFACE_FAMILIES:
        return PackedEngine(model, InterfaceEncoder(model, precision, kernel))
    encoder = PackedEncoder(model, precision.dtype, trains, kernel)
    if release:
        encoder.release_stock_weights()
    return PackedEngine(model, encoder)


def require_byte_layers(model: "PreTrainedModel") -> None:
    """Refuse an encoder that `make_byte_engine` has no form of.

    Raises:
        BackboneError: its layers are not packed ones.
    """
    if not has_layers(model.config, model.device):
        raise BackboneError(
            f"The encoder family '{model.config.model_type}' has no packed layers to multiply in eight bits. "
            "Export to onnx-int8 in its place (--to onnx-int8)."
        )


def make_byte_engine(model: "PreTrainedModel", precision: Precision, fused: bool | None = None) -> Engine:
    """A packed engine that multiplies by its layers in eight bits; it has no gradients.

    Args:
        model: a stock classifier on the CPU, LoRA merged; what the engine copied of it is given back.
        precision: of everything between the products in the plain form; in the fused one of long rows' attention, where it is
            bf16, and all else is fp32.
        fused: whether compiled kernels do what stands between two products, for which Numba must be installed; None: where it
            is and the chip multiplies bytes.

    Raises:
        BackboneError: an encoder whose layers have no packed form.
    """
    require_byte_layers(model)
    if fused if fused is not None else can_fuse() and multiplies_bytes(model.device):
        encoder: PackedEncoder = ByteEncoder(model, precision.name == "bf16")
    else:
        encoder = PackedEncoder(model, precision.dtype, trains=False, projection=ByteProjection)
    encoder.release_stock_weights()
    engine = PackedEngine(model.eval(), encoder, answers_only=True)
    engine.name = "packed-int8"
    return engine


def of_rows(logits: "torch.Tensor", batch: AnyBatch) -> "torch.Tensor":
    """(W, C) logits of windows -> (B, C) of rows: the mean of each row's windows.

    Mean pooling of a text's parts is among the hierarchical methods of Sun et al. 2019 ("How to Fine-Tune BERT for Text
    Classification", arXiv:1905.05583). Theirs is of features, before the classifier's last layer; that layer is linear, so
    this is the same, and the stock head stays as it is. Unlike a maximum, the mean does not grow with the number of windows,
    and every window learns.
    """
    import torch

    if batch.owners is None:
        return logits
    # a product, not index_add: on a GPU that sums in no fixed order, and counting windows there waits for the device
    owned = batch.owners == torch.arange(len(batch), device=logits.device)[:, None]  # (B, W)
    return (owned / owned.sum(dim=1, keepdim=True)) @ logits
