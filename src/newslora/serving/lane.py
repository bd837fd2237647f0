"""A lane: the queue before one encoder, a thread that tokenises ahead, and the threads that compute.

A forward pass takes of what has piled up when its thread is free; nothing is ever waited for, so a lone request runs at once.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from newslora.errors import DeadlineError, DrainingError, NewsloraError, WorkerError
from newslora.metrics.basic import Logits
from newslora.serving.jobs import Job, Piece, Waiting
from newslora.serving.settings import ServeSettings

Compute = Callable[[Sequence[Piece]], list[Logits]]  # windows -> (C,) logits of each
TOGETHER = 64  # requests tokenised in one call
CHARACTERS_TOGETHER = 200_000  # but no more than this and one
FAILURES = 3  # passes in a row without an answer after which a lane is given up


class Passes:
    """Forward passes of all lanes so far, added up; any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = {"passes": 0.0, "texts": 0.0, "tokens": 0.0, "seconds": 0.0}

    def add(self, pieces: Sequence[Piece], seconds: float) -> None:
        """One pass: its windows of texts, and the time it took."""
        with self._lock:
            self._totals["passes"] += 1
            self._totals["texts"] += len(pieces)
            self._totals["tokens"] += sum(len(piece.ids) for piece in pieces)
            self._totals["seconds"] += seconds

    def totals(self) -> dict[str, float]:
        with self._lock:
            return dict(self._totals)


