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


@pytest.mark.parametrize("many", [12, 13])
def test_digits_choose_only_where_they_are_shown(visit: Visiting, many: int) -> None:
    one = visit()
    one.relabel([f"Label {n}" for n in range(1, many + 1)])
    shown = many == 12
    digit = [{"1": "Label 1", "4": "Label 4", "5": "Label 5"}[key] for key in "541"] if shown else []
    sent = lambda: [body["label"] for body in one.bodies("/v1/feedback")]  # noqa: E731

    one.open()
    one.classify("Anything")
    one.see(".answer h3", "Label 2")
    one.page.keyboard.press("Escape")
    one.page.keyboard.press("5")
    if shown:
        one.see(".answer .state", "Corrected to Label 5.")
        one.see(".ask", "press its digit")
    else:
        assert "digit" not in one.see(".ask").inner_text()

    one.page.click("nav a[href='#triage']")
    legend = one.see("#triage-legend", "j next").inner_text()
    assert ("1 to 9 the section" in legend) == shown
    one.page.keyboard.press("j")
    one.page.keyboard.press("4")
    if shown:
        one.see("#triage-list > li:nth-child(1)", "Corrected to Label 4.")

    one.page.click("nav a[href='#file']")
    one.choose_file("rows.csv", "text\nOne\nTwo\n")
    one.press("Classify all rows")
    one.page.get_by_label("Correct row 1", exact=True).click()
    assert one.page.evaluate("document.activeElement.localName") == ("button" if shown else "select")
    one.page.keyboard.press("1")
    if shown:
        one.see("#rows-body tr:first-child", "→ Label 1")
    one.page.wait_for_timeout(100)
    assert sent() == digit
    if not shown:
        one.page.select_option(".words select", "Label 13")
        one.page.keyboard.press("1")  # in the list it has the focus of, a digit looks for a label
        assert sent() == []
        one.press("Send")
        one.see("#rows-body tr:first-child", "→ Label 13")
        one.page.locator(".words select").focus()
        one.page.keyboard.press("Escape")
        one.gone(".words select")


def test_a_key_held_down_labels_one_text(visit: Visiting) -> None:
    one = visit()
    one.relabel(["A", "B", "C"])
    one.open("triage")
    assert "1 to 3 the section" in one.see("#triage-legend", "j next").inner_text()
    one.page.keyboard.press("j")
    one.page.keyboard.down("1")
    one.see("#triage-list > li:nth-child(2)[aria-current]")
    one.page.keyboard.down("1")  # repeats
    one.page.keyboard.up("1")
    one.page.wait_for_timeout(100)
    assert [body["text"] for body in one.bodies("/v1/feedback")] == ["Item 0"]


def test_of_very_many_labels_several_can_be_given(visit: Visiting) -> None:
    one = visit("phone")
    labels = [f"Label {n}" for n in range(1, 31)]
    one.relabel(labels, several=True)
    one.open()
    one.classify("Anything")
    one.count(".correction .label", 30)
    one.press("Label 30")
    one.press("Send these")
    one.see(".state", "Corrected to Label 2 and Label 30.")
    assert one.bodies("/v1/feedback")[0]["labels"] == ["Label 2", "Label 30"]


def test_the_same_labels_in_another_order_are_no_correction(visit: Visiting) -> None:
    one = visit().open()
    one.page.select_option("#adapter", "topics")
    one.classify("bank shares at the border")
    assert one.see(".answer h3", " and ").inner_text().startswith("Business and World")  # the likeliest first
    one.press("Send these")
    one.see(".state", "Confirmed: World and Business.")
    assert one.bodies("/v1/feedback")[0]["labels"] == ["World", "Business"]


def test_single_keys_can_be_turned_off(visit: Visiting) -> None:
    """Speech that is heard as keys must correct nothing (WCAG 2.1.4)."""
    one = visit().open("triage")
    one.see("#triage-list li")
    one.page.uncheck("#single-keys")
    for again in (False, True):  # the browser keeps it
        if again:
            one.page.reload()
            one.see("#triage-list li")
        one.gone("#triage-legend")
        one.count("#triage-list kbd >> visible=true", 0)
        asked = len(one.requests)
        for key in ("j", "2", "r", "k"):
            one.page.keyboard.press(key)
        assert one.page.evaluate("document.activeElement.closest('#triage-list')") is None
    one.page.click("nav a[href='#headline']")
    one.classify(one.place.unsure)
    one.see(".answer h3")
    one.page.keyboard.press("Escape")
    one.page.keyboard.press("3")
    assert [each.url for each in one.requests[asked:] if each.url.endswith(("/v1/feedback", "/v1/uncertain"))] == []
    one.page.check("#single-keys")
    one.page.focus(".answer")
    one.page.keyboard.press("3")
    one.see("#headline-answers .state", "Corrected to")
