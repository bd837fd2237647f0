"""Rows -> batches: which rows in which order, and how they become tensors.

The order is a pure function of (seed, epoch), so a resumed run needs no sampler state. Batches are named one at a time,
so an epoch of ten million rows takes no more memory than one of a million.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from newslora.data.order import Order, shuffled
from newslora.data.tokens import TokenTable

if TYPE_CHECKING:
    import torch

_B = TypeVar("_B")

Chosen = Sequence[int] | NDArray[np.int64]  # row numbers
STRETCH = 50  # batches sorted together when grouping by length: enough to pad little, few enough to stay random


@dataclass(frozen=True, slots=True)
class Tensors:
    """Fields some of which are tensors, moved together."""

    def to(self, device: "torch.device") -> Self:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: "Callable[[torch.Tensor], torch.Tensor]") -> Self:
        import torch

        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(one) for name, one in held.items() if isinstance(one, torch.Tensor)})


@dataclass(frozen=True, slots=True)
class Batch(Tensors):
    """B rows in W windows, padded to the longest of them."""

    input_ids: "torch.Tensor"  # (W, L) int64
    attention_mask: "torch.Tensor"  # (W, L) int64, 1 on tokens
    labels: "torch.Tensor"  # (B,) int64; -1 where unknown; or (B, C) float32 where rows carry several
    owners: "torch.Tensor | None" = None  # (W,) int64: the row of each window; None: every row is one window

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Rows:
    """Tokens and labels of one split; what a loader worker needs, and nothing more."""

    tokens: TokenTable
    labels: NDArray[np.int64]  # (R,) label ids; where rows carry several labels, places in `combinations`
    pad_id: int
    combinations: NDArray[np.bool_] | None = None  # (K, C) which labels a combination holds

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def unlabelled(cls, tokens: TokenTable, pad_id: int) -> "Rows":
        """Rows of which no label is known."""
        return cls(tokens, np.full(len(tokens), -1, dtype=np.int64), pad_id)

    @property
    def lengths(self) -> "Lengths":
        """(R,) tokens of each row, looked up where they are asked for."""
        return _LengthsOf(self.tokens)

    def batch(self, rows: Chosen) -> Batch:
        """Row numbers -> Batch."""
        import torch

        places = np.asarray(rows, dtype=np.int64)
        windows, owners = self.tokens.windows_of(places)
        tokens = self.tokens.windows
        lengths = tokens.lengths_of(windows)
        ids = np.full((len(windows), int(lengths.max())), self.pad_id, dtype=np.int64)
        for place, window in enumerate(windows):
            ids[place, : lengths[place]] = tokens[window]
        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        return Batch(
            torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(self.targets(places)),
            None if owners is None else torch.from_numpy(owners),
        )  # fmt: skip

    def targets(self, places: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.float32]:
        """What these rows are to be answered: (B,) label ids, or (B, C) 0 and 1 where rows carry several labels."""
        labels = self.labels[places]
        return labels if self.combinations is None else self.combinations[labels].astype(np.float32)


class Lengths(Protocol):
    """Tokens of each row: an array, or something that answers like one."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class _LengthsOf:
    tokens: TokenTable

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.tokens.lengths_of(rows)


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The batches of one epoch: item i holds the row numbers of batch i."""

    lengths: Lengths
    batch_size: int
    order: Order  # of the rows
    batch_order: Order | None  # of the batches, where rows of like length share one

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.batch_order is None:
            return self._ordered(index * self.batch_size, self.batch_size)
        batch = int(self.batch_order[np.array([index])][0])
        rows = self._ordered(batch // STRETCH * STRETCH * self.batch_size, STRETCH * self.batch_size)
        start = batch % STRETCH * self.batch_size
        return rows[np.argsort(-self.lengths[rows], kind="stable")][start : start + self.batch_size]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self[index] for index in range(len(self)))

    def _ordered(self, start: int, count: int) -> NDArray[np.int64]:
        return self.order[np.arange(start, min(start + count, len(self.order)))]


def epoch_batches(lengths: Lengths, batch_size: int, seed: int, epoch: int, by_length: bool = False) -> EpochPlan:
    """Every row exactly once, shuffled; one batch may be smaller.

    Args:
        lengths: (R,) tokens of each row.
        batch_size: rows a batch.
        seed, epoch: decide the order.
        by_length: form batches of like lengths, which pads less: shuffled rows are sorted within stretches of
            `STRETCH` batches, and the batches are shuffled again. The stock Trainer's `group_by_length` does the like.
    """
    generator = np.random.default_rng((seed, epoch))
    order = shuffled(len(lengths), generator)
    batch_order = shuffled(-(-len(lengths) // batch_size), generator) if by_length else None
    return EpochPlan(lengths, batch_size, order, batch_order)


def sorted_batches(
    lengths: NDArray[np.int64], batch_size: int | None = None, batch_tokens: int | None = None
) -> list[NDArray[np.int64]]:
    """Every row exactly once, longest first, so that a batch holds little padding and memory peaks at once.

    Args:
        lengths: (R,) tokens of each row.
        batch_size: most rows a batch; None: any number.
        batch_tokens: most tokens a batch, counting every row as long as its longest; None: any number. A row longer than
            that is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = len(order) if batch_size is None else batch_size
        if batch_tokens is not None:
            rows = min(rows, max(1, batch_tokens // max(1, int(lengths[order[start]]))))
        batches.append(order[start : start + rows])
        start += rows
    return batches


class Plan(Protocol):
    """Which rows make each batch: a list of row numbers a batch, or something that answers like one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Chosen: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan as a map-style data set: item i is batch i. At module level, so that workers can be given it."""

    rows: Rows
    plan: Plan
    collate: Callable[[Rows, Chosen], Any]

    def __getitem__(self, index: int) -> Any:
        return self.collate(self.rows, self.plan[index])

    def __len__(self) -> int:
        return len(self.plan)


def load_batches(
    rows: Rows, plan: Plan, collate: Callable[[Rows, Chosen], _B], workers: int, pin: bool, first: int = 0
) -> Iterator[_B]:
    """The plan's batches in its order, prepared ahead by `workers` processes (0: here and now), at most one a core.

    For a GPU they are prepared here and now: making a batch takes a fraction of the time that handing it over from another
    process takes, which may be longer than a step. So they are where processes cannot hand them over.

    Args:
        rows: of one split.
        plan: row numbers of each batch.
        collate: makes a batch of row numbers; at module level, so that workers can be given it.
        workers: processes, where batches are not pinned.
        pin: for a GPU: into page-locked memory, from which it copies without waiting.
        first: batches of the plan that are done already.
    """
    from torch.utils.data import DataLoader

    workers = 0 if pin or (workers and not _hands_over()) else min(workers, _cores())
    # a map-style data set needs no base class; torch's annotation says otherwise
    settings: dict[str, Any] = {"dataset": Planned(rows, plan, collate), "batch_size": None, "num_workers": workers}
    return iter(DataLoader(pin_memory=pin, sampler=range(first, len(plan)), **settings))


def _hands_over() -> bool:
    """Whether processes can hand batches over: that takes /dev/shm, which a container may lack or have full."""
    import multiprocessing

    try:
        multiprocessing.Lock()
    except OSError:
        return False
    return True


def _cores() -> int:
    """Cores this process may use, where the system tells; a container or `taskset` may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
