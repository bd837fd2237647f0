"""A whole encoder on packed tokens, standing in for the stock one inside the stock classifier's own forward.

The stock classifier runs as ever: its embeddings, its encoder, its head. For the length of a call its encoder module
answers with this class: one sequence of T packed tokens goes in, the first tokens of its rows come out, which are what
every one of these heads reads. Several threads may call at once, but of one of these classes only, on one model.
"""

import functools
from typing import TYPE_CHECKING, Any

from newslora.data.packing import PackedBatch
from newslora.model.classifier import stock_model, trainable_parameters
from newslora.model.families import family_of
from newslora.model.packed.dropout import DropoutBits, keep_scale, masked
from newslora.model.packed.grouped import LENGTH_STEP
from newslora.model.packed.layer import Layer, activation
from newslora.model.packed.projection import Parts, Projection, cast_together, summed
from newslora.model.packed.segments import SegmentedBatch, Segments, collate_for
from newslora.model.packed.standing import StandIn
from newslora.model.packed.stock import STOCK_BIASES, STOCK_ENCODERS
from newslora.model.packed.varlen import Kernel

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def has_layers(config: Any, device: "torch.device") -> bool:
    """Whether this encoder's layers have a form here, on this device."""
    if config.model_type not in STOCK_ENCODERS or (config.model_type in STOCK_BIASES and device.type != "cpu"):
        return False
    if getattr(config, "is_decoder", False):  # its tokens see none that follow
        return False
    try:
        activation(getattr(config, "hidden_act", None) or config.activation)
    except KeyError:
        return False
    return True


