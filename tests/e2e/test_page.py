"""The server's page in a real browser: a headline and its answer, corrections, and who can read it."""

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]

VIEWS = {"headline": ".answer .for3", "file": "#rows-body tr", "triage": "#triage-list li", "live": ".figures dd"}
FILE = "title,description\r\n" + "".join(f'"Oil, {n}","long {"word" * 30}"\r\n' for n in range(60))


def fill(one: Any, view: str) -> None:
    """Bring a view to where it shows something."""
    one.open(view)
    if view == "headline":
        one.classify(one.place.sure[one.place.labels[1]])
    elif view == "file":
        one.choose_file("news.csv", FILE)
        one.page.click("#file-start")
        one.see("#file-numbers", "60 of 60 rows")
    one.see(VIEWS[view])


@pytest.mark.parametrize(("size", "colours"), [("phone", "dark"), ("desktop", "light"), ("zoomed", "light")])
def test_every_view_fits_stands_alone_and_can_be_read(visit: Visiting, size: str, colours: str) -> None:
    # a desktop zoomed to 200 % has half as many CSS pixels
    zoomed = {"viewport": {"width": 640, "height": 450}, "device_scale_factor": 2}
    one = visit(colours=colours, **zoomed) if size == "zoomed" else visit(size, colours)
    width = one.page.viewport_size["width"]
    for view in VIEWS:
        fill(one, view)
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width  # no sideways scrolling
        outside = "[...document.querySelectorAll('body *')].filter(one => one.checkVisibility() && "
        outside += f"one.getBoundingClientRect().right > {width}).map(one => one.outerHTML.slice(0, 80))"
        assert one.page.evaluate(outside) == []
        assert one.page.evaluate(FAINT) == []
    assert one.complaints == []  # a breach of the security policy would stand here
    assert [each.url for each in one.requests if not each.url.startswith(one.place.url)] == []
    policy = one.page.request.get(one.place.url).headers["content-security-policy"]
    assert "'self'" in policy
    assert "unsafe" not in policy


# texts that stand out less than WCAG 2.1, level AA, asks for: 4.5, or 3 where they are large
FAINT = """(() => {
    const light = colour => { const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
        const share = part / 255; return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4 });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] };
    const own = one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    const faint = [];
    for (const one of document.querySelectorAll('body *')) {
        if (!own(one) || one.matches(':disabled, .hidden, option, noscript')) continue;
        if (!one.checkVisibility({opacityProperty: true})) continue;
        let ground = one;
        while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
        const style = getComputedStyle(one);
        const [a, b] = [light(style.color), light(getComputedStyle(ground ?? document.body).backgroundColor)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) faint.push([one.outerHTML.slice(0, 80), ratio]);
    }
    return faint })()"""


def test_a_headline_gets_section_sureness_probabilities_and_words(visit: Visiting) -> None:
    one = visit().open()
    label = one.place.labels[1]
    text = one.place.sure[label]
    one.classify(text)
    one.see(".answer h3", label)
    one.see(
        ".sure",
        re.compile(
            r"^Of 100 answers as sure as this, (about \d+|more than 99) are right, among texts like those it "
            r"was trained on\.$"
        ),
    )
    shares = one.count(".bars .n", len(one.place.labels)).all_inner_texts()
    assert sum(float(re.sub(r"[^\d.]", "", share)) for share in shares) == pytest.approx(100, abs=0.5)
    assert one.page.locator(".bars .name").first.inner_text() == label  # likeliest first
    marked = one.see(".answer > .marked span[class^=for]").all_inner_texts()
    assert marked
    assert set(marked) <= set(text.split())
    one.see(".told", f"For {label}: “")
    assert one.page.locator(".answer > .marked").inner_text() == text
    title = one.page.locator(".answer > .marked span[class^=for]").first.get_attribute("title")
    assert re.match(rf"speaks for {label}: \+\d", title)
    one.see(".answer .made", re.compile(rf"Answered by {one.place.adapter}, version [0-9a-f]{{12}}"))
    one.hear(re.compile(rf"^{label}\. Of 100 answers"))  # a screen reader is told
    # marks tell the sides apart without colour
    style = "[...document.querySelectorAll('.legend span span')].map(one => getComputedStyle(one).textDecorationStyle)"
    assert one.page.evaluate(style) == ["solid", "dotted"]
    # the answer was asked for first, the words after it
    assert [body.get("explain", False) for body in one.bodies("/v1/classify")] == [False, True]


