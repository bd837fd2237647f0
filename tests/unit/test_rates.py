"""Rates: how long to wait, whom they concern, and what the wall clock does to them."""

import time

import pytest

from newslora.serving.observed import Observed
from newslora.serving.problems import Problem
from newslora.serving.rates import Rates
from newslora.serving.settings import ServeSettings


def test_a_clock_that_is_set_back_locks_no_key_out_and_bends_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    real, behind = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() - behind)
    rates, observed = (
        Rates(ServeSettings(rate_requests=2)),
        Observed(ServeSettings(), iter((0.0, 30.0, 30.0, 30.0)).__next__),
    )
    for _ in range(2):
        rates.request("desk")
    behind = 0.5  # as clocks are corrected all the time
    with pytest.raises(Problem, match="used up"):
        rates.request("desk")
    behind = 3600
    rates.request("desk")
    rates.request("desk")
    with pytest.raises(Problem, match="used up"):
        rates.request("desk")
    observed.request(0.1, 6)
    assert observed.load()["texts_per_second"] == pytest.approx(6 / 30)


def test_who_is_refused_waits_for_the_oldest_to_leave_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    rates = Rates(ServeSettings(rate_requests=2))
    for _ in range(2):
        rates.request("desk")
        now[0] += 20
    with pytest.raises(Problem, match="Try again in 20 seconds"):
        rates.request("desk")
    now[0] += 21
    rates.request("desk")


def test_texts_being_answered_count_for_their_own_key() -> None:
    rates = Rates(ServeSettings(rate_rows=256))
    with rates.rows("desk", 200), rates.rows("night", 200):
        with pytest.raises(Problem, match="The key 'desk' has used up its 256 texts"), rates.rows("desk", 57):
            pass
        with rates.rows("desk", 56):
            pass
