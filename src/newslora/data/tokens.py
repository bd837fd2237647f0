"""Texts -> token ids, kept on disk under the hash of everything they depend on.

A row longer than the encoder reads is cut, or becomes several windows that overlap.

Dimension letters used in data/ and model/: R rows of a split, B rows of a batch, W windows of either (as many, where every
row is one window), L tokens of the longest window in a batch, T tokens of all rows together, C labels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from newslora.data.store import Spool, kept, read_columns
from newslora.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_A_CALL = 10_000  # tokenizers works through this many texts on all cores at once
CHARACTERS_A_CALL = 4_000_000  # but not through more than this: it takes some hundred bytes a token
FEW = 4  # texts that are sooner done one by one than handed to threads
FORMAT = b"newslora tokens 3"
_PLAIN = {"truncation": True, "padding": False, "return_attention_mask": False, "return_token_type_ids": False}


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Token ids of R rows in W windows, end to end; window i is `ids[offsets[i]:offsets[i + 1]]`. Large ones are mapped."""

    ids: NDArray[np.int32]  # (T,)
    offsets: NDArray[np.int64]  # (W + 1,)
    firsts: NDArray[np.int64] | None = None  # (R + 1,) first window of each row, then W; None: every row is one window

    def __len__(self) -> int:
        return len(self.offsets if self.firsts is None else self.firsts) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        """Tokens of a row; of all its windows."""
        first, last = (row, row + 1) if self.firsts is None else (self.firsts[row], self.firsts[row + 1])
        return self.ids[self.offsets[first] : self.offsets[last]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) tokens of each row (of all its windows), in memory; `lengths_of` asks for some."""
        return np.diff(self.offsets if self.firsts is None else self.offsets[self.firsts])

    @property
    def windows(self) -> "TokenTable":
        """The same with every window as a row of its own."""
        return TokenTable(self.ids, self.offsets)

    def windows_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Some rows -> (W,) numbers of their windows, and (W,) the place of each window's row; None: each has one."""
        if self.firsts is None:
            return rows, None
        firsts = self.firsts[rows]
        counts = self.firsts[rows + 1] - firsts
        if counts.max(initial=1) == 1:
            return firsts, None
        owners = np.repeat(np.arange(len(rows)), counts)
        before = np.cumsum(counts) - counts
        return np.arange(len(owners)) + (firsts - before)[owners], owners

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int32]]) -> "TokenTable":
        """Rows of token ids -> their table."""
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
        return cls(np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int32), offsets)

    def part(self, start: int, stop: int) -> "TokenTable":
        """Rows `start` to `stop`, without copying their tokens."""
        firsts = self.firsts
        if firsts is None:
            return TokenTable(self.ids, self.offsets[start : stop + 1])
        held = firsts[start : stop + 1]
        return TokenTable(self.ids, self.offsets[held[0] : held[-1] + 1], held - held[0])

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some rows, at a cost that does not grow with the others."""
        first, last = (rows, rows + 1) if self.firsts is None else (self.firsts[rows], self.firsts[rows + 1])
        found: NDArray[np.int64] = self.offsets[last] - self.offsets[first]
        return found


def tokenize(
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    max_length: int,
    cache: Path | None = None,
    overlap: int | None = None,
) -> TokenTable:
    """Tokenise with the special tokens of the encoder, `max_length` tokens at most a window.

    Args:
        tokenizer: a transformers tokenizer.
        texts: R texts.
        max_length: tokens of a window, special tokens included.
        cache: folder of earlier results; None tokenises anew.
        overlap: a row too long for one window becomes several, each of which begins with this many tokens of the one
            before (special tokens not counted); None cuts it after one.

    Raises:
        SettingsError: windows that this tokenizer or this length does not allow.
    """
    if overlap is not None:
        _check_windows(tokenizer, max_length, overlap)
    if cache is None:
        return _tokenize(tokenizer, texts, max_length, overlap)
    path = cache / "tokens" / f"{_fingerprint(tokenizer, texts, max_length, overlap)}.safetensors"
    if (found := read_columns(path)) is not None:
        columns = found[0]
    else:
        table = _tokenize(tokenizer, texts, max_length, overlap)
        columns = {"ids": table.ids, "offsets": table.offsets}
        if table.firsts is not None:
            columns["firsts"] = table.firsts
        columns = kept(path, columns, {})
    return TokenTable(columns["ids"], columns["offsets"], columns.get("firsts"))


def nothing(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Ids of a text that has none, for an encoder reads one at least: the unknown token, or padding where there is none.

    Most tokenizers add special tokens to any text; of the others, some drop all of a text, such as private characters.
    """
    unknown = tokenizer.unk_token_id
    return [int(tokenizer.pad_token_id if unknown is None else unknown)]


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