def test_numbers_are_not_rounded_to_certainty(visit: Visiting) -> None:
    page = visit().open(ready=False).page
    tell = "async ([module, name, ...values]) => (await import(`/page/${module}.js`))[name](...values)"
    shares = {
        0.9453: "94.5\u00a0%",
        0.99996: "> 99.9\u00a0%",
        0.9994: "99.9\u00a0%",
        0.0002: "< 0.1\u00a0%",
        0: "0.0\u00a0%",
        1: "100.0\u00a0%",
    }
    assert {share: page.evaluate(tell, ["dom", "percent", share]) for share in shares} == shares
    sure = {
        0.01: "about 1 is right", 0.934: "about 93 are right", 0.9949: "about 99 are right", 0.995: "more than 99 are right",
        1: "more than 99 are right",
    }  # fmt: skip
    for share, words in sure.items():
        told = page.evaluate(tell, ["answer", "sureness", share, True, False])
        assert told == f"Of 100 answers as sure as this, {words}, among texts like those it was trained on."
    times = {0.4: "0\u00a0s", 59.4: "59\u00a0s", 3725: "1\u00a0h 2\u00a0min", 200: "3\u00a0min 20\u00a0s"}
    assert {time: page.evaluate(tell, ["dom", "duration", time]) for time in times} == times


def test_very_many_labels_stay_readable(visit: Visiting) -> None:
    one = visit("phone")
    labels = [f"A rather long section name, number {n}" for n in range(40)]
    adapters = one.page.request.get(f"{one.place.url}/v1/adapters").json()
    adapters["adapters"][0]["labels"] = labels
    one.page.route("**/v1/adapters", lambda route: route.fulfill(json=adapters))
    given = {"label": labels[7], "labels": [labels[7]], "probability": 0.5, "error": None}
    given["probabilities"] = {label: 0.5 if label == labels[7] else 0.5 / 39 for label in labels}
    answer = {"adapter": one.place.adapter, "version": adapters["adapters"][0]["version"], "results": [given]}
    one.page.route("**/v1/classify", lambda route: route.fulfill(json=answer))
    one.open()
    one.classify("Anything")
    one.see(".answer summary", "32 more")
    one.page.select_option(".correction select", labels[30])
    one.press("Send")
    one.see(".answer h3", f"{labels[7]} → {labels[30]}")
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_phone_with_doubled_letters_shows_what_is_chosen_and_every_bar(visit: Visiting) -> None:
    one = visit(viewport={"width": 195, "height": 422}, device_scale_factor=2)
    for view in VIEWS:
        fill(one, view)
        assert one.see("#abstain").bounding_box()["width"] > 120, view
        bars = "[...document.querySelectorAll('.bar')].filter(one => one.checkVisibility()).map(one => one.clientWidth)"
        assert min(one.page.evaluate(bars), default=99) >= 75, view
        outside = "[...document.querySelectorAll('.figures dt, td, th')].filter(one => one.checkVisibility() && "
        outside += "one.scrollWidth > one.clientWidth + 1).map(one => one.textContent)"
        assert one.page.evaluate(outside) == [], view
    assert one.page.locator("table.mix tbody th").first.bounding_box()["width"] > 50


@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_long_names_of_labels_fit_and_leave_the_bars_their_room(visit: Visiting, size: str) -> None:
    one = visit(size)
    width = one.page.viewport_size["width"]
    word = "Finanzmarktberichterstattungsangelegenheiten"
    labels = ["World", f"Wirtschafts-und-{word} der Zentralbank in Frankfurt", word * 3]
    labels += [f"Section number {n} with a rather long descriptive name" for n in range(12)]
    one.relabel(labels)
    for view in VIEWS:
        fill(one, view)
        if view == "file":
            one.page.get_by_label("Correct row 1", exact=True).click()
            one.see("#rows-body select")
            for beside in ("label[for=rows-filter]", "[aria-label='Correct row 2']"):  # no word is broken for them
                assert one.see(beside).bounding_box()["height"] < 40
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width, view
        bars = "[...document.querySelectorAll('.bar')].filter(one => one.checkVisibility()).map(one => one.clientWidth)"
        assert min(one.page.evaluate(bars)) >= 75, view


