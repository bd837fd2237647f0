"""The queue before an encoder, on a clock of its own: what it accepts, and what becomes of a load beyond what can be done."""

import heapq
import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from newslora.data.tokens import TokenTable
from newslora.errors import OverloadedError
from newslora.serving.jobs import Job, Waiting

BUDGET, RATE = 1000, 5000.0  # tokens a pass; tokens a second
TOKENS, DEADLINE = 50, 10.0  # of a request; seconds


def job(deadline: float, tokens: int = TOKENS, windows: int = 1) -> Job:
    """A request of one text, tokenised by `tokenise`."""
    card: Any = SimpleNamespace(card=SimpleNamespace(max_length=tokens * windows, overlap=None))
    return Job(card, ("word " * tokens * windows,), deadline, lambda outcome: None)


def accept(waiting: Waiting, one: Job, now: float = 0.0, windows: int = 1) -> None:
    waiting.accept(one, now)
    size = one.classifier.card.max_length // windows
    firsts = None if windows == 1 else np.array([0, windows])
    one.tokenised(TokenTable(np.zeros(size * windows, dtype=np.int32), np.arange(windows + 1) * size, firsts))
    waiting.ready(one)


def serve(
    arrivals: list[float],
    pass_seconds: Any,
    at_once: int = 2,
    small: int | None = None,
    took: list[float] | None = None,
) -> tuple[list[float], int, int]:
    """Run a queue on a clock of its own -> (when those in time were answered, answers that came too late, refused).

    What each answer took, in seconds, is added to `took`.
    """
    waiting = Waiting(100_000, 100_000_000, BUDGET, at_once, small)
    took = [] if took is None else took
    running: list[tuple[float, int, float, list[Any]]] = []  # passes: their end, a number, their seconds, their pieces
    answered: list[float] = []
    late = refused = 0
    number = itertools.count()
    coming = iter([*arrivals, float("inf")])
    due = next(coming)
    while due < float("inf") or running:
        if not running or due <= running[0][0]:
            now = due
            try:
                accept(waiting, job(now + DEADLINE), now)
            except OverloadedError:
                refused += 1
            due = next(coming)
        else:
            now, _, seconds, pieces = heapq.heappop(running)
            waiting.worked(sum(len(piece.ids) for piece in pieces), seconds)
            for piece in pieces:
                waiting.forget(piece.job)
                took.append(now - (piece.job.deadline - DEADLINE))
                answered.append(now) if now <= piece.job.deadline else None
                late += now > piece.job.deadline
        while len(running) < at_once:
            free = at_once - len(running)
            for one in waiting.late(now, free):
                waiting.forget(one)
            if not (pieces := waiting.take(free)):
                break
            seconds = pass_seconds(now, sum(len(piece.ids) for piece in pieces)) * at_once
            heapq.heappush(running, (now + seconds, next(number), seconds, pieces))
    return answered, late, refused


def poisson(rate: float, seconds: float) -> list[float]:
    draw, now, times = random.Random(3), 0.0, []
    while (now := now + draw.expovariate(rate)) < seconds:
        times.append(now)
    return times


@pytest.mark.parametrize("load", [0.6, 0.8])
def test_who_comes_first_does_not_wait_for_the_rows_behind_it(load: float) -> None:
    """Nothing is lost at the median, and the slowest hundredth is answered sooner than where a pass takes all that waits."""
    arrivals = poisson(load * RATE / TOKENS, 300)
    spans: dict[int | None, list[float]] = {None: [], 192: []}
    for small, took in spans.items():
        # a pass costs what 12 tokens do besides its own, as of a base-size encoder in eight bits (docs/log.md)
        answered, late, _ = serve(arrivals, lambda now, tokens: (tokens + 12) / RATE, small=small, took=took)
        assert (len(answered), late) == (len(arrivals), 0)
    assert np.percentile(spans[192], 50) < 1.03 * np.percentile(spans[None], 50)
    assert np.percentile(spans[192], 99) < 0.85 * np.percentile(spans[None], 99)


def test_a_pass_takes_half_of_what_waits_and_no_less_than_a_small_one() -> None:
    waiting = Waiting(1000, 1_000_000, BUDGET, at_once=2, small=200)
    for _ in range(100):
        accept(waiting, job(DEADLINE))
    sizes = []
    while pieces := waiting.take():
        sizes.append(sum(len(piece.ids) for piece in pieces))
    assert sizes == [BUDGET] * 4 + [500, 250, 200, 50]  # of 5,000 tokens: the budget, half of 1,000, of 500, and so on
    for _ in range(4):
        accept(waiting, job(DEADLINE))
    assert len(waiting.take(2)) == 2  # beside another that could begin, its part of little as before


