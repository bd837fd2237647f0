"""JSON files of a run, an adapter or an export: read, and every field seen to be what it should be.

Anybody may have edited, cut or made up such a file. What passes here has the types its readers count on.
"""

import functools
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from newslora.config import fault
from newslora.errors import RunError, shortened

_T = TypeVar("_T")
FAULTS_TOLD, LONGEST_VALUE = 3, 60  # of one file; characters of a value
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)  # no "512" for 512


class Part(BaseModel):
    """Of these fields at least; what else stands there is kept as it is."""

    model_config = STRICT | ConfigDict(extra="allow")


class Record(Part):
    """A file that tells its format."""

    format: int


def read_record(path: Path, kind: type[_T], remedy: str, known: int | None = None) -> _T:
    """What a file holds.

    Args:
        path: of the file.
        kind: a model or dataclass of its fields.
        remedy: a sentence for whoever finds it damaged.
        known: the format this newslora reads, of a file that tells its own.

    Raises:
        FileNotFoundError: there is none.
        RunError: it cannot be read, is of another format, or a field is missing, unknown or not what it should be.
    """
    content = _contents(path, remedy)
    _check_format(path, content, known)
    found: _T = _checked(path, content, kind, remedy)
    return found


def read_dict(path: Path, kind: type[Part], remedy: str, known: int | None = None) -> dict[str, Any]:
    """As `read_record`, as the plain JSON object: for readers, templates among them, that take what else there is too."""
    content = _contents(path, remedy)
    _check_format(path, content, known)
    _checked(path, content, kind, remedy)
    found: dict[str, Any] = json.loads(content)
    return found


def check_line(path: Path, number: int, line: bytes, kind: Any, remedy: str) -> dict[str, Any]:
    """The JSON object in a line of a JSON lines file; errors as of `read_record`, with the line's number."""
    _checked(path, line, kind, remedy, f" in line {number:,}")
    found: dict[str, Any] = json.loads(line)
    return found


def _contents(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}. {remedy}") from None


def _check_format(path: Path, content: bytes, known: int | None) -> None:
    """Refuse a file of another format first: its fields may be others, and it is not damaged."""
    try:
        found = json.loads(content)["format"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return  # damaged, if it should tell one
    if known is not None and type(found) is int and found != known:
        raise RunError(other_format(path, found, known))


def other_format(path: Path, found: int, known: int) -> str:
    """What to say of a file that another newslora wrote."""
    return f"{path} has format {found}; this newslora reads {known}. Use the newslora that made it."


def _checked(path: Path, content: bytes, kind: Any, remedy: str, where: str = "") -> Any:
    try:
        return _reader(cast(Hashable, kind)).validate_json(content)
    except ValidationError as error:
        raise RunError(f"{path} is damaged{where}: {_faults(error.errors())}. {remedy}") from None


@functools.cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _faults(found: Sequence[Any]) -> str:
    more = [f"{len(found) - FAULTS_TOLD} more"] if len(found) > FAULTS_TOLD else []
    return "; ".join([*map(_fault, found[:FAULTS_TOLD]), *more])


def _fault(item: Any) -> str:
    """One of pydantic's validation errors, in words."""
    (field, told), kind = fault(item), item["type"]
    if kind == "json_invalid":
        return told
    if not field:  # what a file's own fields say of each other, or it has none
        return told if kind == "value_error" else "it is not a JSON object"
    if kind == "missing":
        return f"{field} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"there is no field '{field}' here (a newer newslora may have it)"
    return f"{field} is {shortened(repr(item['input']), LONGEST_VALUE)}: {told}"