def test_several_lines_get_an_answer_each_and_very_many_become_a_file(visit: Visiting) -> None:
    one = visit().open()
    texts = list(one.place.sure.values())
    one.classify("\n\n".join(texts) + "\n")
    assert one.count(".answer h3", len(texts)).all_inner_texts() == list(one.place.sure)
    one.page.locator(".answer").nth(1).get_by_text("Which words decided?").click()
    one.see(".answer:has(.told) h3", one.place.labels[1])
    one.classify("\n".join(texts * 11))
    one.see("#file-name", f"{11 * len(texts)} pasted lines")
    one.page.click("#file-start")
    one.see("#file-numbers", f"{11 * len(texts)} of {11 * len(texts)} rows")


def test_words_may_take_as_long_as_the_server_allows(visit: Visiting) -> None:
    one = visit()
    status = one.page.request.get(f"{one.place.url}/v1/status").json()
    for told in (status["server"].get("longest_timeout", 30), None):  # None: an older server, which does not say
        status["server"].pop("longest_timeout", None)
        status["server"] |= {} if told is None else {"longest_timeout": told}
        one.page.route("**/v1/status", lambda route: route.fulfill(json=status))
        one.page.reload() if told is None else one.open()
        one.classify(one.place.unsure)
        one.see(".told", "For")
        answered, explained = one.bodies("/v1/classify")[-2:]
        assert "timeout" not in answered
        assert explained.get("timeout") == told


def test_the_words_of_several_answers_are_asked_for_at_the_same_time(visit: Visiting) -> None:
    one = visit().open()
    one.classify("\n".join(list(one.place.sure.values())[:2]))
    one.count(".answer h3", 2)
    held = one.hold("/v1/classify")
    first, second = (f"#headline-answers > li:nth-child({n})" for n in (1, 2))
    for n, answer in enumerate((first, second), 1):
        one.page.locator(answer).get_by_text("Which words decided?").click()
        one.until(lambda n=n: len(held) == n)
    one.see(f"{first} .told", "Weighing the words…")
    one.page.locator(second).get_by_text("Cancel").click()
    one.see(f"{second} .told", "Cancelled.")
    held[0].continue_()
    one.see(f"{first} .told", f"For {one.place.labels[0]}: “")
    one.page.locator(second).get_by_text("Try again").click()
    one.until(lambda: len(held) == 3)
    held[2].continue_()
    one.see(f"{second} .told", f"For {one.place.labels[1]}: “")
    one.page.locator(second).get_by_role("button", name=one.place.labels[0]).click()
    one.see(f"{second} .state", "Corrected to")


def test_on_a_touch_screen_enter_begins_a_line_and_the_button_classifies(visit: Visiting) -> None:
    one = visit("phone", has_touch=True, is_mobile=True).open()
    one.page.tap("#headline-text")
    for text in list(one.place.sure.values())[:2]:
        one.page.keyboard.type(text)
        one.page.keyboard.press("Enter")
    assert one.page.input_value("#headline-text") == "\n".join([*list(one.place.sure.values())[:2], ""])
    assert one.bodies("/v1/classify") == []
    one.gone("#headline-hint")
    one.press("Classify")
    one.count(".answer h3", 2)


def test_unsure_texts_stay_undecided_where_that_is_asked_for(visit: Visiting) -> None:
    one = visit().open()
    one.classify(one.place.unsure)
    one.see(".answer h3")
    one.page.select_option("#abstain", one.place.level)  # asks again by itself
    one.see(".answer h3", "Undecided")
    one.see(".answer", f"To be right {float(one.place.level) * 100:.0f}\u00a0% of the time,")
    one.see(".sure", "If it had to choose: of 100 answers")
    assert one.bodies("/v1/classify")[-1]["abstain"] == float(one.place.level)


