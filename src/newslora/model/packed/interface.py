"""Packed tokens through the stock modules: any encoder that asks transformers' attention interface for its attention.

The stock model sees one sequence of T tokens, each with its position in its own row; the attention function it is given keeps
every row to itself; what the head pools comes out of the encoder's end, a row each. Where that is the first token, the last
layer goes on with first tokens alone once its attention is done.
Encoders with rotary positions take this way: those, and ModernBERT's local attention, are the stock modules' own. What is
computed in which type is autocast's to say; but frozen weights, which it would cast anew at each use, are kept in the compute
type beside the stock ones.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from newslora.model.classifier import stock_model
from newslora.model.packed.dropout import DropoutBits
from newslora.model.packed.segments import SegmentedBatch, Segments, collate_for
from newslora.model.packed.standing import StandIn
from newslora.model.packed.varlen import Kernel

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from newslora.runtime import Precision

ATTENTION = "newslora_packed"  # our function's name in transformers' registry

Forward = Callable[..., "torch.Tensor"]


class InterfaceEncoder(StandIn):
    """A stock classifier that is handed packed rows."""

    def __init__(
        self, model: "PeftModel | PreTrainedModel", precision: "Precision", kernel: Kernel | None = None
    ) -> None:
        from transformers import AttentionInterface

        super().__init__()
        self.model, self.precision = model, precision
        base = stock_model(model)
        self.base, self.end = base, INTERFACE_FAMILIES[model.config.model_type](base, lambda: self._brought)
        AttentionInterface.register(ATTENTION, attend_in_rows)
        config, device = model.config, next(model.parameters()).device
        self._frozen = cast_linears(base, precision.dtype)
        head_size = config.hidden_size // config.num_attention_heads
        self.collate = collate_for(device, precision.dtype, head_size, kernel)

    def logits(self, batch: SegmentedBatch, bits: DropoutBits | None) -> "torch.Tensor":
        """As `PackedEncoder.logits`. The stock modules draw their own dropout; `bits` are not used."""
        packed = batch.packed
        # the bias is added to products of the compute type
        segments = batch.segments.ready(self.model.config.num_attention_heads, self.precision.dtype)
        with self._standing_in(segments), self.precision.autocast(packed.input_ids.device):
            logits: torch.Tensor = self.model(
                input_ids=packed.input_ids[None], position_ids=packed.positions[None], packed_segments=segments
            ).logits
        return logits.float().index_select(0, packed.order)

    def _put(self) -> None:
        self._stock_attention = self.base.config._attn_implementation
        self.base.config._attn_implementation = ATTENTION
        for module, forward in self.end.forwards():
            module.forward = forward
        for linear, stock in self._frozen:
            self._swap(linear, stock)

    def _take_back(self) -> None:
        self.base.config._attn_implementation = self._stock_attention
        for module, _ in self.end.forwards():
            del module.forward
        for linear, stock in self._frozen:
            self._swap(linear, stock)

    @staticmethod
    def _swap(linear: "torch.nn.Linear", other: "dict[str, torch.nn.Parameter]") -> None:
        """A linear layer's parameters against others, which are then those it had."""
        had = {name: linear._parameters[name] for name in other}
        linear._parameters.update(other)
        other.update(had)  # type: ignore[arg-type]


