"""Whether the texts that come are still like those an adapter was validated on: label mix and confidence, by numbers.

The population stability index of two distributions p, q is the sum of (p - q) ln(p / q), which is their Kullback-Leibler
divergence in both directions added up. Where nothing has shifted, PSI (1/n + 1/m)^-1 is about chi-square with B - 1 degrees
of freedom, for n and m items in B bins (Yurdakul and Naranjo 2020, "Statistical properties of the population stability
index", Journal of Risk Model Validation 14(4)). A shift is named where PSI is beyond 0.2, from which on practice calls a
change significant (Siddiqi 2006, "Credit Risk Scorecards"), and beyond what 1 in 10,000 unshifted windows reaches.
"""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from newslora.predict.calibration import Calibration

FEWEST = 100  # answers from which on a window says something
THRESHOLD = 0.2
FALSE_ALARMS = 1e-4  # share of unshifted windows
BINS = 10  # of confidence, equally full in the baseline
NO_LABEL = ""  # in the label mix: a text that was given none
SMOOTHING = 0.5  # added to each count, so that an empty bin is no infinite divergence (Jeffreys)

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the newest answers are from the baseline in one respect."""

    psi: float
    js: float  # Jensen-Shannon distance, base 2: 0 (same) to 1
    limit: float  # of psi
    shifted: bool


def compare(baseline: Counts, recent: Counts) -> Shift:
    """Two rows of (B,) counts -> how far apart they are."""
    from scipy.spatial.distance import jensenshannon
    from scipy.special import rel_entr

    one, other = baseline + SMOOTHING, recent + SMOOTHING
    p, q = one / one.sum(), other / other.sum()
    psi = float(rel_entr(p, q).sum() + rel_entr(q, p).sum())
    noise = (1 / max(1.0, baseline.sum()) + 1 / max(1.0, recent.sum())) * _reached_by_chance(max(1, len(p) - 1))
    limit = max(THRESHOLD, float(noise))  # NumPy's numbers would not become JSON
    return Shift(psi, float(jensenshannon(p, q, base=2)), limit, psi > limit)


@cache
def _reached_by_chance(freedom: int) -> float:
    """What a chi-square with so many degrees of freedom exceeds in FALSE_ALARMS of all cases."""
    from scipy.special import chdtri  # scipy.stats takes half a second to import, while requests wait

    return float(chdtri(freedom, FALSE_ALARMS))


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an adapter's answers looked like."""

    labels: dict[str, int]  # answers by label given
    edges: tuple[float, ...]  # BINS - 1 bounds between bins of confidence
    confidences: tuple[int, ...]  # answers a bin
    answers: int
    source: str  # 'validation rows' or 'first answers'


def make_baseline(labels: Sequence[Sequence[str]], confidences: Sequence[float], source: str) -> Baseline:
    """A baseline out of answers: the labels each was given and how sure it was."""
    values = np.asarray(confidences, dtype=np.float64)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    counted = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    mix = Counter(name for given in labels for name in given or (NO_LABEL,))
    return Baseline(dict(mix), tuple(edges.tolist()), tuple(counted.tolist()), len(values), source)


def validation_baseline(calibration: "Calibration", labels: Sequence[str]) -> Baseline:
    """The baseline out of the validation rows that are kept beside an adapter (predict/calibration.py)."""
    probabilities = calibration.probabilities()
    given = [(labels[place],) for place in probabilities.argmax(axis=1)]
    return make_baseline(given, probabilities.max(axis=1).tolist(), "validation rows")


class Drift:
    """The newest answers of one adapter beside its baseline; memory is bounded by `window` and `first`.

    Args:
        baseline: None takes the first answers for one.
        window: newest answers that are compared.
        first: answers of such a baseline.
    """

    def __init__(self, baseline: Baseline | None, window: int, first: int) -> None:
        self._baseline, self._first = baseline, first
        self._beginning: list[tuple[tuple[str, ...], float]] = []
        self._recent: deque[tuple[tuple[str, ...], float]] = deque(maxlen=window)
        self._lock = threading.Lock()
        self._added = 0
        self._told: tuple[int, dict[str, Any]] | None = None  # a state, and the answers it is of

    def add(self, labels: tuple[str, ...], confidence: float) -> None:
        """One answer."""
        with self._lock:
            self._added += 1
            if self._baseline is not None:
                self._recent.append((labels, confidence))
                return
            self._beginning.append((labels, confidence))
            if len(self._beginning) >= self._first:
                given, sure = zip(*self._beginning, strict=True)
                self._baseline = make_baseline(given, sure, "first answers")
                self._beginning = []

    def state(self) -> dict[str, Any]:
        """Numbers for /v1/status: shifts of label mix and confidence, null until there are answers enough."""
        with self._lock:
            if self._told is not None and self._told[0] == self._added:
                return self._told[1]
            added, baseline, recent = self._added, self._baseline, list(self._recent)
        state = self._compared(baseline, recent)
        with self._lock:
            self._told = added, state
        return state

    def _compared(self, baseline: Baseline | None, recent: Sequence[tuple[tuple[str, ...], float]]) -> dict[str, Any]:
        told: dict[str, Any] = {
            "baseline": None if baseline is None else baseline.source,
            "baseline_labels": None if baseline is None else baseline.labels,
            "baseline_answers": 0 if baseline is None else baseline.answers,
            "window_answers": len(recent),
            "labels": None,
            "confidence": None,
        }
        if baseline is None or len(recent) < FEWEST:
            return told
        mix = Counter(name for given, _ in recent for name in given or (NO_LABEL,))
        names = sorted({*baseline.labels, *mix})
        labels = compare(_counts(baseline.labels, names), _counts(mix, names))
        values = np.array([sure for _, sure in recent])
        places = np.searchsorted(np.array(baseline.edges), values, side="left")
        bins = np.bincount(places, minlength=len(baseline.confidences)).astype(np.float64)
        confidence = compare(np.array(baseline.confidences, dtype=np.float64), bins)
        return told | {"labels": asdict(labels), "confidence": asdict(confidence)}


def _counts(mix: dict[str, int], names: Sequence[str]) -> Counts:
    return np.array([mix.get(name, 0) for name in names], dtype=np.float64)
