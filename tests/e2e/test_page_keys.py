"""Keys in the page in a real browser: asked for, refused, revoked, changed."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]


def guard(one: Any, keys: dict[str, str]) -> None:
    """Let the server want a key: each of these opens its scope, and all of them what any key opens."""
    opens = {
        "adapters": "any",
        "status": "any",
        "classify": "classify",
        "feedback": "feedback",
        "uncertain": "feedback",
    }

    def check(route: Any) -> None:
        sent = route.request.headers.get("authorization", "").removeprefix("Bearer ")
        needed = opens[route.request.url.partition("/v1/")[2].partition("?")[0].partition("/")[0]]
        if sent not in keys:
            message = "This server asks for a valid API key: send the header 'Authorization: Bearer KEY'."
            route.fulfill(status=401, json={"error": {"code": "no_key", "message": message}})
        elif needed not in ("any", keys[sent]):
            message = f"The key '{sent}' has the scopes {keys[sent]}; this takes {needed}."
            route.fulfill(status=403, json={"error": {"code": "wrong_scope", "message": message}})
        else:
            route.continue_()

    one.page.route("**/v1/**", check)


def give(one: Any, key: str) -> None:
    one.see("#key-form")
    one.page.fill("#key", key)
    one.page.keyboard.press("Enter")


def test_a_key_is_asked_for_kept_for_the_tab_and_used(visit: Visiting) -> None:
    one = visit()
    guard(one, {"right": "classify"})
    one.open(ready=False)
    one.see("#key-form", "This server wants a key.")
    assert one.page.evaluate("document.activeElement.id") == "key"
    give(one, "wrong")
    one.see("#key-form", "The server does not know this key.")
    give(one, "right")
    one.see("#adapter-facts", one.place.labels[0])  # what waited for the key went on
    one.gone("#key-form")
    assert one.page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    one.page.reload()
    one.see("#adapter-facts", one.place.labels[0])
    one.page.evaluate("sessionStorage.clear()")
    one.page.reload()
    one.press("Go on without")
    one.see("#adapter-status", "This server wants a key, and none was given.")
    one.press("Enter a key")
    give(one, "right")
    one.see("#adapter-facts", one.place.labels[0])


def test_a_wrong_key_is_called_wrong_and_asked_for_again(visit: Visiting) -> None:
    one = visit()
    guard(one, {"right": "classify"})
    one.open(ready=False)
    give(one, "wrong")
    one.see(
        "#key-form", "The server does not know this key. It was mistyped or cut short, was revoked, or has run out."
    )
    assert "Authorization" not in one.page.locator("body").inner_text()
    assert one.page.evaluate("document.activeElement.id") == "key"
    one.press("Go on without")
    one.see("#adapter-status", "This server wants a key, and none was given.")
    assert one.page.evaluate("sessionStorage.length") == 0
    one.press("Try again")
    one.see("#key-form", "This server wants a key.")


def test_a_key_of_too_small_a_scope_can_be_changed(visit: Visiting) -> None:
    one = visit()
    guard(one, {"metrics-key": "metrics", "right": "classify"})
    one.open(ready=False)
    give(one, "metrics-key")
    one.see("#adapter-facts", one.place.labels[0])
    one.classify(one.place.unsure)
    one.see("#headline-status[data-kind=error]", "This key may not do that.")
    one.page.reload()
    one.press("Change key")
    one.see("#key-form", "Another key, in place of the one in use:")
    one.press("Keep the old one")
    one.gone("#key-form")
    one.see("#adapter-facts", one.place.labels[0])
    one.classify(one.place.unsure)
    one.see("#headline-status[data-kind=error]", "This key may not do that.")
    one.press("Change key")
    assert one.page.evaluate("document.activeElement.id") == "key"
    give(one, "right")
    one.see(".answer h3")  # what was refused is asked again


@pytest.mark.parametrize(
    ("key", "fault"),
    [("nl_\u043a\u043b\u044e\u0447", "this one holds \u201c\u043a\u201d"), ("nl_two words", "this one holds a space")],
)
def test_what_cannot_be_a_key_is_neither_kept_nor_sent(visit: Visiting, key: str, fault: str) -> None:
    one = visit()
    guard(one, {"right": "classify"})
    one.open(ready=False)
    give(one, key)
    one.see("#key-words", fault)
    assert one.page.evaluate("sessionStorage.length") == 0
    give(one, " right ")
    one.see("#adapter-facts", one.place.labels[0])
    one.page.evaluate("key => sessionStorage.setItem('newslora-key', key)", key)  # as an older page kept it
    one.page.reload()
    one.see("#key-form", "This server wants a key.")
    assert "cannot be reached" not in one.see("#adapter-status").inner_text()


def test_a_key_revoked_while_somebody_looks_at_live_is_asked_for_once(visit: Visiting) -> None:
    one = visit()
    keys = {"right": "classify"}
    guard(one, keys)
    one.page.clock.install()
    one.open("live", ready=False)
    give(one, "right")
    one.see("#live-status", "As of")
    keys.clear()
    one.page.clock.run_for(3100)
    one.see("#key-form", "The server does not know this key.")
    one.press("Go on without")
    one.see("#live-status[data-kind=error]", "This server wants a key, and none was given.")
    one.page.clock.run_for(6100)
    one.see("#live-status[data-kind=error]", "Asking again in 12")
    one.gone("#key-form")
    keys["new"] = "classify"
    one.press("Enter a key")
    give(one, "new")
    one.see("#live-status", "As of")
