"""The page's file view in a real browser: what it reads, how it goes through many rows, and what it gives back."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from newslora.data.readers import open_file

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]

READ = """async cases => {
    const { CsvReader } = await import('/page/csv.js');
    return cases.map(([text, separator, cuts]) => {
        const reader = new CsvReader(separator), rows = [];
        let from = 0;
        for (const cut of [...cuts, text.length]) { rows.push(...reader.push(text.slice(from, cut))); from = cut; }
        try { return [...rows, ...reader.end()] } catch (error) { return error.message } }) }"""
WRITE = """async tables => {
    const { csvLine } = await import('/page/csv.js');
    return tables.map(rows => rows.map(csvLine).join('')) }"""
DROP = """([name, head, row, rows]) => {
    const parts = [head, ...Array.from({length: rows}, (_, place) => row.replace('#', place))];
    const data = new DataTransfer(); data.items.add(new File(parts, name));
    const drop = new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
    setTimeout(() => document.getElementById('drop').dispatchEvent(drop)) }"""
OVER = """([selector, kind, text]) => {
    const data = new DataTransfer();
    if (text) data.setData('text/plain', text); else data.items.add(new File(['text\\nA\\n'], 'a.csv'));
    const event = new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
    document.querySelector(selector).dispatchEvent(event);
    return event.defaultPrevented }"""


def parsed(text: str, separator: str = ",") -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]


def test_csv_is_read_and_written_as_python_does(visit: Visiting) -> None:
    page = visit().open(ready=False).page
    draw = random.Random(1)
    cases: list[tuple[str, str, list[int]]] = []  # text, separator, where the pieces end in UTF-16 units
    for number in range(600):
        text = "".join(draw.choices('ab",;\n\r \U0001f600', k=draw.randrange(24)))
        if number % 2:  # a file as programs write it; else letters as they fall
            rows = [["".join(draw.choices('ab",\n ', k=draw.randrange(6))) for _ in range(3)] for _ in range(3)]
            held = io.StringIO(newline="")
            csv.writer(held).writerows(rows)
            text = held.getvalue()
        units = len(text.encode("utf-16-le")) // 2
        cases.append((text, draw.choice(",;"), sorted(draw.randrange(units + 1) for _ in range(3))))
    whole, broken = [], 0
    for case, found in zip(cases, page.evaluate(READ, cases), strict=True):
        text, separator, _ = case
        if parsed(f"{text}\nend", separator)[-1] != ["end"]:  # inside a quote that never closes: Python lets that pass
            assert "opens a quote" in found, case
            broken += 1
        else:
            assert found == parsed(text, separator), case
            whole.append(found)
    assert broken > 50
    assert sum(any("\n" in cell for row in rows for cell in row) for rows in whole) > 50
    assert [parsed(text) for text in page.evaluate(WRITE, whole)] == whole


def test_a_csv_file_is_classified_and_comes_back_with_answers(visit: Visiting) -> None:
    one = visit().open("file")
    labels = one.place.labels
    rows = [[str(n), one.place.sure[labels[n % 2]], f'said "twice",\nrow {n}'] for n in range(1, 120)]
    rows[4][1] = rows[4][2] = ""  # nothing to classify
    held = io.StringIO(newline="")
    csv.writer(held).writerows([["Class Index", "Title", "Description"], *rows])
    one.choose_file("news.csv", "\N{ZERO WIDTH NO-BREAK SPACE}" + held.getvalue())
    one.see("#file-name", "news.csv: 119 rows")
    boxes = one.page.locator("#file-column-list")
    assert [boxes.get_by_label(name).is_checked() for name in ("Class Index", "Title", "Description")] == [
        False,
        True,
        True,
    ]
    one.see("#file-examples", f'{rows[0][1]} said "twice", row 1')
    boxes.get_by_label("Description").uncheck()
    assert one.page.locator("#file-examples li").first.inner_text() == rows[0][1]
    boxes.get_by_label("Title").uncheck()
    one.see("#file-examples", "Choose at least one column.")
    assert one.page.is_disabled("#file-start")
    boxes.get_by_label("Title").check()
    one.press("Classify all rows")
    one.see("#file-numbers", "119 of 119 rows, 1 not classified")
    one.see("#file-made", f"Answered by {one.place.adapter}, version")
    one.see(f"#file-mix li:has-text('{labels[1]}')", "59 · 50.0\u00a0%")
    one.count("#rows-body tr", 50)
    one.see("#rows-position", "1 to 50 of 119")
    one.press("Next")
    one.press("Next")
    one.see("#rows-position", "101 to 119 of 119")
    one.page.select_option("#rows-filter", "error")
    assert one.count("#rows-body tr", 1).inner_text().split("\t")[-1].strip() == "This row has no text."
    one.page.select_option("#rows-filter", f"={labels[0]}")
    one.see("#rows-position", "1 to 50 of 59")

    one.page.get_by_label("Correct row 2", exact=True).click()  # the first one listed
    one.page.keyboard.press("2")
    one.see("#rows-body tr:first-child", f"{labels[0]} → {labels[1]}")
    (sent,) = one.bodies("/v1/feedback")
    assert (sent["text"], sent["predicted"], sent["label"]) == (rows[1][1], labels[0], labels[1])

    with one.page.expect_download() as download:
        one.press("Save as CSV")
    assert download.value.suggested_filename == "news-classified.csv"
    saved = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"), newline="")))
    assert [[row["Class Index"], row["Title"], row["Description"]] for row in saved] == rows
    assert {row["predicted"] for row in saved} == {labels[0], labels[1], ""}
    assert saved[4]["error"] == "This row has no text."
    assert [row["corrected"] for row in saved[:3]] == ["", labels[1], ""]
    assert all(0.9 < float(row["probability"]) <= 1 for row in saved if not row["error"])


def test_json_lines_and_plain_lines_and_headless_csv_are_read(visit: Visiting) -> None:
    one = visit().open("file")
    one.choose_file("a.jsonl", '{"id": 7, "headline": "First"}\n\n{"headline": "Second", "more": [1]}\n')
    one.see("#file-name", "a.jsonl: 2 rows")
    one.see("#file-examples", "Second")
    one.choose_file("a.json", json.dumps(["First", "Second", "Third"]))
    one.see("#file-name", "a.json: 3 rows")
    one.choose_file("a.txt", "First\r\n\r\nSecond, with a comma\r\n")
    one.see("#file-examples", "Second, with a comma")
    one.choose_file("a.csv", '"3";"Title, one";"Text one"\n"4";"Title two";"Text two"\n')
    one.see("#file-name", "a.csv: 2 rows")
    one.see("#file-examples", "Title, one Text one")  # all but the column of the shortest cells
    one.see("#file-remarks", "Its cells are separated by semicolons.")
    one.page.get_by_label("The first row names the columns").check()
    one.see("#file-name", "a.csv: 1 row")
    one.see("#file-column-list", "Title, one")
    one.choose_file("a.csv", "text,label\nOnly one\nA,b,c\n")
    one.see("#file-remarks", "2 rows have more or fewer cells than the first; check the quotes there.")
    one.choose_file("u.csv", "text\nZürich\n".encode("utf-16"))
    one.see("#file-examples", "Zürich")


def test_a_csv_file_is_understood_as_predict_understands_it(visit: Visiting, tmp_path: Path) -> None:
    one = visit().open("file")
    cases = {
        "Schlagzeile;Ressort\nBank kauft Klub;Wirtschaft\n": "Bank kauft Klub",  # names that nobody knows are names
        "sep=;\r\nKopf, kurz;Ressort\r\nBank, Klub;Wirtschaft\r\n": "Bank, Klub",
        '"sep=|"\nid|Nummer\nBank kauft Klub|7\n': "Bank kauft Klub",
        "3,Bank kauft Klub,Wirtschaft\n1,Klub,Bank\n": "Bank kauft Klub Wirtschaft",  # no names: a row as AG News has them
    }
    for content, first in cases.items():
        one.choose_file("rows.csv", content)
        one.see("#file-examples li:first-child", first)
        path = tmp_path / "rows.csv"
        path.write_text(content, encoding="utf-8", newline="")
        table = open_file(path)
        assert one.page.is_checked("#file-header") == table.has_header, content
        rows = len(list(table.rows))
        one.see("#file-name", f"rows.csv: {rows} row{'s' * (rows > 1)}")
        if table.has_header:
            assert one.page.locator("#file-column-list label").all_inner_texts() == list(table.columns)
    one.choose_file("rows.csv", "Bank kauft Klub\nKlub kauft Bank\n")  # but headlines alone are asked about
    one.see("#file-name", "2 rows")
    one.choose_file("rows.csv", "sep=;\n")
    one.see("#file-status[data-kind=error]", "no row to classify")


@pytest.mark.parametrize("colours", ["dark"])
def test_files_that_cannot_be_read_get_a_kind_sentence(visit: Visiting, colours: str) -> None:
    one = visit("phone", colours).open("file")
    cases = {
        "empty.csv": (b" \r\n", "is empty: there is no row to classify"),
        "header.csv": (b"text,label\r\n", "holds column names but no row to classify"),
        "quote.csv": (b'text\r\nfine\r\n"never closed\r\nmore', 'Row 3 opens a quote (") that is never closed'),
        "latin.csv": ("text\r\nZürich".encode("latin-1"), "is not UTF-8 text. Save it again with that encoding"),
        "sheet.xlsx": (b"PK\x03\x04....", "is a spreadsheet or a zip archive. Save it as CSV"),
        "sheet.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1", "is a spreadsheet or a zip archive. Save it as CSV"),
        "page.pdf": (b"%PDF-1.4 \xe2\xe3", "page.pdf holds bytes that are no text"),
        "photo.csv": (b"\xff\xd8\xff\xe0", "photo.csv holds bytes that are no text"),
        "rows.parquet": (b"PAR1....", "is Parquet or packed. Give it to newslora predict"),
        "nul.txt": (b"text\0more", "holds bytes that are no text"),
        "bad.jsonl": (b'{"text": "a"}\n{"text": \n', "Line 2 is not JSON."),
        "list.json": (b'["a", ', "begins as a JSON list but is not one to its end"),
        "numbers.jsonl": (b'{"text": "a"}\n7\n', "Record 2 is neither a text nor an object of named fields"),
    }
    for name, (content, sentence) in cases.items():
        one.choose_file(name, content)
        one.see("#file-status[data-kind=error]", sentence)
        one.gone("#file-plan")
    one.choose_file("good.csv", "text\nFine\n")  # and then goes on
    one.see("#file-plan", "good.csv: 1 row")
    assert one.complaints == []


def test_a_dropped_file_is_taken(visit: Visiting) -> None:
    one = visit().open("file")
    one.page.evaluate(DROP, ["drop.csv", "text\nDropped\n", "", 0])
    one.see("#file-examples", "Dropped")
    drop = DROP.replace("items.add(", "items.add(new File([1], 'second.csv')); data.items.add(")
    one.page.evaluate(drop, ["first.csv", "text\nOne\n", "", 0])
    one.see("#file-status[data-kind=error]", "2 files were dropped, and one is taken at a time.")
    one.see("#file-examples", "Dropped")


def test_a_file_dropped_anywhere_is_taken_and_the_page_is_not_left(visit: Visiting, tmp_path: Path) -> None:
    one = visit().open()
    path = tmp_path / "real.csv"
    path.write_text("text\nDropped beside the box\n")
    browser = one.page.context.new_cdp_session(one.page)
    dragged = {"x": 640, "y": 300, "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1}}

    def drag(*kinds: str) -> None:
        for kind in kinds:
            browser.send("Input.dispatchDragEvent", {"type": kind, **dragged})

    one.gone("#dropping")
    drag("dragEnter", "dragOver")
    one.see("#dropping", "Drop the file anywhere on this page")
    one.gone("#dropping")  # nothing more is heard of it
    drag("dragOver")
    one.see("#dropping")
    one.page.evaluate("document.body.dispatchEvent(new DragEvent('dragleave', {bubbles: true}))")  # out of the window
    assert one.page.is_hidden("#dropping")
    for view in ("headline", "live", "file"):  # onto the box for headlines, and onto nothing at all
        one.page.click(f"nav a[href='#{view}']")
        drag("dragEnter", "dragOver", "drop")
        one.see("#view-file #file-examples", "Dropped beside the box")
        one.gone("#dropping")
    assert one.page.url.startswith(one.place.url)
    dragged["data"]["files"] = [str(tmp_path)]
    drag("dragEnter", "dragOver", "drop")
    one.see("#file-status[data-kind=error]", "What was dropped is a folder.")
    one.page.click("nav a[href='#headline']")
    for kind in ("dragover", "drop"):  # a text goes where texts go
        assert not one.page.evaluate(OVER, ["#headline-text", kind, "Oil"])
        one.gone("#dropping")
    assert one.page.evaluate(OVER, ["#main", "dragover", "https://elsewhere.example"])


def test_beginnings_of_texts_end_with_a_word_and_an_ellipsis(visit: Visiting) -> None:
    one = visit().open("file")
    texts = ["news " * 100, "x" * 199 + "\U0001f600y", "short"]
    one.choose_file("long.csv", "text\n" + "\n".join(texts) + "\n")
    assert one.count("#file-examples li", 3).all_inner_texts() == ["news " * 39 + "news…", "x" * 199 + "…", "short"]
    words = "one => [getComputedStyle(one).color, getComputedStyle(one, '::file-selector-button').color]"
    own, button = one.page.eval_on_selector("#file-choice", words)
    assert own == "rgba(0, 0, 0, 0)" != button  # 'No file chosen' is not said above the file
    one.press("Classify all rows")
    assert one.see("#rows-body summary").inner_text() == "news " * 55 + "news…"


def test_a_stopped_file_promises_no_end(visit: Visiting) -> None:
    one = visit().open("file")
    path = "**/v1/classify/stream?*"
    one.choose_file("rows.csv", "text\n" + f"{one.place.unsure}\n" * 1200)
    held = one.hold("/v1/classify/stream?*")
    one.press("Classify all rows")
    for n in (1, 2):
        one.until(lambda n=n: len(held) == n)
        one.page.wait_for_timeout(600)
        held[n - 1].continue_()
    one.see("#file-numbers", "left")
    one.until(lambda: len(held) == 3)
    one.press("Cancel")
    one.see("#file-status", "Cancelled.")
    assert "left" not in one.see("#file-numbers", "1,024 of 1,200 rows").inner_text()
    one.page.unroute(path)
    one.refuse("/v1/classify/stream?*", 500, times=1)
    one.press("Go on")
    one.see("#file-status[data-kind=error]", "The server failed")
    assert "left" not in one.see("#file-numbers").inner_text()


def test_columns_of_an_earlier_answer_are_kept_under_another_name(visit: Visiting) -> None:
    one = visit().open("file")
    one.choose_file("again.csv", f"predicted,text,version,place\nold,{one.place.unsure},older,7\n")
    one.press("Classify all rows")
    one.see("#file-numbers", "1 of 1 row")
    with one.page.expect_download() as download:
        one.press("Save as CSV")
    head, row = csv.reader(io.StringIO(download.value.path().read_text("utf-8-sig"), newline=""))
    own = ["input_predicted", "text", "input_version", "place"]
    assert head == [*own, "predicted", "probability", "error", "version", "corrected"]
    assert row[:4] == ["old", one.place.unsure, "older", "7"]
    assert row[4] in one.place.labels
    assert row[7] not in ("older", "")


# a stream of answers as fast as can be, so that the page is what is measured
INSTANT = """label => {
    const answer = JSON.stringify({adapter: 'news', version: 'abc', label, labels: [label], probability: 0.9, error: null});
    const fetched = window.fetch;
    window.fetch = async (path, asked) => path.startsWith('/v1/classify/stream') ? new Response(asked.body.trim().split('\\n')
        .map(line => `{"id":${JSON.parse(line).id},${answer.slice(1)}\\n`).join('')) : fetched(path, asked) }"""
# the longest time in which nothing else could run: no key press, no scrolling
WATCH = """() => { window.longest = 0; let last = performance.now();
    setInterval(() => {
        const now = performance.now(); window.longest = Math.max(window.longest, now - last); last = now }, 10) }"""


def test_a_hundred_thousand_rows_do_not_freeze_the_tab(visit: Visiting) -> None:
    one = visit().open("file")
    text = one.place.sure[one.place.labels[1]]
    one.page.evaluate(INSTANT, one.place.labels[1])
    one.page.evaluate(DROP, ["many.csv", "title,more,number\n", f'"{text}, again","{"word, " * 34}",#\n', 100_000])
    one.page.evaluate(WATCH)  # from here on: making the file took long
    one.see("#file-name", "100,000 rows")
    one.press("Classify all rows")
    one.see("#file-numbers", "100,000 of 100,000 rows")
    assert one.page.locator("#rows-body tr").count() == 50
    one.page.select_option("#rows-order", "unsure")
    one.see("#rows-position", "1 to 50 of 100,000")
    assert one.page.evaluate("window.longest") < 1000  # ms; below 100 where the machine is not busy with something else


def test_it_goes_on_where_it_stopped(visit: Visiting) -> None:
    one = visit().open("file")
    text = one.place.sure[one.place.labels[1]]
    one.choose_file("rows.csv", "text\n" + f"{text}\n" * 1200)
    path = "**/v1/classify/stream?*"
    one.refuse("/v1/classify/stream?*", 413, "Too large.", times=1)
    one.press("Classify all rows")  # the first block is cut smaller
    one.see("#file-numbers", "1,200 of 1,200 rows")
    sizes = [asked.post_data.count("\n") for asked in one.requests if "/stream" in asked.url]
    assert sizes[0] == 512
    assert set(sizes[1:]) <= {128, 1200 % 128}

    answer = {
        "adapter": "news",
        "version": "abc",
        "label": "World",
        "labels": ["World"],
        "probability": 0.5,
        "error": None,
    }
    whole = json.dumps({"id": 0} | answer) + "\n"
    one.page.route(path, lambda route: route.fulfill(body=whole), times=1)  # breaks off after one answer
    one.press("Classify all rows")
    one.see("#file-status", "broke off in the middle of its answer. Trying again in 1 second.")
    one.see("#file-numbers", "1,200 of 1,200 rows")
    one.see("#file-made", "was replaced meanwhile")  # two versions answered
    again = [json.loads(asked.post_data.splitlines()[0])["id"] for asked in one.requests if "/stream" in asked.url]
    assert again[-3:] == [1, 513, 1025]

    held: list[Any] = []
    one.page.route(path, lambda route: held.append(route))
    one.press("Classify all rows")
    one.until(lambda: held)
    one.press("Cancel")
    one.see("#file-status", "Cancelled.")
    one.page.unroute(path)
    one.refuse("/v1/classify/stream?*", 503, "The queue is full.", times=1, **{"Retry-After": "1"})
    one.press("Go on")
    one.see("#file-status", "The queue is full. Trying again in 1 second.")
    one.see("#file-numbers", "1,200 of 1,200 rows")

    ended = '{"id": null, "error": {"code": "draining", "message": "The server is ending."}}\n'
    one.page.route(path, lambda route: route.fulfill(body=ended), times=1)
    one.press("Classify all rows")
    one.see("#file-status[data-kind=error]", "The server is ending.")
    one.press("Go on")
    one.see("#file-numbers", "1,200 of 1,200 rows")


def test_rows_that_the_server_cannot_answer_now_are_asked_for_again(visit: Visiting) -> None:
    one = visit().open("file")
    one.choose_file("rows.csv", "text\n" + f"{one.place.unsure}\n" * 3)
    given = {"adapter": "news", "version": "abc", "label": None, "labels": [], "probability": None}
    good = given | {"label": "World", "labels": ["World"], "probability": 0.5, "error": None}

    def answer_once(code: str, message: str) -> None:
        """The second of three rows with an error."""
        answers = good, given | {"error": {"code": code, "message": message}}, good
        body = "".join(json.dumps({"id": n} | told) + "\n" for n, told in enumerate(answers))
        one.page.route("**/v1/classify/stream?*", lambda route: route.fulfill(body=body), times=1)

    answer_once("text_too_long", "Too long.")  # as it would be again
    one.press("Classify all rows")
    one.see("#file-numbers", "3 of 3 rows, 1 not classified")
    answer_once("overloaded", "It is full.")
    one.press("Classify all rows")
    one.see("#file-status[data-kind=error]", "It is full.")
    one.press("Go on")
    one.see("#file-numbers", "3 of 3 rows")
    assert "not classified" not in one.see("#file-numbers").inner_text()
    asked = [len(each.post_data.splitlines()) for each in one.requests if "/stream" in each.url]
    assert asked == [3, 3, 2]


def test_rows_left_undecided_are_saved_with_what_they_may_be(visit: Visiting) -> None:
    one = visit().open("file")
    one.page.select_option("#abstain", one.place.level)
    label = one.place.labels[1]
    one.choose_file("rows.csv", f'text\n{one.place.unsure}\n{one.place.sure[label]}\n" "\n')
    one.press("Classify all rows")
    one.see("#file-numbers", "3 of 3 rows, 1 not classified")
    with one.page.expect_download() as download:
        one.press("Save as CSV")
    unsure, sure, blank = csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"), newline=""))
    assert (unsure["predicted"], unsure["abstained"], sure["abstained"], blank["abstained"]) == (
        "",
        "true",
        "false",
        "",
    )
    assert len(json.loads(unsure["answer_set"])) > 1
    assert (sure["predicted"], json.loads(sure["answer_set"]), blank["answer_set"]) == (label, [label], "")
