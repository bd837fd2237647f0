"""A service of the real one's shape around one classifier a name, which does what a test tells it to: be late, be full."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from newslora.config import ServeSettings
from newslora.errors import DeadlineError, UnknownAdapterError, near
from newslora.predict.classifier import Classifier, Prediction


@dataclass(frozen=True, slots=True)
class Served:
    name: str
    version: str
    labels: tuple[str, ...]
    multi_label: bool
    backbone: str
    calibrated: bool
    loaded: float
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    served: Served
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class QueueState:
    rows: int
    rows_bound: int


class StandIn:
    def __init__(self, limits: ServeSettings) -> None:
        self.limits = limits
        self.held: dict[str, tuple[Served, Classifier]] = {}
        self.seconds = 0.0  # an answer takes
        self.error: Exception | None = None  # instead of an answer
        self.asked: list[list[str]] = []
        self.broken: list[str] = []

    def load(self, name: str, folder: Path) -> Served:
        classifier = Classifier.load(folder)
        card = classifier.card
        version = card.weights_sha256[:12]
        served = Served(
            name, version, classifier.labels, classifier.multi_label, card.backbone,
            classifier.calibration is not None, time.time(),
        )  # fmt: skip
        self.held = {**self.held, name: (served, classifier)}
        return served

    def remove(self, name: str) -> None:
        self.get(name)
        self.held = {key: value for key, value in self.held.items() if key != name}

    def adapters(self) -> list[Served]:
        return [served for served, _ in self.held.values()]

    def get(self, name: str | None) -> Served:
        return self._pair(name)[0]

    def classifier(self, name: str | None) -> Classifier:
        return self._pair(name)[1].padded()

    async def answer(
        self, name: str | None, texts: Sequence[str], *, abstain: float | None = None, deadline: float | None = None
    ) -> list[Answered]:
        self.asked.append(list(texts))
        if self.error is not None:
            raise self.error
        served, classifier = self._pair(name)
        if self.seconds:
            if deadline is not None and time.monotonic() + self.seconds > deadline:
                await asyncio.sleep(max(0.0, deadline - time.monotonic()))
                raise DeadlineError("The answer was not ready in time.")
            await asyncio.sleep(self.seconds)
        return [Answered(served, one) for one in classifier(list(texts), abstain)]

    def start(self) -> None:
        pass

    def drain(self, within: float | None = None) -> None:
        pass

    def problems(self) -> list[str]:
        return self.broken

    def queue(self) -> QueueState:
        return QueueState(0, 100)

    def _pair(self, name: str | None) -> tuple[Served, Classifier]:
        found = next(iter(self.held.values()), None) if name is None else self.held.get(name)
        if found is None:
            raise UnknownAdapterError(f"There is no adapter '{name}'.{near(str(name), self.held)}")
        return found
