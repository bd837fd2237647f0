"""Rows -> one packed batch: the rows laid end to end, without padding.

    padded   (B, L)   a a a a . .        packed   (T,)   c c c c c c a a a a b b
                      b b . . . .                 positions   0 1 2 3 4 5 0 1 2 3 0 1
                      c c c c c c

AG News at batch 16 pads 53 tokens a row to 95; packed, the 42 are never computed. Rows lie longest first, so that
attention finds rows of like length side by side; `order` leads back to the order they were asked for in. Where rows are
longer than the encoder reads, all this holds of their windows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from newslora.data.batches import Chosen, Rows, Tensors

if TYPE_CHECKING:
    import torch

# T is a multiple of this: each new T costs a CPU some tenths of a millisecond of code generation a matrix product
TOKENS_STEP = 32
FINE_STEP, FEW = 4, 256  # where up to so many tokens are only answered: of few, filler is a large share


@dataclass(frozen=True, slots=True)
class PackedBatch(Tensors):
    """B rows in W windows of T tokens in all."""

    input_ids: "torch.Tensor"  # (T,) int64; after the last row, filler that no row attends to
    positions: "torch.Tensor"  # (T,) int64, from 0 in every window
    lengths: tuple[int, ...]  # W, longest first
    order: "torch.Tensor"  # (W,) int64: window i of the rows as asked for lies at place order[i]
    labels: "torch.Tensor"  # as asked for, like those of Batch
    owners: "torch.Tensor | None" = None  # as asked for, like those of Batch

    def __len__(self) -> int:
        return len(self.labels)


def next_step(tokens: int) -> int:
    """T of a batch of this many tokens. In training it decides what dropout draws, so it is not to change."""
    return -(-tokens // TOKENS_STEP) * TOKENS_STEP


def next_fine_step(tokens: int) -> int:
    """T of a batch that nothing is learnt from."""
    return -(-tokens // FINE_STEP) * FINE_STEP if tokens <= FEW else next_step(tokens)


def pack(rows: Rows, chosen: Chosen, bucket: Callable[[int], int] = next_step) -> PackedBatch:
    """Row numbers -> PackedBatch. Every row whole, exactly once.

    Args:
        rows: of one split.
        chosen: row numbers.
        bucket: the rows' tokens -> T, no less.
    """
    import torch

    places = np.asarray(chosen, dtype=np.int64)
    windows, owners = rows.tokens.windows_of(places)
    tokens = rows.tokens.windows
    lengths = tokens.lengths_of(windows)
    longest_first = np.argsort(-lengths, kind="stable")
    lengths = lengths[longest_first]
    total = int(lengths.sum())
    ids = np.zeros(bucket(total), dtype=np.int64)
    np.concatenate([tokens[window] for window in windows[longest_first]], out=ids[:total], casting="same_kind")
    positions = np.zeros_like(ids)
    positions[:total] = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = np.empty(len(windows), dtype=np.int64)
    order[longest_first] = np.arange(len(windows))
    return PackedBatch(
        torch.from_numpy(ids), torch.from_numpy(positions), tuple(lengths.tolist()), torch.from_numpy(order),
        torch.from_numpy(rows.targets(places)), None if owners is None else torch.from_numpy(owners),
    )  # fmt: skip
