"""Packed tokens through the stock modules: any encoder that asks transformers' attention interface for its attention.

Nothing is rewritten here. The stock model sees one sequence of T tokens, each with its position in its own row; the
attention function it is given keeps every row to itself; its last norm answers with what the head pools, a row each.
ModernBERT takes this way: rotary positions and local attention are the stock modules' own.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from newslora.model.packed.attention import Group, Segments, find_segments
from newslora.model.packed.dropout import DropoutBits

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from newslora.data.packing import PackedBatch
    from newslora.runtime import Precision

ATTENTION = "newslora_packed"  # our function's name in transformers' registry
INTERFACE_FAMILIES = frozenset({"modernbert"})


class InterfaceEncoder:
    """A stock classifier that is handed packed rows."""

    def __init__(self, model: "PeftModel", precision: "Precision") -> None:
        from transformers import AttentionInterface

        self.model, self.precision = model, precision
        base: Any = model.get_base_model()
        self.base, self.last_norm = base, base.model.final_norm
        AttentionInterface.register(ATTENTION, attend_in_rows)

    def logits(self, batch: "PackedBatch", bits: DropoutBits | None) -> "torch.Tensor":
        """As `PackedEncoder.logits`. The stock modules draw their own dropout; `bits` are not used."""
        config = self.model.config
        device = batch.input_ids.device
        # the bias is added to products of the compute type
        segments = find_segments(
            batch.lengths, len(batch.input_ids), config.num_attention_heads, self.precision.dtype, device
        )
        with self._handed(segments), self.precision.autocast(device):
            logits: torch.Tensor = self.model(
                input_ids=batch.input_ids[None], position_ids=batch.positions[None], packed_segments=segments
            ).logits
        return logits.float().index_select(0, batch.order)

    @contextlib.contextmanager
    def _handed(self, segments: Segments) -> Iterator[None]:
        config, norm = self.base.config, self.last_norm
        stock_attention, stock_forward = config._attn_implementation, norm.forward

        def pooled(hidden: "torch.Tensor") -> "torch.Tensor":
            """(1, T, H) -> (B, 1, H): the first token or the mean of each row, whichever the head would take."""
            normed: torch.Tensor = stock_forward(hidden)[0]
            if config.classifier_pooling == "cls":
                return normed.index_select(0, segments.firsts)[:, None]
            real = normed[: len(normed) - segments.filler].float()
            sums = real.new_zeros(len(segments.firsts), real.shape[1]).index_add(0, segments.row_of, real)
            return (sums / segments.row_of.bincount()[:, None]).to(normed.dtype)[:, None]

        config._attn_implementation, norm.forward = ATTENTION, pooled
        try:
            yield
        finally:
            config._attn_implementation = stock_attention
            del norm.forward


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
        sliding_window: tokens further apart than this, itself not included, do not see each other; None: all do.

    Returns:
        (1, T, h, d), and no weights.
    """
    import torch
    from torch.nn.functional import dropout as drop

    heads, size = query.shape[1], query.shape[3]
    padded = []
    for group in packed_segments.groups:
        q, k, v = (
            part[0].index_select(1, group.tokens).view(heads, group.rows, group.length, size).transpose(0, 1)
            for part in (query, key, value)
        )
        scores = torch.matmul(q, k.transpose(-1, -2)) * scaling
        if (bias := _closed(group, heads, sliding_window)) is not None:
            scores = scores + bias.to(scores.dtype)
        weights = drop(torch.softmax(scores, dim=-1), dropout) if dropout else torch.softmax(scores, dim=-1)
        padded.append(torch.matmul(weights, v).transpose(1, 2).reshape(-1, heads, size))
    return packed_segments.packed(torch.cat(padded))[None], None


def _closed(group: Group, heads: int, window: int | None) -> "torch.Tensor | None":
    """(n, h or 1, L or 1, L) minus infinity where a token does not look."""
    import torch

    bias = None if group.bias is None else group.bias.view(group.rows, heads, 1, group.length)
    if window is None or group.length <= window:
        return bias
    place = torch.arange(group.length, device=group.tokens.device)
    far = (place[:, None] - place[None, :]).abs() >= window
    closed = torch.zeros(far.shape, device=far.device).masked_fill_(far, float("-inf"))
    if bias is None:
        return closed[None, None]
    # a padded token's window may hold nothing but padding: let it look at itself, for its answer is thrown away
    both = torch.minimum(bias.float(), closed)
    return both.masked_fill((both == float("-inf")).all(-1, keepdim=True), 0.0)
