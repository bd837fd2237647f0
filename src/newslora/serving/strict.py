"""What clients send, read strictly. JSON: no duplicate keys, NaN, NUL or broken Unicode, and numbers that a computer holds."""

import json
import math
from collections.abc import Sequence
from typing import Any

from newslora.errors import near
from newslora.serving.problems import Problem, shown

MOST_DIGITS = 19  # of a whole number: what 64 bits hold
MOST_KEYS = 100  # of an object; no request has so many fields, and each unknown one would be a fault of its own


def parse(body: bytes | bytearray) -> Any:
    """The value of a JSON text.

    Raises:
        Problem: 422, saying what it is instead.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        raise _bad(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _bad(f"{error.msg[:1].lower()}{error.msg[1:]} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise _bad("it is nested too deeply") from None


def check_text(text: str) -> str:
    """Text that every part of the way can hold: Unicode without lone surrogates and without NUL.

    Raises:
        ValueError: saying which.
    """
    if "\0" in text:
        raise ValueError("holds a NUL character, which is no text: leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair at character {error.start}: send valid Unicode") from None
    return text


def check_query(given: Sequence[str], parameters: Sequence[str], fields: Sequence[str]) -> None:
    """Refuse names in a query that would be ignored: all but the route's parameters, and fields of its body.

    Raises:
        Problem: 422, naming the near ones.
    """
    for name in given:
        if name not in parameters:
            way = " It is a field of the body." if name in fields else near(name, [*parameters, *fields])
            known = f" Known: {', '.join(parameters)}." if parameters else " There are none."
            raise Problem(422, "bad_request", f"{shown(name)} is not a query parameter of this request.{known}{way}")
    if len(set(given)) < len(given):
        twice = next(name for name in given if given.count(name) > 1)
        raise Problem(422, "bad_request", f"The query names {twice} twice, and which one counts would be a guess.")


def _bad(reason: str) -> Problem:
    return Problem(422, "bad_json", f"The body is not JSON that can be used: {reason}.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_KEYS:
        raise _bad(f"an object has more than {MOST_KEYS} keys")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _bad("an object names a key twice, and which one counts would be a guess")
    return found


def _constant(name: str) -> Any:
    raise _bad(f"{name} is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _bad("a number is beyond what a double holds")
    return value


def _int(text: str) -> int:
    if len(text.removeprefix("-")) > MOST_DIGITS:
        raise _bad(f"a whole number has more than {MOST_DIGITS} digits")
    return int(text)
