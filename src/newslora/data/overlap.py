"""How many held rows the training rows hold too: a score on those tells what was learnt by heart."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

CHUNK = 65_536  # texts hashed at a time


def copied_rows(train: Iterable[str], held: Sequence[str]) -> int:
    """Rows of `held` whose text is one of `train`'s but for case and white space.

    Memory grows with the held rows only, eight bytes each: a text counts as its hash of 64 bits. Near copies, and which rows
    they are, `newslora audit` tells.
    """
    hashes = _hashes(held)
    wanted = np.unique(hashes)
    seen = np.zeros(len(wanted), dtype=bool)
    texts = iter(train)
    while len(wanted) and len(some := _hashes(itertools.islice(texts, CHUNK))):
        places = np.minimum(np.searchsorted(wanted, some), len(wanted) - 1)
        seen[places[wanted[places] == some]] = True
    return int(seen[np.searchsorted(wanted, hashes)].sum())


def told(name: str, copies: int, rows: int) -> str:
    """What it means for a split's scores."""
    return (
        f"{copies:,} of {rows:,} {name} rows stand among the training rows too (case and white space aside): scores on them "
        "are higher than on new texts."
    )


def told_earlier(name: str, copies: int, rows: int) -> str:
    """The same of rows that trained the adapter a run started from."""
    return (
        f"{copies:,} of {rows:,} {name} rows stand among those that trained the adapter this run started from (case and "
        "white space aside): scores on them are higher than on new texts."
    )


def told_unread(names: Sequence[str]) -> str:
    """What is not known where those rows cannot be read again."""
    return (
        f"Whether held rows stand among those that trained {' and '.join(names)} before is not known: those rows are not "
        "here, or have changed."
    )


def _hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    """(R,) one a text."""
    words = (" ".join(text.casefold().split()).encode("utf-8", "surrogatepass") for text in texts)
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in words)
    return np.frombuffer(digests, dtype=np.uint64)
