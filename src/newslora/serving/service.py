"""Adapters by name, loaded, replaced and removed while requests run; each request is answered whole by one of them.

Adapters of one encoder share it, its queue and its batches (serving/lane.py); those of families without packed layers, and
exports, have a lane each.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from newslora.errors import DeadlineError, DrainingError, NewsloraError, RunError, UnknownAdapterError, near
from newslora.metrics.basic import Logits
from newslora.predict.calibration import Calibration
from newslora.predict.classifier import Classifier, Prediction, check_gradients, list_texts
from newslora.serving.jobs import Job
from newslora.serving.lane import Lane
from newslora.serving.opening import Opened, Opener
from newslora.serving.settings import ServeSettings

KEPT_FOR_EXPLAINING = 2  # classifiers with an encoder of their own


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded adapter; a replacement is another object."""

    name: str
    version: str  # the classifier's
    labels: tuple[str, ...]
    multi_label: bool
    backbone: str
    calibrated: bool
    loaded: float  # unix time
    warning: str | None = None  # why its answers could not be checked against stored ones, where they could not
    calibration: Calibration | None = field(default=None, compare=False, repr=False)  # with its validation rows
    # probability from which each label is given, in their order, where a text may carry several
    thresholds: tuple[float, ...] | None = field(default=None, compare=False, repr=False)
    replaced: bool = field(default=False, compare=False, repr=False)  # it took the place of another of its name


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer for one text."""

    served: Served  # that made this very answer
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class QueueState:
    """What one encoder has accepted and not answered, and how much may be."""

    rows: int
    tokens: int
    rows_bound: int
    tokens_bound: int

    @property
    def share(self) -> float:
        """How full it is, by what it is fullest of."""
        return max(self.rows / self.rows_bound, self.tokens / self.tokens_bound)


@dataclass(frozen=True, slots=True)
class _Held:
    served: Served
    classifier: Classifier
    lane: Lane


class Service:
    """Every adapter given, behind one door.

    Args:
        limits: precision, bounds and deadline.
    """

    def __init__(self, limits: ServeSettings) -> None:
        self.limits = limits
        self._opener = Opener(limits)
        self._held: dict[str, _Held] = {}  # in order of first loading: the first is the default
        self._explaining: OrderedDict[tuple[str, str], Classifier] = OrderedDict()
        self._registry = threading.Lock()  # guards the above and below; never held while anything is computed
        self._loading = threading.Lock()  # one adapter is opened at a time
        self._leaving: list[threading.Thread] = []  # each drains a lane that no adapter uses any more
        self._started = self._draining = False

    def share_threads(self) -> None:
        """Give each of the forward passes at the same time its part of torch's threads; for a process that only serves, before
        anything is loaded."""
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // self._opener.at_once))

    def load(self, name: str, folder: Path, before_it_counts: Callable[[], None] = lambda: None) -> Served:
        """Open a run, adapter or export folder and serve it under a name, in place of what had that name. Blocks.

        Requests accepted before are answered by what they were accepted with. Whatever goes wrong, nothing changes.

        Args:
            name: it is served under.
            folder: with the run, adapter or export.
            before_it_counts: called once it is open; what that raises is another thing that has gone wrong.

        Raises:
            CanaryError: it does not answer as it did when it was trained or exported.
            RunError, BackboneError, MissingExtraError, NetworkError, SettingsError: it cannot be had.
            DrainingError: the service is ending.
        """
        with self._loading:
            opened = self._open(name, Path(folder))
            card, calibration = opened.classifier.card, opened.classifier.calibration
            served = Served(
                name, opened.classifier.version, card.labels, card.multi_label, card.backbone_name,
                calibration is not None and calibration.fitted, time.time(), opened.warning, calibration,
                tuple(opened.classifier.label_thresholds.tolist()) if card.multi_label else None, name in self._held,
            )  # fmt: skip
            with self._registry:
                if self._draining:
                    raise DrainingError(f"The service is ending; '{name}' is not loaded.")
                before_it_counts()
                if opened.new_lane and self._started:
                    opened.lane.start()
                before = self._held.get(name)
                self._held[name] = _Held(served, opened.classifier, opened.lane)
            if before is not None:
                self._let_go(before)
        return served

    def remove(self, name: str) -> None:
        """Serve it no more; what was accepted is answered.

        Raises:
            UnknownAdapterError: nothing has that name.
        """
        with self._loading:
            with self._registry:
                before = self._find(name)
                del self._held[name]
            self._let_go(before)

    def adapters(self) -> list[Served]:
        """All that are served, the default first."""
        with self._registry:
            return [held.served for held in self._held.values()]

    def get(self, name: str | None) -> Served:
        """One of them; None: the default, which is the first that was loaded.

        Raises:
            UnknownAdapterError: there is none of that name, or none at all.
        """
        with self._registry:
            return self._find(name).served

    async def answer(
        self, name: str | None, texts: Sequence[str], *, abstain: float | None = None, deadline: float | None = None
    ) -> list[Answered]:
        """Classify texts, all by one version of one adapter. Cancelled, what is not being computed yet is dropped.

        Args:
            name: of the adapter; None: the default.
            texts: strings.
            abstain: level of the answer sets, as when a Classifier is called.
            deadline: `time.monotonic()` by which the answer must be there; None: as the settings say.

        Raises:
            UnknownAdapterError: there is no such adapter.
            SettingsError: what is no text, more texts than may wait, or a level that the adapter cannot tell.
            OverloadedError: too much waits already.
            DeadlineError: the answer is not there in time.
            DrainingError, WorkerError: the service is ending, or a forward pass has failed.
        """
        list_texts(texts)
        until = time.monotonic() + self.limits.deadline_seconds if deadline is None else deadline
        try:
            async with asyncio.timeout(until - time.monotonic()):
                return await self._answer(name, tuple(texts), abstain, until)
        except NewsloraError:  # DeadlineError among them, which is a TimeoutError too
            raise
        except TimeoutError:
            raise DeadlineError("The answer was not there in time. Ask for fewer texts, or allow more time.") from None

    def classifier(self, name: str | None) -> Classifier:
        """A classifier of its own in the stock, padded form, for explanations; loaded at first use. Blocks.

        Raises:
            UnknownAdapterError: there is no such adapter.
            SettingsError: an ONNX export, which cannot be explained.
            RunError: its folder holds another version by now.
            NewsloraError: as `load`.
        """
        with self._registry:
            held = self._find(name)
            key = (held.served.name, held.served.version)
            if key in self._explaining:
                self._explaining.move_to_end(key)
                return self._explaining[key]
        check_gradients(held.classifier.card, f"The adapter '{key[0]}'")
        found = Classifier.load(held.classifier.folder, self.limits.device, engine="padded")
        if found.version != held.served.version:
            raise RunError(
                f"The folder of '{key[0]}' holds another version than the one served, {key[1]}. Load it again to explain it."
            )
        with self._registry:
            self._explaining[key] = found
            while len(self._explaining) > KEPT_FOR_EXPLAINING:
                self._explaining.popitem(last=False)
        return found

    def start(self) -> None:
        """Begin to answer; what was asked before waits until now."""
        with self._registry:
            if not self._started:
                self._started = True
                for lane in self._lanes():
                    lane.start()

    def drain(self, within: float | None = None) -> None:
        """Refuse new work, finish what is accepted, stop all threads. Blocks.

        Args:
            within: seconds after which what still waits is given up; None: no end.
        """
        with self._registry:
            self._draining = True
            lanes = self._lanes()
        until = None if within is None else time.monotonic() + within
        for lane in lanes:
            lane.drain(None if until is None else max(0.0, until - time.monotonic()))
        for thread in self._leaving:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def queue(self) -> QueueState:
        """The fullest lane's, for each has bounds of its own: one that is full refuses, whatever the others have room for."""
        none = QueueState(0, 0, self.limits.queue_rows, self.limits.queue_tokens)
        return max(self.queues().values(), key=lambda state: state.share, default=none)

    def queues(self) -> dict[str, QueueState]:
        """What waits before each encoder, by its name; of lanes of one name the fullest's."""
        with self._registry:
            lanes = self._lanes()
        found: dict[str, QueueState] = {}
        for name, on in ((lane.name, lane.waiting) for lane in lanes):
            state = QueueState(on.rows, on.tokens, on.rows_bound, on.tokens_bound)
            found[name] = max(state, found.get(name, state), key=lambda one: one.share)
        return found

    def passes(self) -> dict[str, float]:
        """Forward passes so far: 'passes', and their 'texts', 'tokens' and 'seconds' added up."""
        return self._opener.passes.totals()

    def problems(self) -> list[str]:
        """What is broken, a sentence a lane; it is so for good, and a reason to restart the process."""
        with self._registry:
            return [lane.broken for lane in self._lanes() if lane.broken is not None]

    def _open(self, name: str, folder: Path) -> Opened:
        try:
            return self._opener.open(name, folder)
        except NewsloraError:  # some are OSErrors too
            raise
        except OSError as error:
            raise RunError(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from None

    async def _answer(
        self, name: str | None, texts: tuple[str, ...], abstain: float | None, until: float
    ) -> list[Answered]:
        while True:
            with self._registry:
                held = self._find(name)
            if not texts:
                return []
            classifier = held.classifier
            sets = None if abstain is None else await asyncio.to_thread(classifier.answer_sets, abstain)
            try:
                logits = await self._logits(held, texts, until)
                break
            except DrainingError:  # replaced or removed since it was found: then the name tells of what is there now
                if self._draining:
                    raise
        probabilities = classifier.probabilities(logits)
        members = None if sets is None else await asyncio.to_thread(sets, probabilities)
        return [
            Answered(held.served, classifier.answer(row, None if members is None else members[place]))
            for place, row in enumerate(probabilities)
        ]

    async def _logits(self, held: _Held, texts: tuple[str, ...], until: float) -> Logits:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Logits] = loop.create_future()
        job = Job(held.classifier, texts, until, _finisher(loop, future))
        held.lane.submit(job)
        try:
            return await future
        finally:
            if not job.over:
                held.lane.give_up(job)

    def _find(self, name: str | None) -> _Held:
        if name is None and self._held:
            return next(iter(self._held.values()))
        if name is None or name not in self._held:
            what = "No adapter is loaded." if name is None else f"There is no adapter '{name}'.{near(name, self._held)}"
            there = f" Loaded: {', '.join(list(self._held)[:20])}." if self._held else ""
            raise UnknownAdapterError(what + there)
        return self._held[name]

    def _lanes(self) -> list[Lane]:
        return list({id(held.lane): held.lane for held in self._held.values()}.values())

    def _let_go(self, before: _Held) -> None:
        """End a lane that no adapter uses any more, once it has answered what it accepted."""
        with self._registry:
            used = any(held.lane is before.lane for held in self._held.values())
        if not used:
            self._opener.forget(before.lane)
            thread = threading.Thread(target=before.lane.drain, name="newslora-let-go", daemon=True)
            self._leaving = [*(one for one in self._leaving if one.is_alive()), thread]
            thread.start()


def _finisher(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Logits]"
) -> Callable[[Logits | Exception], None]:
    """Brings an outcome from a worker's thread to whoever awaits it, if anybody still does."""

    def set_outcome(outcome: Logits | Exception) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def finish(outcome: Logits | Exception) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(set_outcome, outcome)

    return finish
