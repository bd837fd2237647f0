"""Many adapters on one packed encoder: every row of a batch has its own LoRA and its own head.

Tokens of neighbouring rows with the same adapter are a run. The frozen product is one for all tokens; then each run adds
its own scale * B A x, two thin products on its part of the same tensors: nothing is masked, copied or computed twice, so a
batch of many adapters costs little more than one of a single one (docs/results.md has the measurement). The stock classifier
runs as ever above it: each linear module of its head multiplies every row by its own adapter's weights.

Letters: W rows (windows) of a batch, T packed tokens, r rank, C labels.
"""

import contextlib
import functools
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newslora.errors import BackboneError
from newslora.model.families import family_of
from newslora.model.packed.dropout import DropoutBits
from newslora.model.packed.encoder import PackedEncoder
from newslora.model.packed.projection import Projection, Saved
from newslora.model.packed.segments import SegmentedBatch, Segments

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Update:
    """One adapter's update of one projection: those of its modules side by side over one A."""

    a: "torch.Tensor"  # (in, sum of r)
    parts: "tuple[tuple[slice, slice, torch.Tensor], ...]"  # columns of y, columns of A x, (r, out) scale * B


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """All that is an adapter's own, in the order the encoder multiplies in."""

    updates: dict[int, Update]  # by number of the projection; those it does not adapt are not there
    head: "dict[str, tuple[torch.Tensor, torch.Tensor | None]]"  # name of a linear module -> weight and bias
    labels: int  # C

    @property
    def bytes(self) -> int:
        tensors = [held for update in self.updates.values() for held in (update.a, *(part[2] for part in update.parts))]
        tensors += [tensor for pair in self.head.values() for tensor in pair if tensor is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring rows of one adapter."""

    adapter: AdapterWeights
    rows: slice
    tokens: slice


class Mix:
    """Which rows of a packed batch are whose; stands where a plain encoder is handed its LoRA parameters.

    Args:
        adapters: of each row, in packed order.
        lengths: tokens of each row, in packed order.
    """

    def __init__(self, adapters: Sequence[AdapterWeights], lengths: Sequence[int]) -> None:
        self.runs: list[Run] = []
        row = token = 0
        for place, (adapter, length) in enumerate(zip(adapters, lengths, strict=True)):
            end = token + length
            if place and adapter is self.runs[-1].adapter:
                self.runs[-1] = Run(adapter, slice(row, place + 1), slice(self.runs[-1].tokens.start, end))
            else:
                row = place
                self.runs.append(Run(adapter, slice(place, place + 1), slice(token, end)))
            token = end
        self.by_adapter: dict[int, tuple[AdapterWeights, list[int]]] = {}
        for place, adapter in enumerate(adapters):
            self.by_adapter.setdefault(id(adapter), (adapter, []))[1].append(place)


class MixedProjection(Projection):
    """y = x W^T + b, and every run's own LoRA."""

    def __init__(self, linears: Sequence[Any], places: "dict[int, int]", dtype: "torch.dtype", trains: bool) -> None:
        super().__init__(linears, places, dtype, trains)
        self.modules = [(id(linear), linear.out_features) for linear in linears]
        self.number = -1  # among the encoder's
        self.of_rows = False  # whether x holds first tokens only

    def forward(self, x: "torch.Tensor", weights: Any, bits: DropoutBits | None) -> "tuple[torch.Tensor, Saved]":
        y = self._multiply(x, self.bias)
        assert isinstance(weights, Mix)
        for run in weights.runs:
            update = run.adapter.updates.get(self.number)
            if update is None:
                continue
            part = run.rows if self.of_rows else run.tokens
            low, own = x[part] @ update.a, y[part]
            for columns, of_low, b in update.parts:
                own[:, columns].addmm_(low[:, of_low], b)
        return y, Saved([], [])


class MixedEncoder(PackedEncoder):
    """One frozen encoder in memory, and a head's shape. Threads may call at the same time.

    Args:
        model: a stock classifier without LoRA that `has_layers`, in evaluation mode, for this class alone: its encoder's
            weights are given back, its head answers by adapter.
        dtype: to compute in.

    Raises:
        BackboneError: a head with other parameters than those of linear modules.
    """

    def __init__(self, model: "PreTrainedModel", dtype: "torch.dtype") -> None:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        super().__init__(model, dtype, trains=False, projection=MixedProjection)
        self.names = {id(module): name for name, module in model.named_modules()}
        self.projections: list[MixedProjection] = []
        for layer in {id(layer): layer for layer in self.layers}.values():
            of_rows = [] if not layer.first_token_only else [layer.qkv[0], layer.out, layer.up, layer.down]
            for projection in (*layer.qkv, layer.out, layer.up, layer.down):
                assert isinstance(projection, MixedProjection)
                projection.number, projection.of_rows = len(self.projections), projection in of_rows
                self.projections.append(projection)
        self.head = head_modules(model)
        self.stock_head = {name: parameter.detach().clone() for name, parameter in head_parameters(model)}
        for name, linear in self.head.items():
            linear.forward = functools.partial(self._head_product, name)
        self.release_stock_weights()
        self.device: torch.device = next(model.parameters()).device

    def weights(
        self, pairs: "dict[str, tuple[torch.Tensor, torch.Tensor]]", head: "dict[str, torch.Tensor]", scale: float
    ) -> AdapterWeights:
        """An adapter's tensors, put where they multiply.

        Args:
            pairs: name of a stock module -> A (r, in) and B (out, r).
            head: name of a parameter of the head -> its value.
            scale: of B A x.
        """
        import torch

        found: list[torch.Tensor] = []  # contiguous, in the order they are taken up again below
        shapes: dict[int, list[tuple[slice, slice]]] = {}
        for projection in self.projections:
            low_rank, columns, lows = [], 0, 0
            for module, width in projection.modules:
                pair = pairs.get(self.names[module])
                if pair is not None:
                    low_rank.append((pair, slice(columns, columns + width), slice(lows, lows + len(pair[0]))))
                    lows += len(pair[0])
                columns += width
            if low_rank:
                found.append(torch.cat([a.to(self.device, self.dtype) for (a, _), _, _ in low_rank]))
                found += [(b.to(self.device) * scale).to(self.dtype).t().contiguous() for (_, b), _, _ in low_rank]
                shapes[projection.number] = [(outs, ins) for _, outs, ins in low_rank]
        on_device = {name: tensor.float().to(self.device).contiguous() for name, tensor in head.items()}
        held = iter(in_one_piece([*found, *on_device.values()]))
        updates = {}
        for number, parts in shapes.items():
            a = next(held).t()
            updates[number] = Update(a, tuple((outs, ins, next(held)) for outs, ins in parts))
        values = dict(zip(on_device, held, strict=True))
        linears = {name: (values[f"{name}.weight"], values.get(f"{name}.bias")) for name in self.head}
        return AdapterWeights(updates, linears, len(linears[next(reversed(linears))][0]))

    def logits_of(self, batch: SegmentedBatch, adapters: Sequence[AdapterWeights]) -> "list[torch.Tensor]":
        """(C,) fp32 logits of each window, C as its adapter has labels.

        Args:
            batch: W windows, from `collate`, on the encoder's device.
            adapters: W, the adapter of each window in the order they were asked for.
        """
        import torch

        packed = batch.packed
        of_place: list[Any] = [None] * len(adapters)
        for adapter, place in zip(adapters, packed.order.tolist(), strict=True):
            of_place[place] = adapter
        with torch.inference_mode(), self._mixed(Mix(of_place, packed.lengths)):
            logits = self.logits(batch, None)
        return [row[: adapter.labels] for row, adapter in zip(logits, adapters, strict=True)]

    def run(
        self, hidden: "torch.Tensor", segments: Segments, bits: DropoutBits | None, keep: bool
    ) -> "tuple[torch.Tensor, list[Any], list[torch.Tensor]]":
        mix: Any = self._of_thread.mix
        for layer in self.layers:
            hidden, _ = layer.forward(hidden, segments, mix, None, False)
        return hidden, [], []

    @contextlib.contextmanager
    def _mixed(self, mix: Mix) -> Iterator[None]:
        self._of_thread.mix = mix
        try:
            yield
        finally:
            del self._of_thread.mix

    def _head_product(self, name: str, x: "torch.Tensor") -> "torch.Tensor":
        """(W, in) in packed order -> (W, widest out), each row by its own adapter; zeros where its own is narrower."""
        import torch
        from torch.nn.functional import linear

        groups = list(self._of_thread.mix.by_adapter.values())
        if len(groups) == 1:
            return linear(x, *groups[0][0].head[name])
        widest = max(len(adapter.head[name][0]) for adapter, _ in groups)
        out = x.new_zeros(len(x), widest)
        for adapter, rows in groups:
            weight, bias = adapter.head[name]
            places = torch.tensor(rows, device=x.device)
            out[places, : len(weight)] = linear(x[places], weight, bias)
        return out


def in_one_piece(tensors: "list[torch.Tensor]") -> "list[torch.Tensor]":
    """The same contiguous tensors, those of a type side by side in one block of memory.

    A thousand adapters of some fifty small tensors each, made among others that go again, would hold half as much again as
    their numbers: the allocator keeps the gaps. So on a CPU a block is mapped by itself, outside its heap.
    """
    import torch

    blocks, starts = {}, {}
    for kind in {tensor.dtype for tensor in tensors}:
        block = torch.cat([one.reshape(-1) for one in tensors if one.dtype == kind])
        if block.device.type == "cpu":
            pages = mmap.mmap(-1, block.nbytes, access=mmap.ACCESS_COPY)  # private to this process
            block = torch.frombuffer(pages, dtype=kind).copy_(block)
        blocks[kind], starts[kind] = block, 0
    placed = []
    for one in tensors:
        start = starts[one.dtype]
        starts[one.dtype] = start + one.numel()
        placed.append(blocks[one.dtype][start : start + one.numel()].view(one.shape))
    return placed


def head_modules(model: "PreTrainedModel") -> dict[str, Any]:
    """The linear modules of a stock classifier's head, by name, the one that gives logits last.

    Raises:
        BackboneError: the head holds other parameters too.
    """
    import torch

    order = family_of(model.config.model_type).head
    tops = [
        (order.index(last), name, module) for name, module in model.named_modules() if (last := _last(name)) in order
    ]
    found: dict[str, Any] = {}
    for _, top, module in sorted(tops, key=lambda item: item[0]):
        for below, one in module.named_modules():
            if isinstance(one, torch.nn.Linear):
                found[f"{top}.{below}".rstrip(".")] = one
            elif next(one.parameters(recurse=False), None) is not None:
                raise BackboneError(
                    f"The head of '{model.config.model_type}' holds parameters outside linear modules ({top}.{below}), which "
                    "cannot be mixed in a batch."
                )
    return found


def head_parameters(model: "PreTrainedModel") -> "Iterator[tuple[str, torch.Tensor]]":
    """The head's parameters by name."""
    for name, linear in head_modules(model).items():
        for key, parameter in linear.named_parameters(recurse=False):
            yield f"{name}.{key}", parameter


def _last(name: str) -> str:
    return name.rpartition(".")[2]