def _tokenize(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int, overlap: int | None
) -> TokenTable:
    ids, offsets, firsts = Spool(np.int32), Spool(np.int64), Spool(np.int64)
    offsets.add(0)
    firsts.add(0)
    end = windows = 0
    for some in _calls(texts):
        if overlap is None:
            found = _cut(tokenizer, some, max_length)
        else:
            told = tokenizer(some, **_PLAIN, max_length=max_length, return_overflowing_tokens=True, stride=overlap)
            found = told["input_ids"]
        found = [window or nothing(tokenizer) for window in found]
        ids.extend(np.concatenate([np.asarray(window, dtype=np.int32) for window in found]))
        ends = end + np.cumsum([len(window) for window in found], dtype=np.int64)
        offsets.extend(ends)
        end = int(ends[-1])
        if overlap is not None:
            counts = np.bincount(told["overflow_to_sample_mapping"], minlength=len(some))
            firsts.extend(windows + np.cumsum(counts))
            windows += len(ends)
    several = windows > len(texts)
    return TokenTable(ids.array(), offsets.array(), firsts.array() if several else None)


def _cut(tokenizer: "PreTrainedTokenizerBase", texts: list[str], max_length: int) -> list[list[int]]:
    """Ids of each text, cut at `max_length` tokens.

    The call of a fast tokenizer also finds where in its text each token stands, which takes about as long again (docs/log.md).
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import TruncationStrategy
    from transformers.utils import PaddingStrategy

    if getattr(type(tokenizer), "_encode_plus", None) is not PreTrainedTokenizerFast._encode_plus:
        found: list[list[int]] = tokenizer(texts, **_PLAIN, max_length=max_length)["input_ids"]
        return found
    backend = tokenizer.backend_tokenizer
    tokenizer.set_truncation_and_padding(
        PaddingStrategy.DO_NOT_PAD, TruncationStrategy.LONGEST_FIRST, max_length, 0, None, None
    )
    if backend.encode_special_tokens != tokenizer.split_special_tokens:  # setting it costs as much as a text
        backend.encode_special_tokens = tokenizer.split_special_tokens
    encodings = map(backend.encode, texts) if len(texts) <= FEW else backend.encode_batch_fast(texts)
    return [encoding.ids for encoding in encodings]


def _check_windows(tokenizer: "PreTrainedTokenizerBase", max_length: int, overlap: int) -> None:
    if not tokenizer.is_fast:
        raise SettingsError(
            f"data.long_texts is 'windows', which the Python tokenizer {type(tokenizer).__name__} does not cut. Use "
            "data.long_texts=cut, or a backbone with a fast tokenizer (tokenizer.json)."
        )
    if overlap > max_length // 2:  # else a text of n tokens takes more than 2n, and close to n windows in the end
        raise SettingsError(
            f"data.window_overlap is {overlap}, and windows hold {max_length} tokens: at most half of them, "
            f"{max_length // 2}, may be shared. Lower it, or raise data.max_length as far as the encoder reads."
        )


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


def _fingerprint(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int, overlap: int | None
) -> str:
    digest = hashlib.sha256(FORMAT)
    windows = "" if overlap is None else f" windows {overlap}"
    digest.update(f"{tokenizer_sha256(tokenizer)} {max_length} {len(texts)}{windows}".encode())
    if not tokenizer.num_special_tokens_to_add():
        digest.update(b" nothing is a token")  # tables of before may hold rows without any
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
