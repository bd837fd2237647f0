"""What the wall clock does to rates."""

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
