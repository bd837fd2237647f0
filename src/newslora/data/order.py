"""Orders of very many rows that are computed where they are looked at, instead of being held."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from newslora.data.store import FEW

HALF_ROUNDS = 8
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


class Order(Protocol):
    """A permutation of the numbers from 0 to `len`: an array, or something that answers like one."""

    def __len__(self) -> int: ...
    def __getitem__(self, places: NDArray[np.int64], /) -> NDArray[np.int64]: ...


def shuffled(count: int, generator: np.random.Generator) -> Order:
    """A random order of `count` rows: numpy's while it is small, else one that takes no memory."""
    if count <= FEW:
        return generator.permutation(count)
    keys = generator.integers(0, 2**64, HALF_ROUNDS, dtype=np.uint64)
    return Permutation(count, tuple(int(key) for key in keys))


@dataclass(frozen=True, slots=True)
class Permutation:
    """A keyed bijection of the numbers below `count`.

    A Feistel network on the fewest bits that can number the rows (Luby and Rackoff 1988: four rounds of random functions
    cannot be told from a random permutation; these are eight), its round function the finaliser of SplitMix64 (Steele,
    Lea and Flood 2014). What falls outside is sent through again until it falls inside, which keeps it one to one: cycle
    walking (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). Less than two passes a row on average.
    """

    count: int
    keys: tuple[int, ...]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at these places."""
        found = self._network(np.asarray(places).astype(np.uint64))
        while (outside := np.flatnonzero(found >= self.count)).size:
            found[outside] = self._network(found[outside])
        return found.astype(np.int64)

    def _network(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        bits = max(2, (self.count - 1).bit_length())
        low_bits = np.uint64(bits // 2)
        low_mask, high_mask = np.uint64(2 ** (bits // 2) - 1), np.uint64(2 ** (bits - bits // 2) - 1)
        high, low = numbers >> low_bits, numbers & low_mask
        for place, key in enumerate(self.keys):
            if place % 2:
                low = low ^ (_mixed(high + np.uint64(key)) & low_mask)
            else:
                high = high ^ (_mixed(low + np.uint64(key)) & high_mask)
        return (high << low_bits) | low


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits in which every bit depends on every bit of the numbers; multiplication wraps, as it should."""
    numbers = (numbers ^ (numbers >> _SHIFTS[0])) * _MULTIPLIERS[0]
    numbers = (numbers ^ (numbers >> _SHIFTS[1])) * _MULTIPLIERS[1]
    return numbers ^ (numbers >> _SHIFTS[2])
