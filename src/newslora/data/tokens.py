"""Texts -> token ids, kept on disk under the hash of everything they depend on.

Dimension letters used in data/ and model/: R rows of a split, B rows of a batch, L tokens of the longest row in it,
T tokens of all rows together, C labels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from newslora.data.store import Spool, kept, read_columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_A_CALL = 10_000  # tokenizers works through this many texts on all cores at once
CHARACTERS_A_CALL = 4_000_000  # but not through more than this: it takes some hundred bytes a token
FORMAT = b"newslora tokens 3"


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Token ids of R rows, end to end; row i is `ids[offsets[i]:offsets[i + 1]]`. Large ones are mapped from a file."""

    ids: NDArray[np.int32]  # (T,)
    offsets: NDArray[np.int64]  # (R + 1,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) tokens of each row, in memory; `lengths_of` asks for some."""
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
    if cache is None:
        return _tokenize(tokenizer, texts, max_length)
    path = cache / "tokens" / f"{_fingerprint(tokenizer, texts, max_length)}.safetensors"
    if (found := read_columns(path)) is not None:
        columns = found[0]
    else:
        table = _tokenize(tokenizer, texts, max_length)
        columns = kept(path, {"ids": table.ids, "offsets": table.offsets}, {})
    return TokenTable(columns["ids"], columns["offsets"])


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
    ids, offsets = Spool(np.int32), Spool(np.int64)
    offsets.add(0)
    end = 0
    for some in _calls(texts):
        rows = tokenizer(
            some,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        ids.extend(np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]))
        ends = end + np.cumsum([len(row) for row in rows], dtype=np.int64)
        offsets.extend(ends)
        end = int(ends[-1])
    return TokenTable(ids.array(), offsets.array())


def _calls(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts of each call of the tokenizer, which holds every token of a text before it cuts."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if len(some) == ROWS_A_CALL or (some and characters + len(text) > CHARACTERS_A_CALL):
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some


def _fingerprint(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> str:
    digest = hashlib.sha256(FORMAT)
    digest.update(f"{tokenizer_sha256(tokenizer)} {max_length} {len(texts)}".encode())
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
