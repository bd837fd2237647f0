"""Columns of a Parquet or JSON input -> the types they keep in a Parquet output, whose rows were Python values in between."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.data.labels import is_missing
from newslora.data.lines import printable

if TYPE_CHECKING:
    import pyarrow as pa


def kept_type(given: "pa.DataType | type | None") -> "pa.DataType":
    """The type in which a column goes out: its own, else the nearest that rows made one by one can have, else text.

    Of JSON's columns it is told as bool, int or float.

    Dictionaries become what they stand for: batches written apart would each need their own.
    """
    import pyarrow as pa

    if isinstance(given, type):
        return {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}[given]
    found = None if given is None else _nearest(given)
    return pa.string() if found is None else found


def cell_of(kept: "pa.DataType") -> Callable[[Any], Any]:
    """What makes of a value read one that a column of this type takes, inside of lists and objects too."""
    from pyarrow import types

    if types.is_string(kept) or types.is_large_string(kept):
        return _text
    if types.is_binary(kept) or types.is_large_binary(kept) or types.is_fixed_size_binary(kept):
        return _bytes
    if types.is_list(kept) or types.is_large_list(kept) or types.is_fixed_size_list(kept):
        entry = cell_of(kept.value_type)
        if entry is not _same:
            return lambda values: None if values is None else [entry(value) for value in values]
    if types.is_struct(kept):
        parts = {field.name: cell_of(field.type) for field in kept}
        if any(part is not _same for part in parts.values()):
            return lambda value: None if value is None else {name: part(value[name]) for name, part in parts.items()}
    return _same


def told(value: Any) -> Any:
    """Truth values, lists and objects as JSON writes them, not as Python does."""
    return files.json_text(value, default=str) if isinstance(value, (bool, list, dict)) else value


def _nearest(given: "pa.DataType") -> "pa.DataType | None":
    """None for what text stands in for, wholly: dates and times, which are read as such, unions, types of extensions."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(given) or types.is_run_end_encoded(given):
        return _nearest(given.value_type)
    if types.is_float16(given):
        return pa.float32()
    if types.is_string_view(given):
        return pa.string()
    if types.is_binary_view(given):
        return pa.binary()
    if types.is_struct(given):
        parts = {field.name: _nearest(field.type) for field in given}
        return None if None in parts.values() else pa.struct(list(parts.items()))
    if types.is_map(given):
        key, item = _nearest(given.key_type), _nearest(given.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if types.is_list(given) or types.is_large_list(given) or types.is_fixed_size_list(given):
        inner = _nearest(given.value_type)
        if inner is None:
            return None
        if types.is_fixed_size_list(given):
            return pa.list_(inner, given.list_size)
        return pa.large_list(inner) if types.is_large_list(given) else pa.list_(inner)
    plain = types.is_primitive(given) and not types.is_temporal(given)
    text = types.is_string(given) or types.is_large_string(given)
    data = types.is_binary(given) or types.is_large_binary(given) or types.is_fixed_size_binary(given)
    return given if plain or text or data or types.is_decimal(given) or types.is_null(given) else None


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> str | None:
    return None if is_missing(value) else printable(str(told(value)))


def _bytes(value: Any) -> bytes | None:
    """The bytes that a reader made text of, the broken ones too."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
