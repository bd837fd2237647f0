"""The rows of a Parquet file, from any row on; a broken text costs its row only, unless it is one of a column of categories."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora.data.lines import Meter
from newslora.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS = 4096  # read at once,
BYTES = 16_000_000  # but no more than about this
_NO_FRACTION = r"\.0+(\D|$)"  # of a second


def open_parquet(path: Path) -> "pq.ParquetFile":
    """The opened file.

    Raises:
        DataError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # with a buffer, a row group of any size is read piece by piece
        return pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The file {path} cannot be read as Parquet: {error}.") from None


def parquet_rows(file: "pq.ParquetFile", number: int, meter: Meter) -> Iterator[dict[str, Any]]:
    """The rows behind the first `number`, as `plain_rows` gives them."""
    for batch in _batches(file, number):
        number += len(batch)
        meter.share = number / file.metadata.num_rows
        yield from plain_rows(batch)


def plain_rows(batch: "pa.RecordBatch") -> Iterator[dict[str, Any]]:
    """The rows of a batch; texts and bytes as text, dates and times as ISO 8601 writes them."""
    import pyarrow as pa

    plain = batch.cast(pa.schema([field.with_type(_plain_type(field.type)) for field in batch.schema]))
    for place, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) or pa.types.is_time(field.type):
            plain = plain.set_column(place, field.name, _whole_seconds(plain.column(place)))
    for fields in plain.to_pylist():
        yield {name: _decoded(value) for name, value in fields.items()}


def _plain_type(kind: "pa.DataType") -> "pa.DataType":
    """What values of a type are read as.

    Texts as bytes, for pyarrow refuses a whole batch over one broken text; dates and times as texts, for it does so over one
    beyond Python's range.
    """
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.large_binary()
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind.fields])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)))
    if pa.types.is_large_list(kind):  # as polars writes them
        return pa.large_list(kind.value_field.with_type(_plain_type(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)), kind.list_size)
    return kind


def _whole_seconds(times: "pa.Array") -> "pa.Array":
    """Without a fraction of a second that is 0."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(times, _NO_FRACTION, r"\1")


def _batches(file: "pq.ParquetFile", skipped: int) -> Iterator["pa.RecordBatch"]:
    """Record batches behind the first `skipped` rows; row groups among those are not read."""
    for place in range(file.num_row_groups):
        group = file.metadata.row_group(place)
        if skipped >= group.num_rows:
            skipped -= group.num_rows
            continue
        rows = BYTES * group.num_rows // max(1, group.total_byte_size)
        for batch in file.iter_batches(batch_size=min(ROWS, max(1, rows)), row_groups=[place]):
            if skipped < len(batch):
                yield batch.slice(skipped)
            skipped = max(0, skipped - len(batch))


def _decoded(value: Any) -> Any:
    """Bytes as text, broken ones as lone surrogates, inside of objects and lists too."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {name: _decoded(one) for name, one in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value