def test_adapters_are_switched_and_each_says_what_its_numbers_mean(visit: Visiting) -> None:
    one = visit().open()
    one.classify(one.place.unsure)
    one.see(".answer .made", one.place.adapter)
    one.page.select_option("#adapter", one.place.other)
    one.see(".answer .made", one.place.other)
    one.see(".sure", "This adapter is not calibrated")
    asked = [body["adapter"] for body in one.bodies("/v1/classify")]
    assert list(dict.fromkeys(asked)) == [one.place.adapter, one.place.other]


def test_a_wrong_answer_is_corrected_by_a_click_or_a_key(visit: Visiting) -> None:
    one = visit().open()
    right, label = one.place.labels[:2]
    text = one.place.sure[label]
    one.classify(text)
    one.see(".answer h3", label)
    one.refuse("/v1/feedback", 501, "This server keeps no corrections.", times=1)
    one.press(right)
    one.see(".state", "Not sent. This server cannot do that. This server keeps no corrections.")
    one.press(right)
    one.see(".state", f"Corrected to {right}. Kept as feedback.")
    one.see(".answer h3", f"{label} → {right}")
    one.page.keyboard.press("2")  # the box does not have the focus now
    one.see(".state", f"Confirmed: {label}.")
    assert one.see(".answer h3").inner_text() == label
    sent = one.bodies("/v1/feedback")
    assert [body["label"] for body in sent] == [right, right, label]
    assert sent[0]["id"] == sent[1]["id"] != sent[2]["id"]  # the same choice twice is kept once
    assert sent[0] | {"id": ""} == {
        "id": "", "text": text, "adapter": one.place.adapter, "label": right, "predicted": label,
        "probability": sent[0]["probability"],
    }  # fmt: skip
    one.page.focus("#headline-text")
    one.page.keyboard.press("1")  # a digit in the box is text
    assert len(one.bodies("/v1/feedback")) == 3
    one.page.keyboard.press("Escape")
    one.page.keyboard.press("1")
    one.see(".answer h3", f"{label} → {right}")


def test_several_labels_are_told_and_corrected_together(visit: Visiting) -> None:
    one = visit().open()
    if one.place.several is None:
        pytest.skip("no adapter here gives several labels")
    one.page.select_option("#adapter", one.place.several)
    assert one.page.is_disabled("#abstain")
    one.classify(one.place.unsure)
    one.see(".answer h3", " and ")
    one.page.keyboard.press("Escape")
    one.page.keyboard.press("1")
    one.page.keyboard.press("Enter")
    one.see(".state", "Corrected to")
    (sent,) = one.bodies("/v1/feedback")
    assert one.place.labels[0] in sent["labels"]
    assert len(sent["labels"]) == 3


def test_markup_in_a_text_stays_text_and_places_count_characters(visit: Visiting) -> None:
    one = visit().open()
    label = one.place.labels[1]
    text = f'<img src=x onerror="window.hit=1"><b>\U0001f600</b> {one.place.sure[label]} <script>window.hit=1</script>'
    one.classify(text)
    one.see(".told", "For")
    assert one.page.locator(".answer > .marked").inner_text() == text
    marked = one.page.locator(".answer > .marked span[class^=for]").all_inner_texts()
    assert marked
    assert set(marked) <= set(re.findall(r"\w+|[^\w\s]", text))  # not shifted by the emoji, two UTF-16 units
    one.page.goto(f"{one.place.url}/#file")
    one.choose_file("<b>x.csv", f'text,<i>other\r\n"{text.replace(chr(34), chr(34) * 2)}",1\r\n')
    one.see("#file-name", "<b>x.csv: 1 row")
    one.see("#file-examples", text)
    one.page.click("#file-start")
    one.see("#rows-body", text)
    assert one.page.evaluate("window.hit") is None
    assert one.page.locator("main img, main b, main i, main script").count() == 0
    assert one.complaints == []


