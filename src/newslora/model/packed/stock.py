"""Where each family's stock modules are: the only file of the packed path that knows a family's names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class StockLayer:
    """The stock modules of one layer, whatever their family calls them."""

    query: Any
    key: Any
    value: Any
    out: Any
    norm1: Any
    up: Any
    down: Any
    norm2: Any
    heads: int
    activation: str  # transformers' name
    attention_rate: float  # dropout of the attention probabilities
    out_rate: float  # dropout after `out`
    down_rate: float  # dropout after `down`

    def linears(self) -> tuple[Any, ...]:
        """The modules whose weights a packed layer holds copies of."""
        return self.query, self.key, self.value, self.out, self.up, self.down


def _bert_layers(encoder: Any) -> list[StockLayer]:
    return [
        StockLayer(
            query=layer.attention.self.query, key=layer.attention.self.key, value=layer.attention.self.value,
            out=layer.attention.output.dense, norm1=layer.attention.output.LayerNorm,
            up=layer.intermediate.dense, down=layer.output.dense, norm2=layer.output.LayerNorm,
            heads=layer.attention.self.num_attention_heads, activation=encoder.config.hidden_act,
            attention_rate=layer.attention.self.dropout.p, out_rate=layer.attention.output.dropout.p,
            down_rate=layer.output.dropout.p,
        )
        for layer in encoder.layer
    ]  # fmt: skip


def _distilbert_layers(encoder: Any) -> list[StockLayer]:
    return [
        StockLayer(
            query=layer.attention.q_lin, key=layer.attention.k_lin, value=layer.attention.v_lin,
            out=layer.attention.out_lin, norm1=layer.sa_layer_norm, up=layer.ffn.lin1, down=layer.ffn.lin2,
            norm2=layer.output_layer_norm, heads=layer.attention.n_heads, activation=layer.attention.config.activation,
            attention_rate=layer.attention.dropout.p, out_rate=0.0, down_rate=layer.ffn.dropout.p,
        )
        for layer in encoder.layer
    ]  # fmt: skip


def _albert_layers(encoder: Any) -> list[StockLayer]:
    """One layer's weights at every depth."""
    config = encoder.config
    found = []
    for depth in range(config.num_hidden_layers):
        # the stock encoder's own expression, which rounds as floating-point numbers do
        group = int(depth / (config.num_hidden_layers / config.num_hidden_groups))
        for layer in encoder.albert_layer_groups[group].albert_layers:
            attention = layer.attention
            found.append(
                StockLayer(
                    query=attention.query, key=attention.key, value=attention.value, out=attention.dense,
                    norm1=attention.LayerNorm, up=layer.ffn, down=layer.ffn_output, norm2=layer.full_layer_layer_norm,
                    heads=attention.num_attention_heads, activation=config.hidden_act,
                    attention_rate=attention.attention_dropout.p, out_rate=attention.output_dropout.p, down_rate=0.0,
                )
            )  # fmt: skip
    return found


def _mpnet_layers(encoder: Any) -> list[StockLayer]:
    return [
        StockLayer(
            query=layer.attention.attn.q, key=layer.attention.attn.k, value=layer.attention.attn.v,
            out=layer.attention.attn.o, norm1=layer.attention.LayerNorm,
            up=layer.intermediate.dense, down=layer.output.dense, norm2=layer.output.LayerNorm,
            heads=layer.attention.attn.num_attention_heads, activation=encoder.config.hidden_act,
            attention_rate=layer.attention.attn.dropout.p, out_rate=layer.attention.dropout.p,
            down_rate=layer.output.dropout.p,
        )
        for layer in encoder.layer
    ]  # fmt: skip


def _mpnet_bias(encoder: Any, longest: int) -> "torch.Tensor":
    """Read off the stock encoder's own matrix, whose entries depend on the distance alone."""
    import torch

    table = encoder.relative_attention_bias.weight
    assert not table.requires_grad, "the packed backward has no gradient for it"
    (bias,) = encoder.compute_position_bias(table.new_empty(1, longest)).detach()  # (h, M, M)
    return torch.cat([bias[:, 1:, 0].flip(1), bias[:, 0]], dim=1)


# model_type -> (name of the encoder inside the stock model, its layers)
STOCK_ENCODERS: dict[str, tuple[str, Callable[[Any], list[StockLayer]]]] = {
    "bert": ("encoder", _bert_layers),
    "roberta": ("encoder", _bert_layers),
    "xlm-roberta": ("encoder", _bert_layers),
    "camembert": ("encoder", _bert_layers),
    "electra": ("encoder", _bert_layers),
    "distilbert": ("transformer", _distilbert_layers),
    "albert": ("encoder", _albert_layers),
    "mpnet": ("encoder", _mpnet_layers),
}

# model_type -> what its attention adds to the scores of every layer: (encoder, M) -> (h, 2 M - 1), by the distance from
# query to key, from 1 - M to M - 1. Variable-length kernels take no bias, so these families pack on a CPU only.
STOCK_BIASES: "dict[str, Callable[[Any, int], torch.Tensor]]" = {"mpnet": _mpnet_bias}
