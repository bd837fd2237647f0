"""The server's page in a real browser where things go wrong or slowly: errors, waits, keys, answers that take their time."""

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]


def test_errors_are_sentences_and_trying_again_goes_on(visit: Visiting) -> None:
    one = visit().open()
    leads = {
        403: "This key may not do that.", 413: "This is more than the server takes at once.",
        422: "The server cannot use this request.", 500: "The server failed at this request.",
        503: "The server is not ready: it is starting, stopping or has too much to do.",
        504: "The answer took longer than the server allows.", 418: "The server answered with status 418.",
    }  # fmt: skip
    one.page.fill("#headline-text", one.place.unsure)
    for status, lead in leads.items():
        one.refuse("/v1/classify", status, f"It said {status}.", times=1)
        one.page.press("#headline-text", "Enter")
        one.see("#headline-status[data-kind=error]", f"{lead} It said {status}.")
        one.hear(f"{lead} It said {status}.")
    one.press("Try again")
    one.see(".answer h3")


def test_no_network_and_answers_of_a_proxy_are_told(visit: Visiting) -> None:
    one = visit()
    one.page.route("**/v1/adapters", lambda route: route.abort(), times=1)
    one.open(ready=False)
    one.see("#adapter-status", "The server cannot be reached.")
    one.press("Try again")
    one.see("#adapter-facts", one.place.labels[0])
    one.page.route("**/v1/classify", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"), times=1)
    one.classify(one.place.unsure)
    one.see("#headline-status", "The server answered with status 502.")
    one.page.route("**/v1/classify", lambda route: route.fulfill(status=200, body="<h1>Login</h1>"), times=1)
    one.press("Try again")
    one.see("#headline-status", "The server's answer could not be read.")


def test_too_many_requests_wait_as_long_as_the_server_says(visit: Visiting) -> None:
    one = visit().open()
    one.refuse("/v1/classify", 429, "Try again in 1 s.", times=1, **{"Retry-After": "1"})
    one.classify(one.place.unsure)
    one.see("#headline-status", "That was too many requests for now. Trying again in 1 second.")
    one.see(".answer h3")
    one.refuse("/v1/classify", 503, "The queue is full.", times=1, **{"Retry-After": "900"})  # nobody waits so long
    one.classify(one.place.unsure)
    one.see("#headline-status[data-kind=error]", "The queue is full.")


def test_a_time_to_come_back_may_be_told_as_a_date(visit: Visiting) -> None:
    one = visit().open()
    later = formatdate(time.time() + 60, usegmt=True)  # as proxies tell it
    one.refuse("/v1/classify", 503, "It is busy.", times=1, **{"Retry-After": later})
    one.classify(one.place.unsure)
    one.see("#headline-status", re.compile(r"It is busy\. Trying again in (60|[345]\d) seconds\."))


def test_words_of_another_version_mark_nothing(visit: Visiting) -> None:
    one = visit()

    def replaced(route: Any) -> None:
        asked = route.request.post_data_json
        answer = route.fetch().json()
        route.fulfill(json=answer | ({"version": "another"} if asked.get("explain") else {}))

    one.page.route("**/v1/classify", replaced)
    one.open()
    one.classify(one.place.sure[one.place.labels[1]])
    one.see(".answer .told[data-kind=error]", "The adapter was replaced meanwhile: classify again.")
    one.count(".answer > .marked span[class^=for]", 0)


def test_slow_answers_show_that_something_happens_and_can_be_cancelled(visit: Visiting) -> None:
    one = visit().open()
    held = one.hold("/v1/classify")
    one.classify(one.place.unsure)
    one.see("#headline-status[aria-busy]", "Asking the server…")
    one.see("#headline-status", re.compile("Asking the server… [23]\u00a0s"))
    one.press("Cancel")
    one.see("#headline-status", "Cancelled.")
    assert len(held) == 1
    one.press("Try again")
    one.until(lambda: len(held) == 2)
    held[1].continue_()
    one.see(".answer h3")


def test_a_newer_request_supersedes_an_older_one(visit: Visiting) -> None:
    one = visit().open()
    held = one.hold("/v1/classify")
    first, second = one.place.labels[:2]
    one.classify(one.place.sure[first])
    one.until(lambda: len(held) == 1)
    one.classify(one.place.sure[second])
    one.until(lambda: len(held) == 2)
    held[1].continue_()
    one.see(".answer h3", second)
    one.until(lambda: held[0].request.failure)  # the older one was given up, not left to answer late
    assert one.count(".answer", 1).locator("h3").inner_text() == second
