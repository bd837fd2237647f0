"""Requests that wait for their answer, bounded, and the order in which their rows are computed.

Nothing here starts a thread or waits: the lane that owns a queue holds its lock.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newslora.data.tokens import TokenTable
from newslora.errors import OverloadedError, SettingsError
from newslora.metrics.basic import Logits
from newslora.predict.classifier import Classifier

SHARES = 8  # where many requests wait, none has more than this part of a forward pass before each has had its own
CHARACTERS_A_TOKEN = 4  # of a text not tokenised yet; for the bound only
LONGEST_WAIT = 60.0  # seconds that a refused client is told to wait at most
IN_TIME = 0.8  # part of its time in which an answer must be expected; the rest is for what the estimate does not know


class Job:
    """One request: all its texts are answered by the classifier it was accepted with.

    Args:
        classifier: that answers.
        texts: R texts, at least one.
        deadline: `time.monotonic()` from which nobody waits for the answer.
        finish: told (R, C) logits or what went wrong, once at most, from whatever thread.
    """

    def __init__(
        self,
        classifier: Classifier,
        texts: tuple[str, ...],
        deadline: float,
        finish: Callable[[Logits | Exception], None],
    ) -> None:
        self.classifier, self.texts, self.deadline, self._finish = classifier, texts, deadline, finish
        self.over = False  # answered, failed or given up
        limit = classifier.card.max_length if classifier.card.overlap is None else None
        guesses = (len(text) // CHARACTERS_A_TOKEN + 2 for text in texts)
        self.tokens = sum(guess if limit is None else min(guess, limit) for guess in guesses)
        self.windows: TokenTable | None = None
        self.taken = 0  # windows handed out
        self._missing = 0  # windows without logits
        self._counts: NDArray[np.int64] = np.ones(len(texts), dtype=np.int64)
        self._owners: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._sums: Logits | None = None

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def waits(self) -> bool:
        """Whether it has windows that were not handed out."""
        return self.windows is not None and self.taken < len(self.windows)

    @property
    def tokens_left(self) -> int:
        """Of the windows that were not handed out."""
        return 0 if self.windows is None else int(self.windows.offsets[-1] - self.windows.offsets[self.taken])

    def tokenised(self, table: TokenTable) -> None:
        """Take its tokens."""
        self.windows = table.windows
        if table.firsts is not None:
            self._counts = np.diff(table.firsts)
        self._owners = np.repeat(np.arange(len(table)), self._counts)
        self._missing = len(self.windows)
        self.tokens = int(table.offsets[-1] - table.offsets[0])

    def answered(self, window: int, logits: Logits) -> Logits | None:
        """Take one window's (C,) logits; with the last of them, return (R, C): the mean of each row's windows."""
        if self._sums is None:
            self._sums = np.zeros((self.rows, len(logits)), dtype=np.float32)
        self._sums[self._owners[window]] += logits
        self._missing -= 1
        return None if self._missing else (self._sums / self._counts[:, None]).astype(np.float32)

    def end(self, outcome: Logits | Exception) -> None:
        """Finish it, if it has not."""
        if not self.over:
            self.over = True
            self._finish(outcome)


@dataclass(frozen=True, slots=True)
class Piece:
    """One window of one text."""

    job: Job
    window: int

    @property
    def ids(self) -> NDArray[np.int32]:
        assert self.job.windows is not None
        return self.job.windows[self.window]


class Waiting:
    """The jobs of one lane that are accepted and not over.

    Args:
        rows_bound, tokens_bound: how much may wait.
        budget: tokens a pass, at most.
        at_once: passes at the same time.
        small: tokens a pass may take even where they are more than half of what waits; None: the budget.
    """

    def __init__(
        self, rows_bound: int, tokens_bound: int, budget: int, at_once: int = 1, small: int | None = None
    ) -> None:
        self.rows_bound, self.tokens_bound, self.budget, self.at_once = rows_bound, tokens_bound, budget, at_once
        self.small = budget if small is None else small
        self.rate: float | None = None  # tokens a second of all passes together, lately, where much waits
        self.rows = self.tokens = 0  # of all jobs held
        self._ahead = 0  # tokens of all jobs held that a newcomer may have to wait for
        self._held: dict[Job, int] = {}  # accepted and not over -> the tokens counted for it; in order of arrival
        self._raw: dict[Job, None] = {}  # of those, not tokenised yet
        self._ready: dict[Job, None] = {}  # of those, tokenised, with windows to hand out

    @property
    def jobs(self) -> list[Job]:
        """All that are held, in order of arrival."""
        return list(self._held)

    def accept(self, job: Job, now: float) -> None:
        """Let it wait.

        Who would be answered too late is refused at once: were all accepted that the bounds allow, a server asked for more than
        it can do would compute nothing but answers that nobody waits for any more.

        Args:
            now: `time.monotonic()`.

        Raises:
            SettingsError: it is more than may ever wait.
            OverloadedError: too much waits already, or for too long.
        """
        if job.rows > self.rows_bound:
            raise SettingsError(
                f"A request holds {job.rows:,} texts, and the queue holds at most {self.rows_bound:,}. Send fewer at once."
            )
        # a lone request may be of any length: there is nothing it could wait for
        too_long = self._held and self.tokens + job.tokens > self.tokens_bound
        if self.rows + job.rows > self.rows_bound or too_long:
            raise self._refusal(f"the queue holds at most {self.rows_bound:,} texts and {self.tokens_bound:,} tokens")
        expected, left = self._seconds(self._ahead + job.tokens), job.deadline - now
        if self._held and expected > IN_TIME * left:
            raise self._refusal(
                f"an answer is expected in {expected:.1f} s, and its deadline is in {max(0.0, left):.1f} s"
            )
        self._held[job], self._raw[job] = job.tokens, None
        self.rows += job.rows
        self._count(job.tokens, 1)

    def retry_after(self) -> float:
        """Seconds after which half of what waits should be done, at the recent rate; 1 at least."""
        if not self.rate:
            return 1.0
        return min(max(1.0, self.tokens / 2 / self.rate), LONGEST_WAIT)

    def worked(self, tokens: int, seconds: float) -> None:
        """Learn the rate from a forward pass.

        A small pass, or the first of a process, makes fewer tokens a second than those that come where much waits: a pass of
        half the budget tells the rate, another can only raise it.
        """
        now, full = tokens * self.at_once / max(seconds, 1e-6), 2 * tokens >= self.budget
        if self.rate is None:
            self.rate = now if full else None
        elif full or now > self.rate:
            self.rate += 0.2 * (now - self.rate)

    def raw(self) -> Iterator[Job]:
        """Those not tokenised, in order of arrival."""
        return iter(self._raw)

    def ready(self, job: Job) -> None:
        """It has its tokens now."""
        if job in self._held:
            del self._raw[job]
            self._ready[job] = None
            self._count(self._held[job], -1)
            self._held[job] = job.tokens
            self._count(job.tokens, 1)

    def forget(self, job: Job) -> None:
        """It waits no more."""
        if job in self._held:
            self.rows -= job.rows
            self._count(self._held.pop(job), -1)
            self._raw.pop(job, None)
            self._ready.pop(job, None)

    def late(self, now: float, among: int = 1) -> list[Job]:
        """Jobs whose deadline has passed, or is expected to pass before the next forward pass ends.

        The oldest is tried even so: a rate that was slow for a while is learnt anew by computing only.
        """
        ends = now + self._seconds(self._next(among) * self.at_once)
        ready = list(self._ready)
        return [job for job in (*self._raw, *ready[:1]) if job.deadline <= now] + [
            job for job in ready[1:] if job.deadline <= ends
        ]

    def take(self, among: int = 1) -> list[Piece]:
        """Windows for one forward pass, within the budget (a longer one alone), and no more than its part of what waits where
        it is one `among` several that could begin now.

        First come, first served, but by turns: each job in order of arrival gives a share, then the oldest give the rest.
        So a job of a thousand windows holds nobody up for longer than a pass, and nobody holds it up.
        """
        pieces: list[Piece] = []
        left = budget = self._next(among)
        for share in (budget // min(max(len(self._ready), 1), SHARES), budget):
            for job in list(self._ready):
                given = 0
                while job.waits and given < share:
                    piece = Piece(job, job.taken)
                    size = len(piece.ids)
                    if pieces and size > left:
                        return pieces
                    pieces.append(piece)
                    job.taken += 1
                    given, left = given + size, left - size
                if not job.waits:
                    del self._ready[job]
        return pieces

    def _refusal(self, why: str) -> OverloadedError:
        after = self.retry_after()
        waits = f"{self.rows:,} texts of some {self.tokens:,} tokens are queued already"
        return OverloadedError(f"{waits}; {why}. Try again in {after:.0f} s.", after)

    def _next(self, among: int) -> int:
        """Tokens of the next pass, more or less.

        All of a pass are answered at its end, so who is first in the queue waits for who is last, and time is nearly that of
        the tokens: a pass takes half of what waits. Small ones cost more a token; where load grows, so does that half.
        """
        waiting = sum(job.tokens_left for job in self._ready)
        return min(self.budget, -(-waiting // among), max(self.small, -(-waiting // 2)))

    def _seconds(self, tokens: int) -> float:
        """Until so many are computed, at the recent rate; 0 where none is known."""
        return tokens / self.rate if self.rate else 0.0

    def _count(self, tokens: int, sign: int) -> None:
        self.tokens += sign * tokens
        # a newcomer has its turn in every pass, so of a long job it waits for a pass's worth and no more
        self._ahead += sign * min(tokens, self.budget)