def test_texts_from_right_to_left_are_set_so_and_turn_nothing_else(visit: Visiting) -> None:
    one = visit()
    arabic, latin, turned = "البنك المركزي يرفع (2026).", "Bank opens", "evil \u202etxet\u202c"
    one.relabel(["World", "شرق", "Sports"])
    one.open()
    direction = "found => found.map(one => getComputedStyle(one).direction)"
    one.classify(arabic)
    assert one.page.eval_on_selector_all("#headline-text, .answer > .marked", direction) == ["rtl", "rtl"]
    assert one.see(".answer h3").inner_text() == "\u2068شرق\u2069"  # set apart from what a sentence goes on with
    one.see(".told", "For \u2068شرق\u2069: \u2068“")
    one.page.click("nav a[href='#file']")
    long = f"{arabic} {'and more ' * 60}"
    one.choose_file("\u202efdp.csv", "text\n" + "".join(f'"{text}"\n' for text in (arabic, latin, turned, long)))
    one.see("#file-name", "\u2068\u202efdp.csv\u2069: 4 rows")
    assert one.page.eval_on_selector_all("#file-examples div", direction) == ["rtl", "ltr", "ltr"]
    one.press("Classify all rows")
    one.count("#rows-body tr", 4)
    texts = "#rows-body div, #rows-body summary > bdi, #rows-body details > p"
    assert one.page.eval_on_selector_all(texts, direction) == ["rtl", "ltr", "ltr", "rtl", "rtl"]
    apart = "found => found.map(one => getComputedStyle(one).unicodeBidi)"
    assert set(one.page.eval_on_selector_all(texts, apart)) == {"isolate"}
    one.page.click("nav a[href='#triage']")
    assert one.see("#triage-list .marked >> nth=0").get_attribute("dir") == "auto"
    assert one.page.evaluate("getComputedStyle(document.querySelector('.settings')).direction") == "ltr"


def test_nothing_jumps_when_answers_come_late(visit: Visiting) -> None:
    one = visit(viewport={"width": 390, "height": 1800})  # narrow, and all of it is seen
    one.page.add_init_script(
        "window.jumps = []; new PerformanceObserver(list => window.jumps.push(...list.getEntries().map("
        "one => [one.value, one.sources.map(source => [source.node?.nodeName, source.node?.id, source.node?.className])])))"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    held = one.hold("/v1/classify")
    one.open()
    one.classify(one.place.sure[one.place.labels[1]])
    for many in (1, 2):  # the answer, then its words
        one.until(lambda many=many: len(held) == many)
        one.page.wait_for_timeout(550)  # what moves within half a second of a key press does not count
        held[-1].continue_()
    one.see(".told", "For")
    one.page.wait_for_timeout(50)
    jumps = one.page.evaluate("window.jumps")
    # shares of the screen; a button that moves with the words before it is less
    assert sum(size for size, _ in jumps) < 0.001, jumps


def test_the_page_is_built_for_keyboards_and_screen_readers(visit: Visiting) -> None:
    one = visit(reduced_motion="reduce").open()
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert one.page.get_by_role(landmark).count() == 1
    nameless = "[...document.querySelectorAll('input, select, textarea, progress')].filter(one => "
    nameless += "!one.labels?.length && !one.ariaLabel).map(one => one.id)"
    assert one.page.evaluate(nameless) == []
    one.page.keyboard.press("Tab")
    seen = []
    for _ in range(9):
        outline = (
            "(style => [style.outlineStyle, parseFloat(style.outlineWidth)])(getComputedStyle(document.activeElement))"
        )
        assert one.page.evaluate(outline) == ["solid", 2]
        seen.append(one.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        one.page.keyboard.press("Tab")
    assert seen == [
        "To the content",
        "Headline",
        "File",
        "Triage",
        "Live",
        "adapter",
        "abstain",
        "headline-text",
        "Classify",
    ]
    held = one.hold("/v1/classify")
    one.page.focus("#headline-text")
    one.page.keyboard.type(one.place.unsure)
    one.page.keyboard.press("Enter")
    one.see("#headline-status[aria-busy]")
    moving = "getComputedStyle(document.querySelector('#headline-status .said'), '::before').animationName"
    assert one.page.evaluate(moving) == "none"
    one.until(lambda: held)
    held[0].continue_()
    one.see(".answer h3")
    one.page.keyboard.press("Escape")  # to the answer
    assert one.page.evaluate("document.activeElement.className") == "answer"
    one.page.focus("nav a:nth-child(3)")
    one.page.keyboard.press("Enter")
    one.see("#triage-title")
    assert one.page.evaluate("document.activeElement.id") == "triage-title"
    assert one.page.title() == "Look at unsure answers · newslora"
