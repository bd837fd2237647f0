"""What the server has answered lately: rates, times, label mix, confidence and drift, in bounded memory, for /v1/status."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from newslora.serving.drift import Baseline, Drift
from newslora.serving.settings import ServeSettings

MINUTE, HOUR = 60.0, 3600.0  # seconds
REQUESTS_KEPT = 20_000  # of the last minute; more than that are a sample of the newest


@dataclass(slots=True)
class _Tally:
    """Answers of one adapter in a stretch of time."""

    texts: int = 0
    abstained: int = 0
    confidence: float = 0.0  # summed
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, labels: Sequence[str], confidence: float, abstained: bool) -> None:
        self.texts += 1
        self.abstained += abstained
        self.confidence += confidence
        self.labels.update(labels)

    def join(self, other: "_Tally") -> None:
        self.texts += other.texts
        self.abstained += other.abstained
        self.confidence += other.confidence
        self.labels.update(other.labels)

    def record(self) -> dict[str, Any]:
        texts = max(1, self.texts)
        return {
            "texts": self.texts,
            "labels": dict(self.labels),
            "mean_confidence": self.confidence / texts if self.texts else None,
            "share_abstained": self.abstained / texts if self.texts else None,
        }


@dataclass(slots=True)
class _Adapter:
    """All that is kept of one version of an adapter."""

    version: str
    drift: Drift
    total: _Tally = field(default_factory=_Tally)
    minutes: deque[tuple[int, _Tally]] = field(default_factory=lambda: deque(maxlen=60))  # newest last


class Observed:
    """Counts answers; any thread may tell it of them.

    Args:
        settings: sizes of the drift windows.
        clock: seconds, of `time.monotonic`.
    """

    def __init__(self, settings: ServeSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._adapters: dict[str, _Adapter] = {}
        self._requests: deque[tuple[float, float | None, int]] = deque(maxlen=REQUESTS_KEPT)  # when, seconds, texts
        self._lock = threading.Lock()
        self.started, self._began = time.time(), clock()

    def loaded(self, name: str, version: str, baseline: Baseline | None) -> None:
        """An adapter was added or replaced; another version starts from nothing."""
        drift = Drift(baseline, self._settings.drift_window, self._settings.drift_baseline)
        with self._lock:
            if name not in self._adapters or self._adapters[name].version != version:
                self._adapters[name] = _Adapter(version, drift)

    def removed(self, name: str) -> None:
        with self._lock:
            self._adapters.pop(name, None)

    def row(self, name: str, version: str, labels: tuple[str, ...], confidence: float, abstained: bool) -> None:
        """One answer; that of a version replaced meanwhile is not counted here."""
        minute = int(self._clock() // MINUTE)
        with self._lock:
            one = self._adapters.get(name)
            if one is None or one.version != version:
                return
            if not one.minutes or one.minutes[-1][0] != minute:
                one.minutes.append((minute, _Tally()))
            one.total.add(labels, confidence, abstained)
            one.minutes[-1][1].add(labels, confidence, abstained)
        one.drift.add(labels, confidence)

    def request(self, seconds: float | None, texts: int) -> None:
        """One request that was answered; a stream has no time, for it lasts as long as its client writes and reads."""
        with self._lock:
            self._requests.append((self._clock(), seconds, texts))

    def uptime(self) -> float:
        """Seconds since the start, whatever the wall clock was set to meanwhile."""
        return self._clock() - self._began

    def load(self) -> dict[str, Any]:
        """Rates and times over the last minute."""
        now = self._clock()
        with self._lock:
            recent = [one for one in self._requests if now - one[0] <= MINUTE]
        span = max(1.0, min(MINUTE, self.uptime()))
        if len(recent) == REQUESTS_KEPT:  # older ones fell out: the rate is that of the newest
            span = max(1.0, now - recent[0][0])
        times = np.array([seconds for _, seconds, _ in recent if seconds is not None]) * 1000
        return {
            "requests_per_second": len(recent) / span,
            "texts_per_second": sum(texts for _, _, texts in recent) / span,
            "p50_ms": float(np.quantile(times, 0.5)) if len(times) else None,
            "p99_ms": float(np.quantile(times, 0.99)) if len(times) else None,
        }

    def adapters(self) -> dict[str, dict[str, Any]]:
        """Label mix, confidence, abstentions and drift by adapter."""
        hour_ago = int((self._clock() - HOUR) // MINUTE)
        told: dict[str, dict[str, Any]] = {}
        with self._lock:
            held = dict(self._adapters)
            for name, one in held.items():
                hour = _Tally()
                for minute, tally in one.minutes:
                    if minute > hour_ago:
                        hour.join(tally)
                told[name] = {"last_hour": hour.record(), "since_start": one.total.record()}
        for name, one in held.items():
            told[name]["drift"] = one.drift.state()
        return told

    def drift(self) -> dict[str, dict[str, Any]]:
        """Drift by adapter."""
        with self._lock:
            held = dict(self._adapters)
        return {name: one.drift.state() for name, one in held.items()}
