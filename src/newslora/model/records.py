"""The small JSON files of an adapter or export folder: read, and every field seen to be what it should be.

Anybody may have edited, cut or made up such a file. What passes here has the types its readers count on.
"""

import functools
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from newslora.errors import RunError

_T = TypeVar("_T")
FAULTS_TOLD, LONGEST_VALUE = 3, 60  # of one file; characters of a value
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)  # no "512" for 512


class Record(BaseModel):
    """Of these fields at least; what else the file holds is kept as it is."""

    model_config = STRICT | ConfigDict(extra="allow")

    format: int


def read_record(path: Path, kind: type[_T], remedy: str) -> _T:
    """What a file holds.

    Args:
        path: of the file.
        kind: a model or dataclass of its fields.
        remedy: a sentence for whoever finds it damaged.

    Raises:
        FileNotFoundError: there is none.
        RunError: it cannot be read, or a field is missing, unknown or not what it should be.
    """
    try:
        found: _T = _reader(cast(Hashable, kind)).validate_json(path.read_bytes())
        return found
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}. {remedy}") from None
    except ValidationError as error:
        raise RunError(f"{path} is damaged: {_faults(error.errors())}. {remedy}") from None


@functools.cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _faults(found: Sequence[Any]) -> str:
    more = [f"{len(found) - FAULTS_TOLD} more"] if len(found) > FAULTS_TOLD else []
    return "; ".join([*map(_fault, found[:FAULTS_TOLD]), *more])


def _fault(item: Any) -> str:
    """One of pydantic's validation errors, in words."""
    field, kind = ".".join(str(part) for part in item["loc"]), item["type"]
    if kind == "json_invalid":
        return str(item["msg"])[:1].lower() + str(item["msg"])[1:]
    if not field:
        return "it is not a JSON object"
    if kind == "missing":
        return f"{field} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"there is no field '{field}'"
    value, told = repr(item["input"]), str(item["msg"]).removeprefix("Value error, ")
    short = value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "..."
    return f"{field} is {short}: {told[:1].lower()}{told[1:]}"