class PackedEncoder(StandIn):
    """The layers of one classifier; its LoRA parameters stay the stock model's own."""

    def __init__(
        self,
        model: "PeftModel | PreTrainedModel",
        dtype: "torch.dtype",
        trains: bool,
        kernel: Kernel | None = None,
        projection: type[Projection] = Projection,
    ) -> None:
        """Copy the frozen weights of a classifier's layers into the compute type.

        Args:
            model: that `has_layers`, on the device to compute on.
            dtype: to compute in; LoRA and head stay fp32 masters.
            trains: whether gradients will be asked for.
            kernel: of attention; None: the device's own.
            projection: what multiplies by the frozen weights.
        """
        super().__init__()
        self.model, self.dtype = model, dtype
        base = stock_model(model)
        config = model.config
        name, layers_of = STOCK_ENCODERS[config.model_type]
        self.stock = getattr(base, base.base_model_prefix)
        self.stock_encoder = getattr(self.stock, name)
        self.first_position = family_of(config.model_type).first_position(config)
        self.by_distance: torch.Tensor | None = None
        if bias_of := STOCK_BIASES.get(config.model_type):
            longest = config.max_position_embeddings + LENGTH_STEP  # groups round up
            self.by_distance = bias_of(self.stock_encoder, longest).to(dtype)
        lora = [parameter for name, parameter in trainable_parameters(model) if "lora_" in name]
        self.parameters = lora
        places = {id(parameter): place for place, parameter in enumerate(lora)}
        stock_layers = layers_of(self.stock_encoder)
        self._taken = [module for stock in stock_layers for module in stock.linears()]
        shared: dict[int, Layer] = {}
        self.layers: list[Layer] = []
        for depth, stock in enumerate(stock_layers):
            last = depth == len(stock_layers) - 1
            key = id(stock.out)
            if last or key not in shared:
                shared[key] = Layer(stock, places, dtype, trains, last, projection)
            self.layers.append(shared[key])
        query = getattr(stock_layers[0].query, "base_layer", stock_layers[0].query)
        head_size = query.out_features // stock_layers[0].heads
        self.collate = collate_for(query.weight.device, dtype, head_size, kernel, trains)
        self._dropout = self.stock.embeddings.dropout

    def logits(self, batch: SegmentedBatch, bits: DropoutBits | None) -> "torch.Tensor":
        """(B, C) logits in the order the rows were asked for; differentiable in LoRA and head.

        Args:
            batch: from `collate`, on the model's device.
            bits: of dropout; None drops nothing (the model should then be in evaluation mode).
        """
        import torch

        packed = batch.packed
        segments = batch.segments.ready(self.layers[0].heads, self.dtype, self.by_distance)
        with self._standing_in((segments, bits)):
            arguments = {
                "input_ids": packed.input_ids[None],
                "position_ids": self._places(packed)[None],
                # nobody reads it: handed four dimensions, transformers makes no mask of its own, which while a step is
                # captured some versions would, of T x T
                "attention_mask": packed.input_ids[None, None, None],
            }
            if self.model.config.model_type not in ("distilbert", "mpnet"):  # which have no token types
                arguments["token_type_ids"] = torch.zeros_like(arguments["input_ids"])
            logits: torch.Tensor = self.model(**arguments).logits
        return logits.index_select(0, packed.order)

    def _places(self, packed: PackedBatch) -> "torch.Tensor":
        """(T,) place of each token among the position embeddings, as the stock embeddings find it.

        Where they count on from padding, they do so within a text too, which may spell the padding token out: it stays at
        padding's own place and is not counted.
        """
        import torch

        if not self.first_position:
            return packed.positions
        padding = self.first_position - 1
        skipped = packed.input_ids == padding
        seen = skipped.cumsum(0)
        starts = torch.arange(len(seen), device=seen.device) - packed.positions
        in_row = seen - (seen - skipped.long())[starts]
        return (packed.positions + self.first_position - in_row).masked_fill_(skipped, padding)

    def _put(self) -> None:
        self.stock_encoder.forward, self._dropout.forward = self._encode, self._drop

    def _take_back(self) -> None:
        del self.stock_encoder.forward, self._dropout.forward

    def _encode(self, hidden_states: "torch.Tensor", *_: Any, **__: Any) -> Any:
        """In place of the stock encoder's forward."""
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        segments, bits = self._brought
        before = getattr(self.stock_encoder, "embedding_hidden_mapping_in", None)  # ALBERT's own first step
        hidden = hidden_states[0] if before is None else before(hidden_states[0])
        hidden = hidden.to(self.dtype)
        if torch.is_grad_enabled() and self.parameters:
            first = _packed_function().apply(hidden, self, segments, bits, *self.parameters)
        else:
            first = self.run(hidden, segments, bits, keep=False)[0].float()
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=first[:, None])

    def _drop(self, x: "torch.Tensor") -> "torch.Tensor":
        """In place of the embeddings' dropout."""
        _, bits = self._brought
        mask = bits.keep_mask(x.shape, self._dropout.p, x) if bits else None
        return x if mask is None else masked(x, mask).mul_(keep_scale(self._dropout.p))

    def release_stock_weights(self) -> None:
        """Free the stock copies of what this class holds; they keep their shapes and read as NaN."""
        import torch

        for module in self._taken:
            parameter = getattr(module, "base_layer", module).weight
            if not parameter.requires_grad:
                parameter.data = torch.full((1, 1), torch.nan, device=parameter.device).expand(parameter.shape)

    def run(
        self, hidden: "torch.Tensor", segments: Segments, bits: DropoutBits | None, keep: bool
    ) -> "tuple[torch.Tensor, list[Any], list[torch.Tensor]]":
        """(T, H) embeddings -> (R, H) first tokens, what the backward needs, and LoRA in the compute type."""
        weights = cast_together([parameter.detach() for parameter in self.parameters], self.dtype)
        saved = []
        for layer in self.layers:
            hidden, held = layer.forward(hidden, segments, weights, bits, keep)
            saved.append(held)
        return hidden, saved, weights

    def run_back(
        self, d_first: "torch.Tensor", saved: list[Any], weights: "list[torch.Tensor]", segments: Segments
    ) -> "list[torch.Tensor | None]":
        """(R, H) gradient of the first tokens -> gradients of the LoRA parameters, fp32. Frees `saved` on the way."""
        gradients: Parts = [[] for _ in self.parameters]
        gradient = d_first
        for depth in reversed(range(len(self.layers))):
            below = self.layers[depth].backward(gradient, saved.pop(), segments, weights, gradients, needs_dx=depth > 0)
            if below is not None:
                gradient = below
        return summed(gradients)


@functools.cache
def _packed_function() -> Any:
    """The autograd function, made at first use so that importing this module does not import torch."""
    import torch

    class Packed(torch.autograd.Function):
        """The embeddings are frozen, so gradients are wanted for LoRA alone."""

        @staticmethod
        def forward(
            ctx: Any, hidden: "torch.Tensor", encoder: PackedEncoder, segments: Segments,
            bits: DropoutBits | None, *parameters: "torch.Tensor",
        ) -> "torch.Tensor":  # fmt: skip
            first, saved, weights = encoder.run(hidden, segments, bits, keep=True)
            ctx.held = encoder, saved, weights, segments
            return first.float()

        @staticmethod
        def backward(ctx: Any, d_first: "torch.Tensor") -> Any:
            encoder, saved, weights, segments = ctx.held
            del ctx.held
            gradients = encoder.run_back(d_first.to(encoder.dtype), saved, weights, segments)
            return (None, None, None, None, *gradients)

    return Packed
