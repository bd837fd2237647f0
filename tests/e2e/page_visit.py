"""Fixtures of the page's browser tests: a browser, a server, and visits that note what the page asks and complains of.

Test files take them by `pytest_plugins = ["page_visit"]`. To run them against another server, change `place`.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from page_server import Place, make_app, serving

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 900}}
PATIENCE = 10_000  # milliseconds until something that should be seen is missed: the machine may be busy


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    sure = {
        "World": "Minister signs border treaty", "Sports": "Striker wins cup for club",
        "Business": "Oil shares fall at bank", "Sci/Tech": "Probe lands on comet with new chip",
    }  # fmt: skip
    with serving(make_app()) as url:
        yield Place(url, list(sure), sure, "Bank buys football club")


@pytest.fixture(scope="module")  # while it is open, no other file's test in this process can run an event loop
def chromium() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    if BROWSER is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield found
        found.close()


@dataclass
class Visit:
    """The page as one reader sees it."""

    page: Any
    place: Place
    complaints: list[str] = field(default_factory=list)  # of the console; refused requests are told there too
    requests: list[Any] = field(default_factory=list)

    def open(self, view: str = "headline", ready: bool = True) -> "Visit":
        """Go to a view; where `ready`, wait until the adapters are known."""
        from playwright.sync_api import expect

        self.page.goto(f"{self.place.url}/#{view}")
        if ready:
            expect(self.page.locator("#adapter")).to_be_enabled()
        return self

    def see(self, selector: str, text: Any = None) -> Any:
        """The element, seen now or soon, and with this text in it."""
        from playwright.sync_api import expect

        found = self.page.locator(selector)
        expect(found.first).to_be_visible()
        if text is not None:
            expect(found).to_contain_text(text)
        return found

    def count(self, selector: str, many: int) -> Any:
        """The elements, once there are so many."""
        from playwright.sync_api import expect

        found = self.page.locator(selector)
        expect(found).to_have_count(many)
        return found

    def gone(self, selector: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).not_to_be_visible()

    def classify(self, text: str) -> None:
        self.page.fill("#headline-text", text)
        self.page.press("#headline-text", "Enter")

    def choose_file(self, name: str, content: str | bytes) -> None:
        raw = content.encode() if isinstance(content, str) else content
        self.page.set_input_files("#file-choice", {"name": name, "mimeType": "text/plain", "buffer": raw})

    def bodies(self, path: str) -> list[Any]:
        """What was posted to a path, oldest first."""
        posts = [one for one in self.requests if one.method == "POST" and one.url.partition("?")[0].endswith(path)]
        return [json.loads(one.post_data) for one in posts]

    def relabel(self, labels: list[str], several: bool = False) -> None:
        """Let the default adapter have other labels, of which it gives every text the second."""
        adapters = self.page.request.get(f"{self.place.url}/v1/adapters").json()
        adapters["adapters"] = [adapters["adapters"][0] | {"labels": labels, "multi_label": several}]
        name, version = (adapters["adapters"][0][key] for key in ("name", "version"))
        shares = dict.fromkeys(labels, 0.4 / len(labels)) | {labels[1]: 0.6}
        given = {"label": labels[1], "labels": [labels[1]], "probability": 0.6, "error": None}
        made = {"adapter": name, "version": version}

        def classify(route: Any) -> None:
            texts = route.request.post_data_json["texts"]
            words = [{"text": text[:1], "start": 0, "end": 1, "score": 1.2} for text in texts]
            results = [given | {"probabilities": shares, "words": [word]} for word in words]
            route.fulfill(json=made | {"results": results})

        def stream(route: Any) -> None:
            records = map(json.loads, route.request.post_data.splitlines())
            route.fulfill(body="".join(json.dumps({"id": one["id"]} | made | given) + "\n" for one in records))

        items = [
            {"id": str(n), "text": f"Item {n}", "time": 0.0, "probabilities": shares} | made | given for n in range(3)
        ]
        hour = {"texts": 400, "labels": dict.fromkeys(labels, 9), "mean_confidence": 0.9, "share_abstained": 0.0}
        status = self.page.request.get(f"{self.place.url}/v1/status").json()
        drift = {
            "baseline": "validation rows",
            "baseline_labels": dict.fromkeys(labels, 9),
            "labels": None,
            "confidence": None,
        }
        status["adapters"] = {
            name: {"version": version, "corrections": 0, "last_hour": hour, "since_start": hour, "drift": drift}
        }
        self.page.route("**/v1/adapters", lambda route: route.fulfill(json=adapters))
        self.page.route("**/v1/status", lambda route: route.fulfill(json=status))
        self.page.route("**/v1/uncertain?*", lambda route: route.fulfill(json={"items": items}))
        self.page.route("**/v1/classify", classify)
        self.page.route("**/v1/classify/stream?*", stream)

    def refuse(self, path: str, status: int, message: str = "It said so.", times: int = 0, **headers: str) -> None:
        """Answer a path with an error from now on, or so many times."""
        body = {"error": {"code": "refused", "message": message}}
        answer = lambda route: route.fulfill(status=status, headers=headers, json=body)  # noqa: E731
        self.page.route(f"**{path}", answer, **({"times": times} if times else {}))

    def hold(self, path: str) -> list[Any]:
        """Keep requests to a path waiting; the list fills with them, to be let go by `continue_()`."""
        held: list[Any] = []
        self.page.route(f"**{path}", lambda route: held.append(route))
        return held

    def until(self, true: Callable[[], Any]) -> None:
        """Let the page live until something holds."""
        for _ in range(PATIENCE // 20):
            if true():
                return
            self.page.wait_for_timeout(20)
        raise AssertionError("it never came true")

    def hear(self, words: Any) -> None:
        """A screen reader is told this, now or soon."""
        from playwright.sync_api import expect

        expect(self.page.locator("#announcer")).to_have_text(words)

    def press(self, name: str) -> None:
        """The button of that name that can be seen; of labels, without their digits."""
        self.page.get_by_role("button", name=name, exact=True).first.click()


@pytest.fixture
def visit(chromium: Any, place: Place) -> Iterator[Callable[..., Visit]]:
    """Makes visits: a size of SIZES, colours, and further options of a browser context."""
    contexts = []

    def begin(size: str = "desktop", colours: str = "light", **options: Any) -> Visit:
        context = chromium.new_context(**{"viewport": SIZES[size], "color_scheme": colours} | options)
        contexts.append(context)
        made = Visit(context.new_page(), place)
        made.page.set_default_timeout(PATIENCE)
        made.page.on("console", lambda message: made.complaints.append(message.text))
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("request", lambda request: made.requests.append(request))
        return made

    yield begin
    for context in contexts:
        context.close()
