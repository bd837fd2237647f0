"""Which rows are copies of one another: equal but for case, punctuation and HTML, or nearly equal."""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newslora.auditing.damage import BROKEN_ENTITY, TAG
from newslora.errors import needing

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
SHINGLE = 3  # words
SIMILARITY = 0.6  # of three-word shingles: about what two wordings of one news item share, and two items do not
LEAST = 0.1  # similarity that may be asked for
PERMUTATIONS = 128
FOUND = 0.97  # chance that a pair just as similar as asked becomes a candidate; each candidate is then checked exactly
MOST_CANDIDATES = 100  # a row that resembles more is one of a crowd, which fewer pairs tie together as well


@dataclass(frozen=True, slots=True)
class Near:
    """Two rows and the Jaccard similarity of their shingles."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies among R rows."""

    exact: list[list[int]]  # groups of two or more rows, in order
    near: list[Near]  # between the first rows of different groups
    group_of: dict[int, list[int]]  # first row of each group -> its rows; rows without an equal are not listed
    clusters: NDArray[np.int64]  # (R,) number of the row's connected component

    def rows_equal_to(self, place: int) -> list[int]:
        """The group of a first row."""
        return self.group_of.get(place, [place])


def find_copies(
    texts: Sequence[str], similarity: float = SIMILARITY, progress: Callable[[int], None] = lambda rows: None
) -> Copies:
    """Exact copies by normalised words; near copies by MinHash LSH (Broder 1997; datasketch), each pair verified.

    `similarity` is the least of the sets of three-word shingles of a reported pair (Jaccard).

    Raises:
        MissingExtraError: datasketch is not installed.
    """
    words = [_words(text) for text in texts]
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(words):
        groups.setdefault(row, []).append(place)
    firsts = [group[0] for group in groups.values()]
    near = _near([words[place] for place in firsts], similarity, progress)
    found = [Near(firsts[one.first], firsts[one.second], one.similarity) for one in near]
    exact = [group for group in groups.values() if len(group) > 1]
    return Copies(exact, found, {group[0]: group for group in exact}, _clusters(len(texts), exact, found))


def _words(text: str) -> tuple[str, ...]:
    """Words without case, width, punctuation and HTML; a text without words is its own only word.

    Two wire stories share the words of a link to the same stock quote and nothing else, so tags go. Chinese characters, kana
    and Hangul syllables count as words: nothing separates words there.
    """
    plain = BROKEN_ENTITY.sub(" ", TAG.sub(" ", html.unescape(text)))
    return tuple(WORD.findall(unicodedata.normalize("NFKC", plain).casefold())) or (text,)


def _near(rows: Sequence[tuple[str, ...]], similarity: float, progress: Callable[[int], None]) -> list[Near]:
    with needing("Finding near copies", "audit"):
        from datasketch import MinHash, MinHashLSH
    shingles = _shingles(rows)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(similarity))
    # the shingles are hashes already: their upper halves are what datasketch would make of them
    halves = ((row >> np.uint64(32)).tolist() for row in shingles)
    found = []
    for place, sketch in enumerate(MinHash.generator(halves, num_perm=PERMUTATIONS, hashfunc=int)):
        for other in sorted(index.query(sketch))[:MOST_CANDIDATES]:
            exact = _jaccard(shingles[other], shingles[place])
            if exact >= similarity:
                found.append(Near(other, place, exact))
        index.insert(place, sketch, check_duplication=False)
        progress(1)
    return found


def _bands(similarity: float) -> tuple[int, int]:
    """Bands and rows a band: the fewest candidates (longest bands) that find a share `FOUND` of pairs of this similarity.

    A pair of similarity s shares a whole band of r values, one of b, with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman
    and Ullman, Mining of Massive Datasets, 3.4.2). datasketch's own choice minimises the wrong candidates and the missed ones
    together, over all similarities, and misses every sixth pair at 0.6.
    """
    lengths = range(PERMUTATIONS // 2, 0, -1)
    length = next(r for r in lengths if 1 - (1 - similarity**r) ** (PERMUTATIONS // r) >= FOUND)
    return PERMUTATIONS // length, length


def _shingles(rows: Sequence[tuple[str, ...]]) -> list[NDArray[np.uint64]]:
    """Each row's set of three-word shingles as sorted 64-bit hashes; a shorter row is one shingle."""
    numbers: dict[str, int] = {}
    generator = np.random.default_rng(0)
    ids = [[numbers.setdefault(word, len(numbers)) for word in row] for row in rows]
    # a shingle's hash is a sum of random words, one set for each position (tabulation hashing, Zobrist 1970)
    tables = generator.integers(0, 2**64, size=(SHINGLE, len(numbers)), dtype=np.uint64)
    found = []
    for row in ids:
        count = max(1, len(row) - SHINGLE + 1)
        hashes = np.zeros(count, dtype=np.uint64)
        for position in range(min(SHINGLE, len(row))):
            hashes ^= tables[position, row[position : position + count]]
        found.append(np.unique(hashes))
    return found


def _jaccard(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def _clusters(rows: int, exact: Sequence[Sequence[int]], near: Sequence[Near]) -> NDArray[np.int64]:
    """(R,) component numbers of the graph of copies."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [(group[0], other) for group in exact for other in group[1:]]
    edges += [(one.first, one.second) for one in near]
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(rows, rows))
    _, numbers = connected_components(graph, directed=False)
    return np.asarray(numbers, dtype=np.int64)
