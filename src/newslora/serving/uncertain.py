"""The least sure answers of the last hour, in memory, for people to look at first."""

import threading
import time
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from newslora.serving.logs import new_id

KEPT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Item:
    """An answer somebody should look at."""

    id: str
    time: float  # Unix time in seconds
    adapter: str
    version: str
    text: str
    label: str | None  # the likeliest of `labels`
    labels: tuple[str, ...]
    probability: float
    probabilities: dict[str, float]
    sureness: float  # 0: could be anything; 1: certain

    def record(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in self.__slots__ if name != "sureness"}
        return told | {"labels": list(self.labels)}


def sureness(probabilities: dict[str, float], thresholds: Sequence[float] | None) -> float:
    """How sure an answer is, from 0 to 1: the likeliest label's probability; where each label is decided by itself, how far the
    least certain of them is on its way from its threshold (0) to 0 or 1, whichever lies on its side (1).

    Args:
        probabilities: of every label.
        thresholds: the probability from which each is given, in the same order, where each is decided by itself.
    """
    if thresholds is None:
        return max(probabilities.values())
    return min(map(_decided, probabilities.values(), thresholds))


def _decided(share: float, threshold: float) -> float:
    """Relative to its side: of a threshold of 0.1, all that is not given lies within 0.1 and is not unsure for it."""
    side = 1 - threshold if share >= threshold else threshold
    return abs(share - threshold) / side if side else 0.0


@dataclass(slots=True)
class _Held:
    """The items of one adapter."""

    items: list[Item] = field(default_factory=list)  # least sure first
    texts: set[str] = field(default_factory=set)  # theirs
    oldest: float = 0.0  # no item is older

    def keep(self, items: list[Item]) -> None:
        """Let go of all others."""
        self.items, self.texts = items, {item.text for item in items}


class UncertainItems:
    """At most `limit` items an adapter: when one more comes, the surest goes, once none is older than an hour.

    Args:
        limit: items an adapter; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[str, _Held] = {}  # by adapter
        self._lock = threading.Lock()

    def add(
        self,
        adapter: str,
        version: str,
        text: str,
        labels: tuple[str, ...],
        probability: float,
        probabilities: dict[str, float],
        thresholds: Sequence[float] | None = None,
        now: float | None = None,
    ) -> None:
        """Keep an answer if it is among the least sure; the same text is kept once.

        Args:
            labels: given, likeliest first.
            thresholds: as `sureness` takes them.
        """
        if not self.limit:
            return
        now = time.time() if now is None else now
        sure = sureness(probabilities, thresholds)
        with self._lock:
            held = self._held.get(adapter)
            if held is None:  # removed while this was being answered
                return
            full = len(held.items) >= self.limit
            if full and sure >= held.items[-1].sureness and now - held.oldest < KEPT_SECONDS:
                return
            # else there is nothing to look for among the items
            if text in held.texts or now - held.oldest >= KEPT_SECONDS:
                held.keep([item for item in held.items if now - item.time < KEPT_SECONDS and item.text != text])
                held.oldest = min((item.time for item in held.items), default=now)
            label = labels[0] if labels else None
            item = Item(new_id(), now, adapter, version, text, label, labels, probability, probabilities, sure)
            insort(held.items, item, key=lambda one: one.sureness)
            held.texts.add(text)
            if len(held.items) > self.limit:
                held.texts.discard(held.items.pop().text)

    def corrected(self, adapter: str, text: str) -> None:
        """Somebody has looked at this text."""
        with self._lock:
            if held := self._held.get(adapter):
                held.keep([item for item in held.items if item.text != text])

    def loaded(self, adapter: str) -> None:
        """An adapter was added or replaced; items of others are not kept."""
        with self._lock:
            self._held.setdefault(adapter, _Held())

    def removed(self, adapter: str) -> None:
        with self._lock:
            self._held.pop(adapter, None)

    def least_sure(self, adapter: str | None, limit: int, now: float | None = None) -> list[Item]:
        """The least sure first, of one adapter or of all."""
        now = time.time() if now is None else now
        with self._lock:
            found = [
                item
                for name, held in self._held.items()
                if adapter in (None, name)
                for item in held.items
                if now - item.time < KEPT_SECONDS
            ]
        return sorted(found, key=lambda item: item.sureness)[:limit]