class FirstTokens:
    """The end of a post-norm encoder whose head reads each row's first token (NomicBERT, GTE, Jina v3)."""

    def __init__(self, base: Any, segments: Callable[[], Segments]) -> None:
        """Find the last layer.

        Args:
            base: the stock classifier.
            segments: of the calling thread.
        """
        self.segments = segments
        self.layer = getattr(base, base.base_model_prefix).layers[-1]
        self.product = self.layer.self_attn.o_proj

    def forwards(self) -> list[tuple[Any, Forward]]:
        """Stock modules, and what they answer with while rows are packed."""
        return [(self.layer, self._last), (self.product, self._attended)]

    def _last(self, hidden: "torch.Tensor", **stock: Any) -> "torch.Tensor":
        """(1, T, H) -> (R, 1, H): in place of the last layer's forward, its first tokens alone."""
        layer = self.layer
        attended, _ = layer.self_attn(hidden, **stock)
        firsts = hidden.index_select(1, self.segments().firsts)
        middle = layer.post_attention_layernorm(firsts + layer.post_attention_dropout(attended))
        last: torch.Tensor = layer.post_mlp_layernorm(middle + layer.post_mlp_dropout(layer.mlp(middle)))
        return last[0][:, None]

    def _attended(self, heads: "torch.Tensor") -> "torch.Tensor":
        """(1, T, H) -> (1, R, H): in place of the forward of the last attention's own output product."""
        found: torch.Tensor = type(self.product).forward(self.product, heads.index_select(1, self.segments().firsts))
        return found


class ModernBertEnd(FirstTokens):
    """ModernBERT's: norms come first, one follows the last layer, and the head may read the mean of a row."""

    def __init__(self, base: Any, segments: Callable[[], Segments]) -> None:
        self.segments = segments
        self.layer, self.norm = base.model.layers[-1], base.model.final_norm
        self.product = self.layer.attn.Wo
        self.first_token_only = base.config.classifier_pooling == "cls"

    def forwards(self) -> list[tuple[Any, Forward]]:
        return [(self.norm, self._pooled), *(super().forwards() if self.first_token_only else ())]

    def _last(self, hidden: "torch.Tensor", **stock: Any) -> "torch.Tensor":
        """(1, T, H) -> (1, R, H)."""
        layer = self.layer
        attended, _ = layer.attn(layer.attn_norm(hidden), **stock)
        firsts = hidden.index_select(1, self.segments().firsts) + attended
        found: torch.Tensor = firsts + layer.mlp(layer.mlp_norm(firsts))
        return found

    def _pooled(self, hidden: "torch.Tensor") -> "torch.Tensor":
        """(1, R or T, H) -> (R, 1, H): the first token or the mean of each row, whichever the head would take."""
        segments = self.segments()
        normed: torch.Tensor = type(self.norm).forward(self.norm, hidden)[0]
        if self.first_token_only:
            return normed[:, None]
        real = normed[: len(normed) - segments.filler].float()
        owners, sizes = segments.owners(len(normed))
        sums = real.new_zeros(len(sizes), real.shape[1]).index_add(0, owners, real)
        return (sums / sizes[:, None]).to(normed.dtype)[:, None]


# model_type -> the end of its encoder
INTERFACE_FAMILIES: dict[str, type[FirstTokens]] = {
    "modernbert": ModernBertEnd,
    "nomic_bert": FirstTokens,
    "gte": FirstTokens,
    "jina_embeddings_v3": FirstTokens,
}


def cast_linears(
    module: "torch.nn.Module", dtype: "torch.dtype"
) -> "list[tuple[torch.nn.Linear, dict[str, torch.nn.Parameter]]]":
    """Linear layers in which nothing trains, each with its parameters in another type, by name; none where they have it."""
    from torch.nn import Linear, Parameter

    found = []
    for linear in (one for one in module.modules() if isinstance(one, Linear)):
        own = dict(linear.named_parameters(recurse=False))
        if not any(one.requires_grad or one.dtype == dtype for one in own.values()):
            cast = {name: Parameter(one.detach().to(dtype), requires_grad=False) for name, one in own.items()}
            found.append((linear, cast))
    return found


def attend_in_rows(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    packed_segments: Segments,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> "tuple[torch.Tensor, None]":
    """transformers' attention interface on packed rows.

    Args:
        module: the stock attention module.
        query, key, value: (1, h, T, d).
        attention_mask: not used; rows are kept apart by the segments.
        packed_segments: where the rows are.
        scaling: of the scores.
        dropout: rate of the probabilities' dropout.
        sliding_window: tokens this far apart or further do not see each other; None: all do.

    Returns:
        (1, T, h, d), and no weights.
    """
    return packed_segments.attend_heads(query, key, value, scaling, dropout, sliding_window), None
