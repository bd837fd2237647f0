"""Corrections sent from the page in a real browser: each is kept, and only what somebody saw is sent."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]


def test_going_back_to_a_choice_sends_it_anew(visit: Visiting) -> None:
    one = visit().open()
    first, second, third = one.place.labels[:3]
    one.classify(one.place.sure[second])
    for label in (first, third, first):  # the server keeps an id once, and the newest correction of a text counts
        one.press(label)
        one.see(".state", f"Corrected to {label}. Kept as feedback.")
    ids = [body["id"] for body in one.bodies("/v1/feedback")]
    assert len(set(ids)) == 3


def test_only_a_lost_answer_is_sent_again_under_its_id(visit: Visiting) -> None:
    one = visit().open()
    first, second = one.place.labels[:2]
    one.classify(one.place.sure[second])
    one.see(".answer h3", second)
    one.page.route("**/v1/feedback", lambda route: route.abort(), times=1)
    one.press(first)
    one.see(".state", "Not sent.")
    one.press(first)
    one.see(".state", f"Corrected to {first}.")
    one.page.route("**/v1/feedback", lambda route: route.abort(), times=1)
    one.press(second)
    one.see(".state", "Not sent.")
    one.press(first)  # the lost one may have been kept: this must come behind it
    one.see(".state", f"Corrected to {first}.")
    ids = [body["id"] for body in one.bodies("/v1/feedback")]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
