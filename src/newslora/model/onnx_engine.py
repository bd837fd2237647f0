"""An ONNX export as an engine: padded rows -> logits through ONNX Runtime on the CPU. It has no gradients."""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from newslora.data.batches import Batch, Chosen, Rows
from newslora.errors import RunError, needing, one_line
from newslora.model.engine import AnyBatch, of_rows

if TYPE_CHECKING:
    import torch

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """What an engine calls its model: a session, and the configuration it was exported with."""

    session: Any
    config: Any


class OnnxEngine:
    """Rows through a session; int64 ids and mask (W, L) in, fp32 logits out."""

    concurrent = False  # its session has threads of its own

    def __init__(self, path: Path, config: Any, kind: str, alone: bool = False) -> None:
        """Open a model file.

        Args:
            path: of the .onnx file.
            config: the classifier's configuration.
            kind: 'onnx' or 'onnx-int8', this engine's name.
            alone: whether each row runs by itself. Dynamic int8 takes the range of a tensor over all its rows, padding
                included, so that other rows of a batch would change an answer (docs/decisions.md).

        Raises:
            MissingExtraError: ONNX Runtime is not installed.
            RunError: a file that is no such model, or that wants other files.
        """
        import torch

        self.name, self.alone = kind, alone
        self.model = OnnxModel(open_session(path), config)
        self.device = torch.device("cpu")

    @property
    def collate(self) -> "Callable[[Rows, Chosen], AnyBatch]":
        return Rows.batch

    def logits(self, batch: AnyBatch, dropout_seed: Sequence[int] | None = None) -> "torch.Tensor":
        import torch

        assert isinstance(batch, Batch)
        assert dropout_seed is None, "an ONNX export answers; it does not train"
        ids, mask = batch.input_ids.numpy(), batch.attention_mask.numpy()
        if self.alone:
            lengths = mask.sum(axis=1)
            rows = [self._run(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(lengths)]
            logits = np.concatenate(rows)
        else:
            logits = self._run(ids, mask)
        return of_rows(torch.from_numpy(logits), batch)

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        (logits,) = self.model.session.run([OUTPUT], dict(zip(INPUTS, (ids, mask), strict=True)))
        found: NDArray[np.float32] = logits
        return found


def open_session(path: Path) -> Any:
    """An ONNX Runtime session that uses as many threads as torch does and gives the same bytes each time.

    Raises:
        MissingExtraError, RunError: as `OnnxEngine` says.
    """
    with needing("Running an ONNX export", "export"):
        import onnxruntime
    import torch

    if wants_other_files(path):
        raise RunError(
            f"{path} keeps weights in other files, which newslora never opens: a name in there could be any path. Export the "
            "run again; newslora writes one file."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors, which come as exceptions too
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of every kind: the runtime has a class for each of its states
        raise RunError(f"ONNX Runtime cannot open {path}: {one_line(error)}") from error
    found = sorted(one.name for one in session.get_inputs()), [one.name for one in session.get_outputs()]
    if found != (sorted(INPUTS), [OUTPUT]):
        raise RunError(f"{path} is no classifier of newslora's: it takes {found[0]} and gives {found[1]}.")
    return session


def wants_other_files(path: Path) -> bool:
    """Whether a model names external data, anywhere in it.

    A tensor does so by an entry whose key is 'location', spelt out in the file; newslora's own files do not hold the word.
    Searching for it needs no parser, no memory, and misses no place a tensor can be in.
    """
    if not path.stat().st_size:
        return False  # no model either, as the runtime will say
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as held:
        return held.find(b"location") >= 0
