"""What all routes share: the service, settings, keys, rates, corrections and counts."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from newslora.errors import DrainingError
from newslora.serving.aside import Aside
from newslora.serving.drift import Baseline, validation_baseline
from newslora.serving.feedback import FeedbackStore
from newslora.serving.keys import Key, KeyRing
from newslora.serving.logs import make_log
from newslora.serving.metrics import Metrics
from newslora.serving.observed import Observed
from newslora.serving.problems import Problem, loading, problem_of
from newslora.serving.rates import Rates
from newslora.serving.settings import ServeSettings
from newslora.serving.uncertain import UncertainItems

if TYPE_CHECKING:
    from newslora.serving.service import Answered, QueueState, Served, Service

LOOK_AGAIN = 0.1  # seconds
Outcome = TypeVar("Outcome")
OPEN = Key("open", ("classify", "feedback", "admin", "metrics"), "", 0.0)  # whoever asks, where no keys are asked for


class Context:
    """One server's parts. `ready` turns true when all adapters are loaded, and false when the server is told to end.

    Args:
        service: what answers.
        settings: the server's.
        log: from `make_log`; None makes one.

    Raises:
        SettingsError, DataError, StorageError, MissingExtraError: keys or corrections cannot be had.
    """

    def __init__(self, service: "Service", settings: ServeSettings, log: Any = None) -> None:
        self.service, self.settings = service, settings
        self.log = make_log() if log is None else log
        self.keys = None if settings.keys is None else KeyRing(settings.keys, self._complain)
        self.rates = Rates(settings)
        self.feedback = None if settings.feedback is None else FeedbackStore(settings.feedback)
        self.corrections = {} if self.feedback is None else self.feedback.counts()
        self.uncertain = UncertainItems(settings.keep_uncertain)
        self.observed = Observed(settings)
        self.metrics = Metrics(self.queues, service.passes, service.adapters, self.observed)
        self.ready = False
        self.draining = False
        self.end_by: float | None = None  # `time.monotonic()` at which the grace period is over, once it has begun
        self.active = 0  # requests
        self.explainer = Aside("newslora-explain")
        self.explaining = 0  # texts waiting or being explained
        self.changing = threading.Lock()  # one adapter is loaded at a time

    def close(self) -> None:
        """Let go of the database and the threads."""
        self.explainer.close()
        if self.feedback is not None:
            self.feedback.close()

    async def change(self, work: Callable[..., Outcome], *arguments: Any) -> Outcome:
        """Call what loads or removes adapters, such as the two below, in a thread of its own.

        Raises:
            DrainingError: the server was told to end; what is not done by then will have no effect, and nobody waits for it.
        """
        job: asyncio.Future[Outcome] = asyncio.wrap_future(Aside("newslora-change").submit(work, *arguments))
        while not job.done():
            await asyncio.wait([job], timeout=LOOK_AGAIN)
            if self.draining and not job.done():
                job.cancel()
                raise _ending()
        return job.result()

    def load(self, name: str, folder: Path) -> "Served":
        """Load an adapter and begin to count for it; blocks.

        Raises:
            DrainingError: the server was told to end.
            NewsloraError: as `Service.load`.
        """
        with self.changing:
            self._check_not_ending()
            served = self.service.load(name, folder, self._check_not_ending)
            self.observed.loaded(name, served.version, baseline_of(served))
            self.uncertain.loaded(name)
            self.metrics.loaded(name)
            self.log.info("adapter loaded", adapter=name, version=served.version)
            return served

    def remove(self, name: str) -> None:
        """Remove an adapter and what is counted for it; blocks.

        Raises:
            DrainingError: the server was told to end.
            UnknownAdapterError: there is none of that name.
        """
        with self.changing:
            self._check_not_ending()
            self.service.remove(name)
            self.observed.removed(name)
            self.uncertain.removed(name)
            self.metrics.removed(name)
            self.log.info("adapter removed", adapter=name)

    def authorise(self, header: str | None, scopes: tuple[str, ...]) -> Key:
        """The key of a request, if it opens one of these scopes.

        Args:
            header: Authorization's value.
            scopes: any of them does; none means any key does.

        Raises:
            Problem: 401 without a valid key, 403 with one that is not for this.
        """
        if self.keys is None:
            return OPEN
        kind, _, presented = (header or "").partition(" ")
        key = self.keys.find(presented.strip()) if kind.lower() == "bearer" else None
        if key is None:
            raise Problem(
                401,
                "no_key",
                "This server asks for a valid API key: send the header 'Authorization: Bearer KEY'.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if scopes and not set(scopes) & set(key.scopes):
            raise Problem(
                403,
                "wrong_scope",
                f"The key '{key.name}' has the scopes {', '.join(key.scopes)}; this takes {' or '.join(scopes)}.",
            )
        return key

    def problem(self, error: Exception) -> Problem:
        """Any exception as what the client is told."""
        problem = problem_of(error)
        if problem.code == "unknown_adapter" and not self.ready:
            return loading()  # it may be there in a moment
        return problem

    def rated(self, key: Key) -> str | None:
        """Under which name a key's requests are counted; None: not at all."""
        return None if key is OPEN else key.name

    def queue(self) -> dict[str, float]:
        """What waits before the fullest encoder, the bounds, and how full that is."""
        state = self.service.queue()
        return _numbers(state) | {"share": state.share}

    def queues(self) -> dict[str, dict[str, float]]:
        """What waits before each encoder, and the bounds."""
        return {name: _numbers(state) for name, state in self.service.queues().items()}

    def seen(self, text: str, answered: "Answered") -> None:
        """Count an answer everywhere; nowhere, if its adapter was removed meanwhile."""
        served, one = answered.served, answered.prediction
        self.metrics.row(served.name, one.labels, one.abstained)
        self.observed.row(served.name, served.version, one.labels, one.probability, one.abstained)
        self.uncertain.add(
            served.name, served.version, text, one.labels, one.probability, one.probabilities, served.thresholds
        )

    def _check_not_ending(self) -> None:
        if self.draining:
            raise _ending()

    def _complain(self, sentence: str) -> None:
        self.log.error("keys", message=sentence)


def _ending() -> DrainingError:
    return DrainingError("The server is ending: adapters are neither loaded nor removed any more. Ask another.")


def _numbers(state: "QueueState") -> dict[str, float]:
    return {name: float(value) for name, value in dataclasses.asdict(state).items()}


def baseline_of(served: "Served") -> Baseline | None:
    """Out of the validation rows beside an adapter; None where it has none, or several labels a text."""
    held = served.calibration
    if served.multi_label or held is None or not len(held.labels):
        return None
    return validation_baseline(held, served.labels)