def test_a_load_twice_what_can_be_done_leaves_answers_at_the_full_rate() -> None:
    """First come, first served without it, every answer comes at its deadline and nearly none in time."""
    answered, late, refused = serve(poisson(2 * RATE / TOKENS, 60), lambda now, tokens: tokens / RATE)
    assert len(answered) > 0.97 * 60 * RATE / TOKENS
    assert late < 10
    assert refused > 0.4 * 2 * 60 * RATE / TOKENS


def test_a_machine_that_turns_slow_goes_on_answering_and_recovers() -> None:
    def seconds(now: float, tokens: int) -> float:
        return tokens / RATE * (4 if 20 < now < 60 else 1)  # at 0.9 of the rate asked for

    answered, late, refused = serve(poisson(0.9 * RATE / TOKENS, 100), seconds)
    slow = sum(35 < now < 60 for now in answered)  # once what it had accepted before is over
    assert slow > 0.9 * 25 * RATE / TOKENS / 4
    after = sum(75 < now < 100 for now in answered)
    assert after > 0.95 * 25 * 0.9 * RATE / TOKENS
    assert late < 0.05 * len(answered)
    assert refused


def test_a_load_that_can_be_done_is_never_refused() -> None:
    arrivals = poisson(0.8 * RATE / TOKENS, 60)
    # small passes cost more a token, as they do; the first ones of a process much more
    answered, late, refused = serve(arrivals, lambda now, tokens: tokens / RATE + 0.004 + 0.3 * (now < 1))
    assert (len(answered), late, refused) == (len(arrivals), 0, 0)


def test_an_answer_expected_too_late_is_refused_with_the_numbers() -> None:
    waiting = Waiting(100, 1_000_000, BUDGET)
    waiting.worked(BUDGET, 1.0)
    for _ in range(4):
        accept(waiting, job(DEADLINE, 900))
    accept(waiting, job(DEADLINE, 900), now=0.0)
    with pytest.raises(
        OverloadedError, match=r"5 texts of some 4,500 tokens .* in 5\.4 s, .* deadline is in 6\.0 s"
    ) as told:
        waiting.accept(job(6.0, 900), 0.0)
    assert told.value.retry_after == 2.25
    accept(waiting, job(8.0, 900))
    for one in waiting.jobs:
        waiting.forget(one)
    accept(waiting, job(0.1, 900))  # alone: there is nothing it could wait for


def test_a_long_request_holds_a_newcomer_up_for_a_pass_only() -> None:
    waiting = Waiting(100, 1_000_000, BUDGET)
    waiting.worked(BUDGET, 1.0)
    accept(waiting, job(60.0, 100, windows=200), windows=200)  # 20 s of work
    accept(waiting, job(2.0))
    assert TOKENS in [piece.job.tokens for piece in waiting.take()]


def test_passes_part_what_is_left_and_each_request_has_its_share_of_one() -> None:
    waiting = Waiting(100, 1_000_000, BUDGET)
    accept(waiting, job(60.0, 100, windows=4), windows=4)
    assert [len(waiting.take(among=2)) for _ in range(3)] == [2, 1, 1]  # half of what is left, not of what there was
    crowd = Waiting(100, 1_000_000, BUDGET)
    for _ in range(2):
        accept(crowd, job(60.0, 100, windows=20), windows=20)
    taken = [piece.job for piece in crowd.take()]
    assert [taken.count(one) for one in crowd.jobs] == [5, 5]


def test_small_passes_raise_the_rate_and_never_lower_it() -> None:
    waiting = Waiting(100, 1_000_000, BUDGET, at_once=2)
    waiting.worked(10, 1.0)
    assert waiting.rate is None  # of a lone request it is no measure
    waiting.worked(BUDGET // 2, 1.0)
    assert waiting.rate == BUDGET
    waiting.worked(10, 1.0)
    assert waiting.rate == BUDGET
    waiting.worked(10, 0.01)
    assert waiting.rate == BUDGET * 1.2
    waiting.worked(BUDGET, 4.0)
    assert waiting.rate == pytest.approx(BUDGET * (1.2 + 0.2 * (0.5 - 1.2)))


def test_the_oldest_is_tried_however_slow_it_was_before() -> None:
    waiting = Waiting(100, 1_000_000, BUDGET)
    accept(waiting, job(5.0))
    accept(waiting, job(5.0))
    waiting.worked(BUDGET, 1000.0)  # a token a second
    assert waiting.late(0.0) == waiting.jobs[1:]
    assert waiting.late(5.0) == waiting.jobs