class Lane:
    """What one encoder computes.

    Args:
        name: for messages and threads.
        compute: a forward pass; called from `at_once` threads.
        budget: tokens a pass.
        limits: bounds of the queue.
        passes: where passes are counted.
        at_once: forward passes at the same time.
        small: tokens a pass may take before it is held to half of what waits; None: the budget.
    """

    def __init__(
        self,
        name: str,
        compute: Compute,
        budget: int,
        limits: ServeSettings,
        passes: Passes,
        at_once: int,
        small: int | None,
    ) -> None:
        self.name, self.compute, self.passes = name, compute, passes
        # held by whoever uses a tokenizer of this lane: none can be used twice at once
        self.tokenising = threading.Lock()
        self.waiting = Waiting(limits.queue_rows, limits.queue_tokens, budget, at_once, small)
        self.broken: str | None = None  # why it can answer no more
        self._draining = False
        self._lock = threading.RLock()  # guards all of `waiting` and the above
        # who is woken for nothing takes Python's lock from those who work: so each waits for what concerns it
        self._asked = threading.Condition(self._lock)  # the thread that tokenises
        self._tokenised = threading.Condition(self._lock)  # those that compute
        self._free = 0  # threads that could begin a pass
        self._threads = [
            threading.Thread(target=self._run, args=(part,), name=f"newslora-{kind}-{name}", daemon=True)
            for kind, part in (("tokens", self._tokenise), *[("forward", self._forward)] * at_once)
        ]

    def start(self) -> None:
        """Begin to work; a lane works once."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            OverloadedError, SettingsError: as `Waiting.accept`.
            DrainingError: the lane is ending.
            WorkerError: the lane is broken.
        """
        with self._lock:
            if self.broken is not None:
                raise WorkerError(self.broken)
            if self._draining:
                raise DrainingError("The service is ending and takes nothing new. Ask another, or try again later.")
            self.waiting.accept(job, time.monotonic())
            self._asked.notify()

    def give_up(self, job: Job) -> None:
        """Nobody waits for it any more: what of it is not being computed already is dropped."""
        with self._lock:
            job.over = True
            self.waiting.forget(job)
            self._left_over()

    def drain(self, within: float | None = None) -> None:
        """Take nothing new, finish what waits, end the threads.

        Args:
            within: seconds after which what still waits is given up (DrainingError); None waits for all.
        """
        with self._lock:
            self._draining = True
            self._wake_all()
        until = None if within is None else time.monotonic() + within
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if until is None else max(0.0, until - time.monotonic()))
        self._give_up_all(DrainingError, "The service ended before this was its turn. Ask again.")

    def _run(self, part: Callable[[], None]) -> None:
        """A thread's whole life: whatever ends it other than draining breaks the lane, and nobody is left waiting."""
        try:
            part()
        except BaseException as error:  # noqa: BLE001  # told to every caller
            self._break(error)

    def _break(self, error: BaseException) -> None:
        with self._lock:
            self.broken = (
                f"The worker of {self.name} has failed ({type(error).__name__}: {error}). Restart the service."
            )
        self._give_up_all(WorkerError, self.broken)

    def _give_up_all(self, kind: type[NewsloraError], sentence: str) -> None:
        with self._lock:
            for job in self.waiting.jobs:
                self.waiting.forget(job)
                job.end(kind(sentence))  # one each: whoever raises it adds a traceback
            self._wake_all()

    def _wake_all(self) -> None:
        self._asked.notify_all()
        self._tokenised.notify_all()

    def _left_over(self) -> None:
        """A job is over: where that was the last one, the threads of a lane that drains may end."""
        if self._draining:
            self._tokenised.notify_all()

    def _tokenise(self) -> None:
        while (jobs := self._next_raw()) is not None:
            for same in jobs:
                self._tokenise_together(same)

    def _next_raw(self) -> list[list[Job]] | None:
        """The next jobs without tokens, those of one tokenizer and limit together; None when there will be none."""
        with self._lock:
            while not (some := list(itertools.islice(self.waiting.raw(), TOGETHER))):
                if self._draining or self.broken is not None:
                    return None
                self._asked.wait()
        groups: dict[tuple[int, int, int | None], list[Job]] = {}
        characters = 0
        for job in some:
            card = job.classifier.card
            groups.setdefault((id(job.classifier.tokenizer), card.max_length, card.overlap), []).append(job)
            characters += sum(map(len, job.texts))
            if characters > CHARACTERS_TOGETHER:
                break
        return list(groups.values())

    def _tokenise_together(self, jobs: list[Job]) -> None:
        try:
            with self.tokenising:
                rows = jobs[0].classifier.rows([text for job in jobs for text in job.texts])
        except Exception as error:  # noqa: BLE001  # told to the caller
            if len(jobs) > 1:  # whose text it was
                for job in jobs:
                    self._tokenise_together([job])
                return
            self._failed(jobs[0], error)
            return
        start = 0
        for job in jobs:
            job.tokenised(rows.tokens.part(start, start + job.rows))
            start += job.rows
        with self._lock:
            for job in jobs:
                self.waiting.ready(job)
            self._tokenised.notify_all()

    def _forward(self) -> None:
        failures = 0
        while (pieces := self._next_pieces()) is not None:
            began = time.perf_counter()
            done = self._compute_or_fail(pieces)
            seconds = time.perf_counter() - began
            self.passes.add(pieces, seconds)
            failures = 0 if done else failures + 1
            if failures == FAILURES:
                raise RuntimeError(f"{FAILURES} forward passes in a row gave no answer")
            with self._lock:
                self.waiting.worked(sum(len(piece.ids) for piece in pieces), seconds)

    def _next_pieces(self) -> list[Piece] | None:
        """What the next pass computes; None when there will be nothing more."""
        with self._lock:
            self._free += 1
            try:
                while True:
                    self._drop_late()
                    if pieces := self.waiting.take(self._free):
                        return pieces
                    if self.broken is not None or (self._draining and not self.waiting.jobs):
                        return None
                    self._tokenised.wait()
            finally:
                self._free -= 1

    def _drop_late(self) -> None:
        for job in self.waiting.late(time.monotonic(), self._free):
            self.waiting.forget(job)
            job.end(DeadlineError("The answer would come after its deadline, so it was not computed. Ask again later."))
            self._left_over()

    def _compute_or_fail(self, pieces: Sequence[Piece]) -> bool:
        """Whether any of them was answered. Where a pass fails, each job is tried alone, and fails alone."""
        try:
            answers = self.compute(pieces)
        except Exception as error:  # noqa: BLE001  # told to the caller
            jobs = {piece.job for piece in pieces}
            if len(jobs) == 1:
                self._failed(pieces[0].job, error)
                return False
            tried = [self._compute_or_fail([piece for piece in pieces if piece.job is job]) for job in jobs]
            return any(tried)
        with self._lock:
            for piece, logits in zip(pieces, answers, strict=True):
                if (whole := piece.job.answered(piece.window, logits)) is not None:
                    self.waiting.forget(piece.job)  # before anybody hears of it
                    piece.job.end(whole)
            self._left_over()
        return True

    def _failed(self, job: Job, error: Exception) -> None:
        told = error
        if not isinstance(error, NewsloraError):
            told = WorkerError(f"This request could not be computed ({type(error).__name__}: {error}).")
            told.__cause__ = error
        with self._lock:
            self.waiting.forget(job)
            job.end(told)
            self._left_over()
