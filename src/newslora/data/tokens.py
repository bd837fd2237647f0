"""Texts -> token ids, kept on disk under the hash of everything they depend on.

Dimension letters used in data/ and model/: R rows of a split, B rows of a batch, L tokens of the longest row in it,
T tokens of all rows together, C labels.
"""

import contextlib
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from newslora.errors import StorageError
from newslora.files import atomic_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHE_LIMIT = 5_000_000_000  # bytes; the least recently used tokens go first
ROWS_A_CALL = 10_000  # tokenizers works through this many texts on all cores at once
FORMAT = b"newslora tokens 2"


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Token ids of R rows, end to end; row i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: NDArray[np.int32]  # (T,)
    offsets: NDArray[np.int64]  # (R + 1,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) tokens of each row."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int32]]) -> "TokenTable":
        """Rows of token ids -> their table."""
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
        return cls(np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32), offsets)

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some rows, at a cost that does not grow with the others."""
        found: NDArray[np.int64] = self.offsets[rows + 1] - self.offsets[rows]
        return found


def tokenize(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int, cache: Path | None = None
) -> TokenTable:
    """Tokenise with the special tokens of the encoder, cutting each row at `max_length` tokens.

    Args:
        tokenizer: a transformers tokenizer.
        texts: R texts.
        max_length: tokens kept of a row, special tokens included.
        cache: folder of earlier results; None tokenises anew.
    """
    path = None
    if cache is not None:
        path = cache / "tokens" / f"{_fingerprint(tokenizer, texts, max_length)}.safetensors"
        if (found := _read(path)) is not None:
            return found
    table = _tokenize(tokenizer, texts, max_length)
    if path is not None:
        _write(path, table)
    return table


def tokenizer_sha256(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hex SHA-256 of all that decides what the tokenizer returns."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state = repr(sorted(tokenizer.get_vocab().items())) + type(tokenizer).__name__
    else:
        # a call may have left its truncation and padding in the Rust object; they are arguments, not identity
        truncation, padding = backend.truncation, backend.padding
        backend.no_truncation()
        backend.no_padding()
        state = backend.to_str()
        if truncation:
            backend.enable_truncation(**truncation)
        if padding:
            backend.enable_padding(**padding)
    # a Python tokenizer applies these at each call; its Rust object does not know them
    state += f" {tokenizer.truncation_side} {getattr(tokenizer, 'split_special_tokens', False)}"
    return hashlib.sha256(state.encode()).hexdigest()


def _tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> TokenTable:
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), ROWS_A_CALL):
        rows = tokenizer(
            list(texts[start : start + ROWS_A_CALL]),
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        lengths.extend(len(row) for row in rows)
        parts.append(np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]))
    ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return TokenTable(ids, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))


def _fingerprint(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> str:
    digest = hashlib.sha256(FORMAT)
    digest.update(f"{tokenizer_sha256(tokenizer)} {max_length} {len(texts)}".encode())
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _read(path: Path) -> TokenTable | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        table = TokenTable(tensors["ids"], tensors["offsets"])
        if tensors["checksum"].tolist() != _checksum(table):
            return None
    except (OSError, SafetensorError, KeyError):
        return None  # absent or damaged: tokenise again
    with contextlib.suppress(OSError):  # a cache shared read-only still serves
        path.touch()  # recently used, for the size limit
    return table


def _checksum(table: TokenTable) -> list[int]:
    """CRC-32 of both arrays: a disk's flipped bit would train on other words."""
    return [zlib.crc32(array.data) for array in (table.ids, table.offsets)]


def _write(path: Path, table: TokenTable) -> None:
    from safetensors.numpy import save_file

    try:
        with atomic_path(path) as temporary:
            checksum = np.array(_checksum(table), dtype=np.int64)
            save_file({"ids": table.ids, "offsets": table.offsets, "checksum": checksum}, temporary)
        _trim(path.parent)
    except (StorageError, OSError):
        pass  # a cache that cannot be written costs time, not the run


def _trim(folder: Path) -> None:
    held = sorted(folder.glob("*.safetensors"), key=lambda item: item.stat().st_mtime, reverse=True)
    size = 0
    for path in held:
        size += path.stat().st_size
        if size > CACHE_LIMIT:
            path.unlink(missing_ok=True)
