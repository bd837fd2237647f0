"""The report in a real browser: it fits a phone, needs nothing from outside, and follows the reader's colours."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from newslora.explanation.attributions import Explanation
from newslora.explanation.words import Word
from newslora.report.explained import write_explanations
from newslora.report.report import report_run

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]


@pytest.fixture(scope="module")
def report(planted: Path) -> Path:
    return report_run(planted)


class Visit:
    """The page as one reader sees it, all of it unfolded, and what it asked of the world."""

    def __init__(self, browser: Any, path: Path, size: str, colours: str) -> None:
        from page_visit import SIZES

        self.page = browser.new_page(viewport=SIZES[size], color_scheme=colours)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.resolve().as_uri())
        self.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_the_page_fits_and_stands_alone(chromium: Any, report: Path, size: str, colours: str) -> None:
    visit = Visit(chromium, report, size, colours)
    width = visit.page.viewport_size["width"]
    assert visit.ask("document.documentElement.scrollWidth") == width  # no sideways scrolling
    outside = "[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, pre') && "
    outside += f"one.getBoundingClientRect().right > {width}).map(one => one.outerHTML.slice(0, 80))"
    assert visit.ask(outside) == []
    assert visit.complaints == []  # a breach of the page's own policy would stand here
    assert (
        visit.ask("document.querySelector('meta[http-equiv=Content-Security-Policy]').content.slice(0, 18)")
        == "default-src 'none'"
    )
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
    pictures = visit.ask("[...document.images].map(one => [one.complete, one.naturalWidth, one.alt, one.currentSrc])")
    levels = visit.ask("[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))  # a reader by headings misses none
    assert visit.ask("[...document.querySelectorAll('th')].filter(one => !one.textContent.trim()).length") == 0
    assert len(pictures) >= 7
    assert all(done and wide > 0 and len(words) > 20 for done, wide, words, _ in pictures)
    # the picture shown is the one for this paper, the other source of its <picture>
    index = {"light": "img => img.src", "dark": "img => img.previousElementSibling.srcset"}[colours]
    assert [shown for *_, shown in pictures] == visit.ask(f"[...document.images].map({index})")
    visit.page.close()


# how far the first element of each kind stands out from its ground, and how light that is; null where there is none
CONTRAST = """kinds => kinds.map(kind => {
    const light = colour => { const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
        const share = part / 255; return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4 });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] };
    const one = document.querySelector(kind);
    if (!one) return null;
    let ground = one;
    while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
    const [a, b] = [light(getComputedStyle(one).color), light(getComputedStyle(ground).backgroundColor)];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), b] })"""


def test_dark_readers_get_dark_paper_and_text_that_stands_out(chromium: Any, report: Path) -> None:
    kinds = ("body", ".soft", ".glance", ".for3", ".against3", ".for1", "a")
    paper = {}
    for colours in ("light", "dark"):
        visit = Visit(chromium, report, "desktop", colours)
        found = dict(zip(kinds, visit.page.evaluate(CONTRAST, list(kinds)), strict=True))
        assert {kind for kind, one in found.items() if one} >= {"body", ".soft", ".for3", "a"}  # they are there
        assert {kind: one[0] for kind, one in found.items() if one and one[0] < 4.5} == {}  # WCAG 2.1, level AA
        paper[colours] = found["body"][1]
        visit.page.close()
    assert paper["light"] > 0.9
    assert paper["dark"] < 0.05


def test_every_link_leads_somewhere_and_print_shows_what_is_folded(chromium: Any, report: Path) -> None:
    visit = Visit(chromium, report, "desktop", "dark")
    lost = "[...document.links].filter(one => !document.querySelector(one.getAttribute('href'))).length"
    assert visit.ask("document.links.length") > 10
    assert visit.ask(lost) == 0
    visit.ask("document.querySelectorAll('details').forEach(one => one.open = false)")
    tall = "[...document.querySelectorAll('details table')].filter(one => "
    tall += "one.checkVisibility({contentVisibilityAuto: true}) && one.getBoundingClientRect().height > 0).length"
    assert visit.ask(tall) == 0
    visit.page.emulate_media(media="print")
    folded = visit.ask("document.querySelectorAll('details table').length")
    assert folded > 0
    visit.page.wait_for_function(f"{tall} === {folded}")  # seen from the next frame on; an error where it never is
    assert visit.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    visit.page.close()


def test_words_that_decided_are_told_without_colours(chromium: Any, tmp_path: Path) -> None:
    """In the reader's own colours no ground is seen, and a screen reader is told of no mark."""
    text = "Striker scores twice as bank fails"
    scores = {"Striker": 1.5, "scores": 0.6, "twice": 0.3, "as": 0.01, "bank": -1.4, "fails": -0.3}
    words = tuple(Word(one, text.index(one), text.index(one) + len(one), score) for one, score in scores.items())
    write_explanations([Explanation(text, "Sports", 0.9, "Sports", words, 2.0, 0.5, 32, None)], tmp_path / "words.html")
    visit = Visit(chromium, tmp_path / "words.html", "desktop", "light")
    visit.page.emulate_media(forced_colors="active")
    style = "one => { const own = getComputedStyle(one); return own.textDecorationStyle + own.textDecorationThickness }"
    marks = {one: visit.page.eval_on_selector(f"article .{one}", style) for one in ("for1", "for2", "for3", "against3")}
    assert marks == {"for1": "solid1px", "for2": "solid2px", "for3": "solid3px", "against3": "dotted4px"}
    script = "const one = document.createElement('script'); one.textContent = 'window.hit = 1'; "
    assert (
        visit.ask(f"{script} document.body.append(one); window.hit") is None
    )  # a text that became markup could do nothing
    told = "For Sports: “Striker”, “scores” and “twice”; against: “bank” and “fails”."
    assert told in visit.page.inner_text("article")
    visit.page.close()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_what_was_cut_can_be_read(chromium: Any, tmp_path: Path, colours: str) -> None:
    text, word = "Striker scores and nobody read on", Word("Striker", 0, 7, 1.5)
    whole = Explanation(text, "Sports", 0.9, "Sports", (word,), 2.0, 0.5, 32, read_to=14)
    write_explanations([whole], tmp_path / "cut.html")
    visit = Visit(chromium, tmp_path / "cut.html", "phone", colours)
    assert visit.page.inner_text(".cut").strip() == "and nobody read on"
    assert visit.ask("getComputedStyle(document.querySelector('.cut')).opacity") == "1"
    ((ratio, _),) = visit.page.evaluate(CONTRAST, [".cut"])
    assert 4.5 < ratio < 12  # and is not as plain as what was read
    visit.page.close()
