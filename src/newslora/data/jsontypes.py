"""What a column of JSON holds in all rows -> the type it keeps in a Parquet file: truth values or numbers, where all are."""

from types import NoneType
from typing import Any

EXACT = 2**53  # whole numbers up to here are numbers of float64 too
_LONG = "long"  # a whole number of 64 bits beyond


def kind_of(value: Any) -> type | str:
    """bool, int, float or None's, or what tells a longer int; str stands for all that goes out as text."""
    kind = type(value)
    if kind is int and not -EXACT <= value <= EXACT:
        return _LONG if -(2**63) <= value < 2**63 else str
    return kind if kind in (bool, int, float, NoneType) else str


def column_type(kinds: set[type | str]) -> type | None:
    """The kinds of a column's values -> bool, int or float, if it loses nothing by being of that type; else None."""
    found = kinds - {NoneType}
    if found == {bool}:
        return bool
    if found and found <= {int, _LONG}:
        return int
    return float if found and found <= {int, float} else None
