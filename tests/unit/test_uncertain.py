"""The least sure answers of the last hour."""

import pytest

from newslora.serving.uncertain import KEPT_SECONDS, UncertainItems, sureness


def kept(limit: int) -> UncertainItems:
    items = UncertainItems(limit)
    for adapter in ("news", "other", "topics"):
        items.loaded(adapter)
    return items


def add(items: UncertainItems, text: str, sure: float, now: float, adapter: str = "news") -> None:
    items.add(adapter, "v", text, ("World",), sure, {"World": sure, "Sports": 1 - sure}, now=now)


def texts(items: UncertainItems, now: float, adapter: str | None = None) -> list[str]:
    return [item.text for item in items.least_sure(adapter, 10, now)]


def test_the_least_sure_stay_and_each_text_once() -> None:
    items = kept(2)
    for text, sure in (("a", 0.9), ("b", 0.7), ("c", 0.8), ("d", 0.95), ("b", 0.75)):
        add(items, text, sure, now=100)
    assert texts(items, 100) == ["b", "c"]
    add(items, "x", 0.6, now=100, adapter="other")
    assert texts(items, 100) == ["x", "b", "c"]
    assert texts(items, 100, "news") == ["b", "c"]
    items.corrected("other", "b")
    assert texts(items, 100, "news") == ["b", "c"]  # another adapter's answer
    items.corrected("news", "x")
    items.corrected("news", "b")
    assert texts(items, 100) == ["x", "c"]
    items.removed("news")
    assert texts(items, 100) == ["x"]
    add(items, "answered while it was removed", 0.5, now=100)
    assert texts(items, 100) == ["x"]
    items.loaded("news")
    add(items, "e", 0.5, now=100)
    assert texts(items, 100) == ["e", "x"]


def test_after_an_hour_a_surer_one_takes_its_place() -> None:
    items = kept(1)
    add(items, "old", 0.6, now=0)
    add(items, "sure", 0.9, now=KEPT_SECONDS - 1)
    assert texts(items, KEPT_SECONDS - 1) == ["old"]
    assert texts(items, KEPT_SECONDS + 1) == []
    add(items, "sure", 0.9, now=KEPT_SECONDS + 1)
    assert texts(items, KEPT_SECONDS + 1) == ["sure"]


def test_where_each_label_is_decided_by_itself_the_closest_call_counts() -> None:
    items = kept(5)
    halves = (0.5, 0.5)
    items.add("topics", "v", "surely none", (), 0.01, {"x": 0.01, "y": 0.005}, thresholds=halves, now=0)
    items.add("topics", "v", "a close call", ("x",), 0.99, {"x": 0.99, "y": 0.48}, thresholds=halves, now=0)
    assert texts(items, 0) == ["a close call", "surely none"]


def test_a_call_is_close_to_the_labels_own_threshold() -> None:
    rare, items = (0.5, 0.1), kept(5)
    for text, share in (("given", 0.6), ("not given", 0.0), ("at its threshold", 0.11), ("just below", 0.08)):
        items.add("topics", "v", text, (), share, {"x": 0.001, "y": share}, thresholds=rare, now=0)
    assert texts(items, 0) == ["at its threshold", "just below", "given", "not given"]
    assert [sureness({"x": share}, (0.3,)) for share in (0.0, 0.3, 0.65, 1.0)] == pytest.approx([1, 0, 0.5, 1])
    assert [sureness({"x": 1.0}, (threshold,)) for threshold in (0.0, 1.0)] == [1, 0]  # neither divides by nothing


def test_none_are_kept_where_none_are_wanted() -> None:
    items = kept(0)
    add(items, "a", 0.5, now=0)
    assert texts(items, 0) == []
