"""Texts, labels and names that somebody else wrote command no terminal: their control characters are shown as signs."""

import io
import sys

import pytest

from newslora.cli import app
from newslora.cli.common import new_table, remarks, results
from newslora.cli.explained import marked_text, top_words
from newslora.data.lines import visible
from newslora.explanation.attributions import Explanation
from newslora.explanation.words import Word
from newslora.predict.writers import tab_writer

# a title, the clipboard, a colour, a line written over, 8-bit beginnings of such, and a bell
HOSTILE = "\x1b]0;title\x07 \x1b]52;c;cm0gLXJm\x1b\\ \x1b[31mred\rover\x08 \x9b31m \x90x\x9c\x7f\0"
OBEYED = set("\x1b\x07\r\x08\x7f\0\x9b\x90\x9c")


def test_each_control_character_is_one_sign_and_all_else_stays() -> None:
    assert (
        visible("Zürich\t\N{GRINNING FACE}\n\N{HEBREW LETTER SHIN}\u202e\ud800")
        == "Zürich\t\N{GRINNING FACE}\n\N{HEBREW LETTER SHIN}\u202e\ud800"
    )
    assert visible("a\x1b[0m\x7f\x9b") == "a\u241b[0m\u2421\ufffd"
    assert len(visible(HOSTILE)) == len(HOSTILE)  # places in the text stay
    assert not OBEYED & set(visible(HOSTILE))


def test_rows_on_screen(capsys: pytest.CaptureFixture[str]) -> None:
    write = tab_writer(sys.stdout, ("text",))
    write([{"text": HOSTILE, "predicted": f"{HOSTILE}\nWorld", "probability": 0.5, "error": None}])
    write([{"text": HOSTILE, "error": f"unknown label '{HOSTILE}'"}])
    shown = capsys.readouterr().out
    assert not OBEYED & set(shown)
    assert shown.count("\n") == 2
    assert "\u241b[31mred over" in shown


def test_consoles_and_explanations(capsys: pytest.CaptureFixture[str]) -> None:
    one = Explanation(HOSTILE, HOSTILE, 0.9, "Sports", (Word(HOSTILE[:5], 0, 5, 1.5),), 2.0, 0.5, 32, None)
    table = new_table(HOSTILE, HOSTILE)
    table.add_row(HOSTILE)
    for console in (results(), remarks()):  # not terminals here, so rich adds no escapes of its own
        for part in (HOSTILE, table, marked_text(one), top_words(one)):
            console.print(part)
    shown = "".join(capsys.readouterr())
    assert shown.count("\u241b") > 20
    assert not OBEYED & set(shown)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert app.main(["predict", HOSTILE.replace("\0", ""), "-"]) != 0
    assert "\u241b[31mred" in stream.getvalue()
    assert not OBEYED & set(stream.getvalue())
