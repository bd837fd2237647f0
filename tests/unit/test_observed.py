"""What the server has answered lately, on a clock of its own."""

from typing import Any

import pytest

from newslora.serving import observed as module
from newslora.serving.drift import make_baseline
from newslora.serving.observed import MINUTE, Observed
from newslora.serving.settings import ServeSettings


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def observed(clock: Clock) -> Observed:
    made = Observed(ServeSettings(), clock)
    made.loaded("news", "1", None)
    return made


def told(observed: Observed, since: str = "last_hour") -> dict[str, Any]:
    found: dict[str, Any] = observed.adapters()["news"][since]
    return found


def test_an_hour_is_sixty_minutes_and_the_start_is_kept(observed: Observed, clock: Clock) -> None:
    for minute, label in ((0, "World"), (0, "World"), (30, "Sports"), (59, "Sports")):
        clock.now = minute * MINUTE
        observed.row("news", "1", (label,), 0.8, False)
    assert told(observed)["labels"] == {"World": 2, "Sports": 2}
    clock.now = 60 * MINUTE
    assert told(observed)["labels"] == {"Sports": 2}
    clock.now = 90 * MINUTE
    assert told(observed) == {"texts": 1, "labels": {"Sports": 1}, "mean_confidence": 0.8, "share_abstained": 0.0}
    clock.now = 1000 * MINUTE
    assert told(observed) == {"texts": 0, "labels": {}, "mean_confidence": None, "share_abstained": None}
    assert told(observed, "since_start")["labels"] == {"World": 2, "Sports": 2}


def test_shares_are_of_texts_however_many_labels_they_have(observed: Observed) -> None:
    for labels, confidence, abstained in ((("World", "Sports"), 0.9, False), ((), 0.6, True), ((), 0.3, False)):
        observed.row("news", "1", labels, confidence, abstained)
    hour = told(observed)
    assert (hour["texts"], hour["labels"]) == (3, {"World": 1, "Sports": 1})
    assert hour["mean_confidence"] == pytest.approx(0.6)
    assert hour["share_abstained"] == pytest.approx(1 / 3)


def test_each_version_has_its_own_numbers(observed: Observed) -> None:
    observed.row("news", "1", ("World",), 0.9, False)
    observed.loaded("news", "1", None)  # the same once more
    assert told(observed)["texts"] == 1
    observed.loaded("news", "2", make_baseline([("World",)], [0.9], "validation rows"))
    assert told(observed)["texts"] == 0
    assert observed.drift()["news"]["baseline"] == "validation rows"
    observed.row("news", "1", ("World",), 0.9, False)  # on its way when it was replaced
    assert told(observed)["texts"] == 0
    assert observed.drift()["news"]["window_answers"] == 0
    observed.row("news", "2", ("World",), 0.9, False)
    assert told(observed)["texts"] == observed.drift()["news"]["window_answers"] == 1
    observed.removed("news")
    assert observed.adapters() == {}


def test_rates_and_times_are_of_the_last_minute(
    observed: Observed, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now = 10.0
    observed.request(5.0, 100)
    assert observed.load() == {"requests_per_second": 0.1, "texts_per_second": 10, "p50_ms": 5000, "p99_ms": 5000}
    clock.now = 100.0
    for _ in range(6):
        observed.request(0.1, 2)
    load = observed.load()
    assert (load["requests_per_second"], load["texts_per_second"]) == (0.1, 0.2)
    assert load["p99_ms"] == pytest.approx(100)  # the slow one was long ago
    monkeypatch.setattr(module, "REQUESTS_KEPT", 4)
    busy = Observed(ServeSettings(), clock)
    for second in range(20):
        clock.now = 100.0 + second
        busy.request(0.1, 3)
    assert busy.load()["requests_per_second"] == pytest.approx(4 / 3)  # the newest four, in three seconds
