"""Very long texts on the page: what stands below them stays near, and where reading ended is told."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]


def test_a_long_text_scrolls_in_its_place_by_keyboard_too(visit: Visiting) -> None:
    one = visit("phone").open()
    texts = [one.place.unsure, "and so it goes on " * 600]
    one.page.fill("#headline-text", "\n".join(texts))
    one.press("Classify")
    one.count(".answer", 2)
    one.until(lambda: one.page.locator(".answer [tabindex='0']").count())
    short, long = one.page.locator(".answer > .marked").all()
    assert short.get_attribute("tabindex") is None
    assert long.get_attribute("aria-label") == "The text"
    assert one.page.locator(".answer").nth(1).bounding_box()["height"] < 1000
    long.focus()
    one.page.keyboard.press("End")
    one.until(lambda: long.evaluate("one => one.scrollTop > 0"))
    one.page.emulate_media(media="print")
    assert long.evaluate("one => one.scrollHeight === one.clientHeight")  # paper does not scroll


def test_what_the_classifier_did_not_read_is_told(visit: Visiting) -> None:
    one = visit().open()
    word = "A" * 60
    read, cut = f"{word} \U0001f600 club", " and 3 more words."  # places count characters

    def explained(route: Any) -> None:
        answer = route.fetch()
        found = answer.json()
        for result in found["results"]:
            result["words"] = [one for one in result.get("words", []) if one["end"] <= len(read)]
            for one in result["words"]:
                one["score"] = 1.2
        route.fulfill(response=answer, json=found)

    one.page.route("**/v1/classify", explained)
    one.classify(read + cut)
    one.see(".told", f"no further than character {len(read)} of {len(read + cut)}: the rest was cut")
    assert one.page.locator(".answer > .marked .cut").inner_text().strip() == cut.strip()
    assert f"“{word[:40]}…”" in one.see(".told").inner_text()
    one.classify(f"{read}.")  # a mark without a score of its own is no text that was cut
    one.see(".answer > .marked", f"{read}.")  # the old answer is gone
    one.see(".told:not(.status)", "For")
    assert "no further" not in one.see(".told").inner_text()
    one.count(".cut", 0)
