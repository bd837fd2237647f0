"""Very many texts as one run of bytes, and the rows set aside likewise: read one by one, held by nobody."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from newslora.data.store import BUFFER, Spool, chunks, gathered

REASONS = 1_000  # different reasons counted; a file of which every row is wrong in its own way has no commonest one


class Texts(Sequence[str]):
    """R texts; a slice, or an array of places, is a view of some of them in that order."""

    def __init__(
        self, content: NDArray[np.uint8], offsets: NDArray[np.int64], places: NDArray[np.int64] | None = None
    ) -> None:
        """Text i is the UTF-8 at `content[offsets[i]:offsets[i + 1]]`; `places`: which of them, in which order; None: all."""
        self.content, self.offsets, self.places = content, offsets, places

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """Any texts -> the same, laid end to end."""
        spool = TextSpool()
        for text in texts:
            spool.add(text.encode())
        return cls(*spool.arrays())

    def __len__(self) -> int:
        return len(self.offsets) - 1 if self.places is None else len(self.places)

    @overload
    def __getitem__(self, which: int) -> str: ...
    @overload
    def __getitem__(self, which: "slice | NDArray[np.int64]") -> "Texts": ...
    def __getitem__(self, which: "int | slice | NDArray[np.int64]") -> "str | Texts":
        if isinstance(which, np.ndarray):
            return Texts(self.content, self.offsets, which if self.places is None else gathered(self.places, which))
        if isinstance(which, slice):
            places = np.arange(*which.indices(len(self))) if self.places is None else self.places[which]
            return Texts(self.content, self.offsets, places)
        place = range(len(self))[which]
        row = place if self.places is None else int(self.places[place])
        return self.content[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        for start, stop in chunks(len(self)):
            rows = np.arange(start, stop) if self.places is None else self.places[start:stop]
            bounds = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
            for first, last in bounds:
                yield self.content[first:last].tobytes().decode()


class TextSpool:
    """Texts being written, from front to back."""

    def __init__(self) -> None:
        self._content, self._offsets = Spool(np.uint8), Spool(np.int64)
        self._held: list[bytes] = []
        self._end = 0
        self._offsets.add(0)

    def add(self, text: bytes) -> None:
        """Append one text's UTF-8."""
        self._held.append(text)
        self._end += len(text)
        self._offsets.add(self._end)
        if len(self._held) == BUFFER:
            self._flush()

    @property
    def spilled(self) -> bool:
        """Whether the texts have outgrown memory."""
        return self._content.spilled

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """All bytes, and where each text begins and ends."""
        self._flush()
        return self._content.array(), self._offsets.array()

    def _flush(self) -> None:
        self._content.extend(b"".join(self._held))
        self._held.clear()


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One row set aside."""

    source: str
    row: int
    reason: str
    excerpt: str  # the row's first characters, enough to find it


class Quarantine:
    """The rows of one source that were set aside, one after another."""

    def __init__(self, source: str, lines: Texts, reasons: dict[str, int]) -> None:
        """Lines hold row, reason and excerpt of each as JSON; `reasons`: how often the commonest occur, commonest first."""
        self.source, self._lines, self.reasons = source, lines, reasons

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Quarantined]:
        return (Quarantined(self.source, **json.loads(line)) for line in self._lines)


class RowSpool:
    """The rows of one source being read: texts with labels, and those set aside."""

    def __init__(self) -> None:
        self._texts, self._labels, self._rows = TextSpool(), Spool(np.int64), Spool(np.int64)
        self._aside = TextSpool()
        self.reasons: Counter[str] = Counter()

    def add(self, row: int, text: str, label: int) -> None:
        """A usable row: its number in the source, its text, its label id."""
        self._texts.add(text.encode())
        self._labels.add(label)
        self._rows.add(row)

    def set_aside(self, row: int, reason: str, excerpt: str) -> None:
        """An unusable one."""
        line = json.dumps({"row": row, "reason": reason, "excerpt": excerpt}, ensure_ascii=False)
        # a reason may quote a broken label: its lone surrogates become \\u escapes, which JSON knows
        self._aside.add(line.encode("utf-8", "backslashreplace"))
        if reason in self.reasons or len(self.reasons) < REASONS:
            self.reasons[reason] += 1

    @property
    def spilled(self) -> bool:
        """Whether the rows have outgrown memory."""
        return self._texts.spilled or self._aside.spilled

    def columns(self) -> dict[str, NDArray[Any]]:
        """Everything, as columns to keep."""
        text, text_offsets = self._texts.arrays()
        aside, aside_offsets = self._aside.arrays()
        return {
            "text": text, "text_offsets": text_offsets, "labels": self._labels.array(), "rows": self._rows.array(),
            "aside": aside, "aside_offsets": aside_offsets,
        }  # fmt: skip
