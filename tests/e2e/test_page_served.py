"""The page and `newslora serve` itself: all four views over a trained run, from the routes down to the weights."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_server import Place, serving

from newslora.serving.app import create_app
from newslora.serving.context import Context
from newslora.serving.logs import make_log
from newslora.serving.service import Service
from newslora.serving.settings import ServeSettings

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest_plugins = ["page_visit"]
Visiting = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, planted: Path) -> Iterator[Place]:
    """The real server over one small run under two names; see conftest.py for what it has learnt."""
    address = f"sqlite:///{tmp_path_factory.mktemp('feedback') / 'corrections.db'}"
    settings = ServeSettings(feedback=address, deadline_seconds=60)
    context = Context(Service(settings), settings, make_log(io.StringIO()))
    for name in ("news", "desk"):
        context.load(name, planted)
    context.ready = True
    sure = {"World": "treaty meets over border in peace", "Sports": "signs twice final games record"}
    with serving(create_app(context)) as url:
        yield Place(url, ["World", "Sports"], sure, "border", several=None)


def test_a_trained_run_is_put_to_work_from_the_page(visit: Visiting) -> None:
    one = visit().open()
    world, sports = one.place.labels
    one.classify(one.place.sure[world])
    one.see(".answer h3", world)
    one.see(".sure", re.compile("^(Of 100 answers as sure as this|Score)"))
    one.see(".told", re.compile(rf"For {world}: .*“treaty”"))  # integrated gradients of the very weights
    one.press(sports)
    one.see(".state", f"Corrected to {sports}. Kept as feedback.")
    one.page.select_option("#adapter", one.place.other)
    one.see(".answer .made", one.place.other)
    one.page.select_option("#abstain", one.place.level)  # more than this run's twenty validation rows can tell
    one.see("#headline-status[data-kind=error]", "The server cannot use this request.")

    one.page.select_option("#adapter", one.place.adapter)
    one.page.select_option("#abstain", "")
    one.page.click("nav a[href='#file']")
    texts = [one.place.sure[one.place.labels[n % 2]] for n in range(700)]
    texts[3] = ""
    one.choose_file("news.csv", "text,number\r\n" + "".join(f'"{text}",1\r\n' for text in texts))
    one.press("Classify all rows")
    one.see("#file-numbers", "700 of 700 rows")
    with one.page.expect_download() as download:
        one.press("Save as CSV")
    saved = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"), newline="")))
    expected = [label if text else "" for text, label in zip(texts, [world, sports] * 350, strict=True)]
    assert [row["predicted"] for row in saved] == expected

    one.page.click("nav a[href='#triage']")
    one.see("#triage-list > li")
    one.page.click("nav a[href='#live']")
    one.see("#live-adapters section:first-child", re.compile("answers in the last hour.* 1 correction"))
    assert [words for words in one.complaints if "422" not in words] == []  # the browser notes the refusal above
