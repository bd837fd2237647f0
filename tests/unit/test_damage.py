"""Damaged text: what is planted is found with its place, and sound text is not called damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newslora.auditing.damage import KINDS, find_damage


def kinds(text: str) -> set[str]:
    return {one.kind for one in find_damage(text)}


@pytest.mark.parametrize(
    "right",
    ["café", "naïve – “quoted”", "Ölpreis steigt über 55 €", "Привет, мир", "北京", "😀 wins", "£5 m", "señor año"],  # noqa: RUF001
)
def test_utf8_read_as_another_encoding_is_found_and_the_right_text_is_not(right: str) -> None:
    assert kinds(right) == set()
    assert "mojibake" in kinds(right.encode().decode("latin-1"))
    cp1252 = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in right.encode())
    assert "mojibake" in kinds(cp1252)


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("lost \ufffd\ufffd here", "replacement", "\ufffd\ufffd"),
        ("a\x00b", "control", "\x00"),
        ("price\\falls today", "backslash", "\\"),
        ("for \\$42 million", "backslash", "\\"),
        ("Bush &amp; Blair", "entity", "&amp;"),
        ("caf&#233; and &#xE9;", "entity", "&#233;"),
        ("company #39;s profit", "entity", "#39;"),
        ("he said  quot;yes quot; today", "entity", "quot;"),
        ("a <b>bold</b> move", "tag", "<b>"),
        ('see <a href="x">here', "tag", '<a href="x">'),
    ],
)
def test_planted_damage_is_found_with_its_place(text: str, kind: str, found: str) -> None:
    hits = {one.kind: one for one in find_damage(text)}
    assert set(hits) == {kind}
    assert hits[kind].found == found


@pytest.mark.parametrize(
    "text",
    [
        "AT&T; R&D; Q&A", "5 < 6 and 7 > 2", "I <3 you", "tabs\tand\nlines\r\n", "C:\\Users\\me, \\\\server\\share",
        "two \\\\ of them", "he came in #10; she was #3;", "the quota; the amplifier;", "Â and Ã alone", "LE CAFÉ»",
        "São Paulo, Chișinău, Łódź", "ÀÉÎ ÂME ÃO", "email <someone@example.com>",
        "“C’est l’été”, dit-il…",  # noqa: RUF001
    ],
)  # fmt: skip
def test_sound_text_is_not_called_damaged(text: str) -> None:
    assert find_damage(text) == []


@given(st.text())
def test_damage_is_looked_for_in_any_text(text: str) -> None:
    found = find_damage(text)
    assert [one.kind for one in found] == [kind for kind in KINDS if kind in kinds(text)]
    assert all(one.count > 0 and one.found in text for one in found)
