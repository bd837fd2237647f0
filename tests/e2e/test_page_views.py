"""The page's triage and live views in a real browser."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]

ITEMS = [
    {"text": f"Item {n}", "probability": share, "probabilities": {"World": share, "Sports": 1 - share}}
    for n, share in enumerate((0.51, 0.6, 0.8))
]


def uncertain(route: Any) -> None:
    more = {"adapter": "news", "version": "abc", "label": "World", "time": 0.0}
    items = [{"id": str(place)} | more | item for place, item in enumerate(ITEMS)]
    route.fulfill(json={"items": items})


def test_unsure_answers_are_gone_through_by_keyboard(visit: Visiting) -> None:
    one = visit()
    one.page.route("**/v1/uncertain?*", uncertain)
    one.open("triage")
    texts = one.count("#triage-list .marked", 3)
    assert texts.all_inner_texts() == ["Item 0", "Item 1", "Item 2"]  # least sure first
    one.see("#triage-status", "3 answers of news, least sure first.")
    one.see("#triage-legend", "j next")
    current = one.page.locator("#triage-list [aria-current] .marked")
    moves = []
    for key in ("j", "j", "k", "j", "j", "j", "k"):
        one.page.keyboard.press(key)
        moves.append(current.inner_text()[-1])
    assert moves == ["0", "1", "0", "1", "2", "2", "1"]  # the first j goes to the first; neither end is left
    assert one.page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    one.page.keyboard.press("2")  # Sports: corrects, and goes on to the next
    one.see("#triage-list > li:nth-child(2)", "Corrected to Sports.")
    one.see("#triage-list > li:nth-child(3)[aria-current]")
    one.page.keyboard.press("1")  # World: confirms
    one.see("#triage-list > li:nth-child(3)", "Confirmed: World.")
    one.see("#triage-status", "1 answer left.")
    sent = [(body["text"], body["label"], body["predicted"]) for body in one.bodies("/v1/feedback")]
    assert sent == [("Item 1", "Sports", "World"), ("Item 2", "World", "World")]
    one.refuse("/v1/feedback", 403, "The key 'desk' has the scopes classify; this takes feedback.")
    one.page.locator("#triage-list li").first.get_by_role("button", name="Sports").click()
    one.see("#triage-list > li:nth-child(1)", "Not sent. This key may not do that.")
    one.page.unroute("**/v1/uncertain?*")
    one.page.route("**/v1/uncertain?*", lambda route: route.fulfill(json={"items": []}))
    one.page.keyboard.press("r")
    one.see("#triage-status", "No answer waits here")
    one.gone("#triage-legend")


def test_unsure_answers_of_several_labels_are_those_the_server_gave(visit: Visiting) -> None:
    one = visit()
    if one.place.several is None:
        pytest.skip("no adapter here gives several labels")
    shares = dict.fromkeys(one.place.labels, 0.1) | {"Business": 0.6, "Sports": 0.3}  # by thresholds of their own
    item = {"id": "1", "adapter": one.place.several, "version": "abc", "text": "Item", "time": 0.0, "label": "Sports"}
    item |= {"labels": ["Sports"], "probability": 0.6, "probabilities": shares}
    one.page.route("**/v1/uncertain?*", lambda route: route.fulfill(json={"items": [item]}))
    one.open("triage")
    one.page.select_option("#adapter", one.place.several)
    one.see("#triage-list h3", "Sports")
    pressed = one.page.locator("#triage-list [aria-pressed=true]")
    assert [words.lstrip("0123456789") for words in pressed.all_inner_texts()] == ["Sports"]
    one.press("Send these")
    one.see("#triage-list", "Confirmed: Sports.")


def test_the_server_itself_has_unsure_answers(visit: Visiting) -> None:
    one = visit().open()
    one.classify(one.place.unsure)
    one.see(".answer h3")
    one.page.click("nav a[href='#triage']")
    one.see(f"#triage-list li:has-text('{one.place.unsure}')")


def test_a_server_that_keeps_nothing_says_so(visit: Visiting) -> None:
    one = visit()
    answer = one.page.request.get(f"{one.place.url}/v1/status").json()
    answer["server"] |= {"feedback": False, "keep_uncertain": 0, "explain_texts": 0}
    one.page.route("**/v1/status", lambda route: route.fulfill(json=answer))
    one.page.route("**/v1/uncertain?*", lambda route: route.fulfill(json={"items": []}))
    one.open("triage")
    one.see("#triage-status", "This server keeps no texts to look at: its setting keep_uncertain is 0.")
    one.page.click("nav a[href='#headline']")
    one.classify(one.place.sure[one.place.labels[0]])
    one.see(".answer", "This server takes no corrections.")
    one.count(".answer button", 0)
    assert len(one.bodies("/v1/classify")) == 1  # no words were asked for


def test_live_numbers_come_while_somebody_looks(visit: Visiting) -> None:
    one = visit()
    one.page.clock.install()
    one.open("live")
    one.see("#live-status", "As of")
    assert one.page.locator("#live-figures dt").all_inner_texts() == [
        "requests a second", "texts a second", "half within", "99 of 100 within", "texts waiting",
    ]  # fmt: skip
    asked = lambda: sum(each.url.endswith("/v1/status") for each in one.requests)  # noqa: E731
    begun = asked()
    one.page.clock.run_for(3100)
    one.until(lambda: asked() == begun + 1)
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); "
    hide += "document.dispatchEvent(new Event('visibilitychange')) }"
    one.page.evaluate(hide, True)
    one.page.clock.run_for(60_000)
    assert asked() == begun + 1  # nobody looks
    one.page.evaluate(hide, False)
    one.until(lambda: asked() == begun + 2)
    one.page.click("nav a[href='#headline']")
    one.gone("#view-live")  # the view leaves after the click has returned
    one.page.clock.run_for(60_000)
    assert asked() == begun + 2
    one.refuse("/v1/status", 503, "It is ending.")
    one.page.click("nav a[href='#live']")
    one.see("#live-status[data-kind=error]", "It is ending. What stands below is older. Asking again in 6\u00a0s.")
    one.page.unroute("**/v1/status")
    one.page.clock.run_for(6100)
    one.see("#live-status", "As of")
    begun = asked()
    one.page.clock.run_for(3100)
    one.page.wait_for_timeout(1000)
    assert asked() > begun  # no longer between two questions than before it went wrong


def test_where_no_numbers_ever_came_none_are_called_older(visit: Visiting) -> None:
    one = visit()
    one.refuse("/v1/status", 503, "It is starting.")
    one.open("live")
    one.see("#live-status[data-kind=error]", "It is starting. Asking again in 6\u00a0s.")


def test_label_mix_and_drift_are_told_in_words(visit: Visiting) -> None:
    one = visit("phone", "dark")
    steady = {"psi": 0.01, "js": 0.05, "limit": 0.2, "shifted": False}
    shifted = {"psi": 0.55, "js": 0.3, "limit": 0.2, "shifted": True}
    hour = {"texts": 400, "labels": {"World": 100, "Sports": 300}, "mean_confidence": 0.91, "share_abstained": 0.02}
    drift = {"baseline": "validation rows", "baseline_answers": 640, "window_answers": 400}
    drift |= {"labels": shifted, "confidence": steady, "baseline_labels": {"World": 320, "Sports": 320}}
    told = {"version": "abc", "corrections": 3, "last_hour": hour, "since_start": hour, "drift": drift}
    status = one.page.request.get(f"{one.place.url}/v1/status").json()
    status["load"] |= {"requests_per_second": 0.25, "texts_per_second": 1234.5, "p50_ms": None, "p99_ms": 12_000.0}
    hour["labels"]["constructor"] = 0  # which every object of JavaScript has
    calm, few = copy.deepcopy(told), copy.deepcopy(told)
    calm["drift"]["labels"] = steady
    few["drift"] |= {"labels": None, "confidence": None}
    status["adapters"] = {"news": told, "calm": calm, "few": few, "new": told | {"drift": drift | {"baseline": None}}}
    status["adapters"]["<b>"] = json.loads(json.dumps(calm))
    one.page.route("**/v1/status", lambda route: route.fulfill(json=status))
    one.open("live")
    assert one.count("#live-figures dd", 5).all_inner_texts()[:4] == ["0.3", "1,235", "\N{EN DASH}", "12\u00a0s"]
    section, told = one.count("#live-adapters section", 1), []
    for name in status["adapters"]:
        one.page.get_by_role("radio", name=name, exact=True).check(force=True)  # its row is what is pressed
        one.see("#live-adapters h3", name)
        told.append(section.inner_text())
    news, calm_one, few_one, new, markup = told
    one.page.get_by_role("radio", name="news", exact=True).check(force=True)
    assert (
        "400 answers in the last hour, sure to 91.0\u00a0% on average, 2.0\u00a0% left undecided, 3 corrections."
        in news
    )
    assert "Shifted: its label mix differs from the adapter's validation rows (index 0.55 for labels" in news
    assert "Like the adapter's validation rows: no shift in label mix or sureness" in calm_one
    assert "Too few answers to compare with the adapter's validation rows yet." in few_one
    assert "There is nothing to compare with yet" in new
    assert markup.startswith("<b>")
    row = one.page.locator("#live-adapters section >> nth=0").get_by_role("row", name="Sports")
    assert row.locator(".n").all_inner_texts() == ["75.0\u00a0%", "50.0\u00a0%"]
    odd = one.page.locator("#live-adapters section >> nth=0").get_by_role("row", name="constructor")
    assert odd.locator(".n").all_inner_texts() == ["0.0\u00a0%", "0.0\u00a0%"]
    place = "one => [one.querySelector('.bar span').style.width, one.querySelector('.bar i').style.left]"
    assert row.evaluate(place) == ["75%", "50%"]


def test_one_of_many_adapters_is_chosen_from_a_table(visit: Visiting) -> None:
    one = visit("phone")
    status = one.page.request.get(f"{one.place.url}/v1/status").json()
    moved, quiet = status["adapters"]["news"], status["adapters"]["desk"]
    calm = copy.deepcopy(moved)
    calm["drift"]["labels"] |= {"psi": 0.031, "shifted": False}
    status["adapters"] = {"news": calm, "desk": quiet} | {
        f"desk-{n}": moved if n in (7, 9) else calm for n in range(28)
    }
    answer = copy.deepcopy(status)
    one.page.route("**/v1/status", lambda route: route.fulfill(json=answer))
    one.page.clock.install()
    one.open("live")
    one.see("#overview-words", "30 adapters. Shifted: desk-7 and desk-9.")
    rows = one.count("#overview-body tr", 30)
    words = lambda place: rows.nth(place).inner_text().split()  # noqa: E731
    assert words(0) == ["news", "abc123def456", "420", "0.03", "0.04"]
    assert words(1) == ["desk", "0123456789ab", "0", "\N{EN DASH}", "\N{EN DASH}"]
    assert words(9) == ["desk-7", "abc123def456", "420", "\N{BLACK UP-POINTING TRIANGLE}", "0.55", "0.04"]
    one.count("#live-adapters section", 1)
    one.see("#live-adapters h3", "news")  # the default
    one.page.get_by_role("radio", name="news", exact=True).focus()
    for _ in range(9):
        one.page.keyboard.press("ArrowDown")
    one.see("#live-adapters h3", "desk-7")
    focused = "document.activeElement.closest('tr')?.querySelector('label').textContent"
    for key in ("news", "desk-3"):  # numbers come anew, and adapters go
        answer["adapters"].pop(key)
        answer["adapters"]["desk-7"]["drift"]["window_answers"] = 421
        one.page.clock.run_for(3100)
        one.count("#overview-body tr", len(answer["adapters"]))
        assert one.page.evaluate(focused) == "desk-7"
    one.see("#overview-body tr.chosen", "421")
    one.page.get_by_role("row", name="desk-20").locator("td").first.click(force=True)  # anywhere in a row
    one.see("#live-adapters h3", "desk-20")
    assert one.page.locator("#live-adapters h3").evaluate("one => one.getBoundingClientRect().top < innerHeight")
    answer["adapters"].pop("desk-20")
    one.page.clock.run_for(3100)
    one.see("#live-adapters h3", "desk")  # the first that is left
    for found, sentence in (
        (
            {"news": calm, "other": calm, "desk": quiet},
            "3 adapters, and none of the 2 that can be compared has shifted.",
        ),
        ({"news": quiet, "other": quiet, "desk": quiet}, "3 adapters. None can be compared with its baseline yet."),
    ):
        answer["adapters"] = found
        one.page.clock.run_for(3100)
        one.see("#overview-words", sentence)
    answer["adapters"] = dict.fromkeys(("news", "desk"), calm)
    one.page.clock.run_for(3100)
    one.count("#live-adapters section", 2)
    one.gone("#overview")


def test_bars_are_seen_in_the_readers_own_colours_and_on_paper(visit: Visiting) -> None:
    one = visit(forced_colors="active").open("live")
    one.see("table.mix .bar")
    ground = "kinds => kinds.map(kind => getComputedStyle(document.querySelector(kind)).backgroundColor)"
    paper, share, before = one.page.evaluate(ground, ["body", ".bar span", ".bar i"])
    assert len({paper, share, before}) == 3
    edges = "[...document.querySelectorAll('nav a')].map(one => getComputedStyle(one).borderBottomColor)"
    *others, live = one.page.evaluate(edges)
    assert live not in others  # the view that is open is told from the others
    one.page.click("nav a[href='#triage']")
    edge = (
        "kind => getComputedStyle(document.querySelector(`#triage-list .label[aria-pressed=${kind}]`)).borderTopColor"
    )
    one.see("#triage-list .label")
    assert one.page.evaluate(edge, "true") != one.page.evaluate(edge, "false")
    one.page.click("nav a[href='#live']")
    one.page.emulate_media(media="print", forced_colors="none")
    for kind in (".bar", ".bar span", ".bar i"):  # else browsers print no grounds, of which bars are made
        assert one.page.eval_on_selector(kind, "one => getComputedStyle(one).printColorAdjust") == "exact"
