"""Text that went through the wrong hands: encoding damage and HTML left over."""

import html.entities
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KINDS = {
    "mojibake": "UTF-8 read as Latin-1 or cp1252",
    "replacement": "U+FFFD, where a character was lost",
    "control": "control characters other than tab and line end",
    "backslash": "a backslash alone, outside a path",
    "entity": "HTML entities, whole (&lt;) or without their & (#39;)",
    "tag": "HTML tags",
}
TAGS = (
    "a|abbr|article|b|blockquote|body|br|button|center|cite|code|dd|div|dl|dt|em|embed|font|footer|form|h[1-6]|head|header|"
    "hr|html|i|iframe|img|input|label|li|link|meta|nav|ol|object|option|p|pre|script|section|select|small|span|strike|strong|"
    "style|sub|sup|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|video"
)
# The bytes 0x80 to 0xFF as cp1252 shows them, and as Latin-1 shows those that cp1252 leaves out
SHOWN = {bytes([byte]).decode("cp1252", "ignore") or chr(byte): byte for byte in range(0x80, 0x100)}
SHOWN |= {chr(byte): byte for byte in range(0x80, 0x100)}
HIGH = re.compile("[" + "".join(re.escape(character) for character in SHOWN) + "]{2,}")
CERTAIN = "ÂÃâðï"  # lead bytes of accents, dashes, quotes, emoji and U+FFFD; hardly ever followed by a symbol otherwise
REPLACEMENT = re.compile("\ufffd+")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")
BACKSLASH = re.compile(r"(?<!\\)\\(?!\\)")
PATH = re.compile(r"\b[A-Za-z]:\\\S*|\\\\\w[^\s\\]*\\\S*")  # C:\folder, \\server\share
ENTITY = re.compile(r"&#[0-9]{1,7};|&#[xX][0-9a-fA-F]{1,6};|&[A-Za-z][A-Za-z0-9]{1,31};")
# '#10;' may end a clause about rank ten: of two digits, only the codes of " $ & ' < > [ \ ] ` and the like
BROKEN_ENTITY = re.compile(
    r"(?<![&\w])(?:#(?:3[4689]|6[02]|9[1-6]|1[0-9]{2}|2[0-5][0-9]|8[0-9]{3});"
    r"|(?:amp|lt|gt|quot|apos|nbsp|mdash|ndash|[lr][sd]quo|hellip);)"
)
TAG = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*)?/?>|<!--|<!DOCTYPE", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Damage:
    """One kind of damage in one text."""

    kind: str  # of KINDS
    count: int
    found: str  # the first occurrence


def find_damage(text: str) -> list[Damage]:
    """Every kind of damage in a text, in the order of `KINDS`."""
    found = []
    for kind, search in _SEARCHES.items():
        hits = list(search(text))
        if hits:
            found.append(Damage(kind, len(hits), hits[0]))
    return found


def _mojibake(text: str) -> Iterator[str]:
    """Runs of characters that are UTF-8 once written back as the bytes they stood for."""
    for match in HIGH.finditer(text):
        run = match[0]
        start = 0
        while start < len(run) - 1:
            size = _utf8_size(SHOWN[run[start]])
            part = run[start : start + size]
            if size < 2 or not _decodes(part):
                start += 1
                continue
            # one 'É»' may be a capital before a quotation mark; two pairs in a row are not
            following = run[start + size :]
            again = following and _decodes(following[: _utf8_size(SHOWN[following[0]])])
            if part[0] in CERTAIN or again:
                yield part
                start += size
            else:
                start += 1


def _utf8_size(lead: int) -> int:
    """Bytes of the UTF-8 sequence this byte begins; 0 where it begins none."""
    return 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 0


def _decodes(part: str) -> bool:
    try:
        return len(bytes(SHOWN[character] for character in part).decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


def _backslashes(text: str) -> Iterator[str]:
    if "\\" in text:
        for match in BACKSLASH.finditer(PATH.sub(" ", text)):
            yield match[0]


def _entities(text: str) -> Iterator[str]:
    for match in ENTITY.finditer(text):
        if match[0][1] == "#" or match[0][1:] in html.entities.html5:
            yield match[0]
    for match in BROKEN_ENTITY.finditer(text):
        yield match[0]


def _pattern(pattern: re.Pattern[str]) -> Callable[[str], Iterator[str]]:
    return lambda text: (match[0] for match in pattern.finditer(text))


_SEARCHES: dict[str, Callable[[str], Iterator[str]]] = {
    "mojibake": _mojibake,
    "replacement": _pattern(REPLACEMENT),
    "control": _pattern(CONTROL),
    "backslash": _backslashes,
    "entity": _entities,
    "tag": _pattern(TAG),
}
